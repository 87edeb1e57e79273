"""What a report says of a model that was chosen by a budget."""

from collections.abc import Mapping
from typing import Any

from mobilenets.evaluation import formats

METRICS = {
    "classify": {
        "accuracy": "accuracy",
        "precision": "macro_precision",
        "recall": "macro_recall",
        "f1": "macro_f1",
    },
    "detect": {"ap": "ap", "ap50": "ap50", "f1": "f1"},
    "segment": {"miou": "miou", "f1": "f1", "pixel_accuracy": "pixel_accuracy"},
}  # what a user may ask for, the usual first, and how a measured file's row calls it
MODELS = {"classify": "classifiers", "detect": "detectors", "segment": "segmenters"}
# What people call those metrics that are no words.
TITLES = {"f1": "F1", "ap": "AP", "ap50": "AP50", "miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
LIMITS = {
    "latency_ms": ("latency", formats.milliseconds, 1),
    "size_kb": ("size", formats.size, 1e3),
    "memory_mb": ("memory", formats.size, 1e6),
}
STAGES = {
    "extracted": "as extracted",
    "tuned": "tuned",
    "integers": "tuned in int8",
}


def task_of(row: Mapping[str, Any]) -> str:
    """The task, a key of `METRICS`, of a measured file's row, or of metrics: the one whose usual figure it has."""
    return next((task for task, names in METRICS.items() if next(iter(names.values())) in row), "classify")


def metrics_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The `METRICS` of a measured file's row."""
    return METRICS[task_of(row)]


def heading(title: str) -> str:
    """A metric's title at the beginning of a line: words get a capital, abbreviations have theirs."""
    return title.capitalize() if title.islower() else title


def chosen(entry: Any) -> dict[str, Any] | None:
    """What the template shows of a card's ``chosen``; None where it says nothing that makes sense."""
    if not isinstance(entry, Mapping) or not _is_row(entry.get("winner")):
        return None
    known = metrics_of(entry["winner"])
    metric = str(entry.get("metric"))
    metric = metric if metric in known else next(iter(known))
    column, called = known[metric], TITLES.get(metric, metric)
    rows = [{"what": f"chosen, {_stage(entry)}" if entry.get("stage") else "chosen"} | entry["winner"]]
    for row in _list(entry.get("stages")):
        if _is_row(row) and row.get("stage") != entry.get("stage"):
            rows.append({"what": _stage(row)} | row)
    for number, row in enumerate(row for row in _list(entry.get("runners_up")) if _is_row(row)):
        rows.append({"what": "" if number else "next best"} | row)
    for step in _list(entry.get("steps")):
        if isinstance(step, Mapping) and step.get("limit") in LIMITS and _is_row(step.get("row")):
            title, write, scale = LIMITS[step["limit"]]
            needs = step.get("needs")
            told = write(needs * scale) if formats.is_number(needs) else "more"
            rows.append({"what": f"{title} {told} buys"} | step["row"])
    return {
        "metric": called,
        "heading": heading(called),
        "rows": [row | {"value": row.get(column)} for row in rows],
        "limits": _limits(entry),
        "considered": formats.count(entry.get("considered")),
        "fitting": formats.count(entry.get("fitting")),
        "images": entry.get("images"),
        "device": entry.get("device"),
        "notes": [str(note) for note in _list(entry.get("notes"))],
    }


def _stage(row: Mapping[str, Any]) -> str:
    return STAGES.get(str(row.get("stage")), str(row.get("stage")))


def _is_row(row: Any) -> bool:
    return isinstance(row, Mapping)


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _limits(entry: Mapping[str, Any]) -> list[dict[str, str]]:
    budget, shares = entry.get("budget"), entry.get("shares")
    if not isinstance(budget, Mapping) or not isinstance(shares, Mapping):
        return []
    found = []
    for name, (title, write, scale) in LIMITS.items():
        most, share = budget.get(name), shares.get(name)
        if formats.is_number(most) and formats.is_number(share):
            found.append({"title": title, "most": write(most * scale), "share": formats.percent(share)})
    return found
