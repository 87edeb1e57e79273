"""What `grid` and `choose` print."""

from pathlib import Path
from typing import Any

from rich.markup import escape

from mobilenets.display import console, millions, table
from mobilenets.evaluation.chosen import STAGES, TITLES, metrics_of
from mobilenets.evaluation.report import RUNTIMES
from mobilenets.selection.budget import LIMITS
from mobilenets.selection.table import score, score_title


def show_grid(found: dict[str, Any]) -> None:
    """Prints the Pareto front of each runtime."""
    title = score_title(found["rows"])
    result = table("runtime", ">α", ">pixels", "precision", f">{title}", ">latency", ">size", ">memory", ">MACs")
    before = None
    rows = [row for row in found["rows"] if row["pareto"]]
    for row in sorted(rows, key=lambda row: (row["runtime"], row["latency_ms"])):
        if before not in (None, row["runtime"]):
            result.add_section()
        first, before = row["runtime"] != before, row["runtime"]
        result.add_row(
            _runtime(row) if first else "",
            f"{row['width_multiplier']:g}",
            str(row["resolution"]),
            escape(row["precision"]),
            f"{score(row):.2%}",
            f"{row['latency_ms']:.3g} ms",
            f"{row['file_bytes'] / 1e3:,.0f} kB",
            "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 1e6:,.1f} MB",
            millions(row["macs"]),
        )
    console().print(result)
    print(
        f"{len(found['rows'])} files measured, {len(rows)} shown: in its runtime, no other is faster and has a higher "
        f"{title}\n{found['images']:,} images; latency of one image, {_threads(found['rows'][0])}"
    )


def show_choice(found: dict[str, Any]) -> None:
    """Prints what `mobilenets.selection.choose.choose` or `choose_published` returned."""
    show_chosen(found)
    print(f"{found['fitting']} of {found['considered']} files fit")
    for name, share in found["shares"].items():
        limit, most = LIMITS[name], found["budget"][name]
        used = "under 1%" if share < 0.01 else f"{share:.0%}"
        print(f"{limit.title}: {limit.tell(limit.of(found['winner']))} of {limit.tell(most)}, {used}")
    bought = {step["limit"] for step in found["steps"]}
    for name in found["budget"]:
        if name not in bought:
            print(f"more {LIMITS[name].title} alone buys nothing better")
    _where(found, found.get("published", False))


def show_chosen(found: dict[str, Any]) -> None:
    """Prints the table of a choice: what was chosen, the stages behind it, the next best, and what more would buy."""
    metric, published = found["metric"], found.get("published", False)
    key = metrics_of(found["winner"])[metric]
    # Published networks are all measured in the same precision and runtime.
    result = table(
        "", *(("network",) if published else ()), ">α", ">pixels", *(() if published else ("precision", "runtime"))
    )
    for column in result.columns:
        column.no_wrap = True
    for name in (TITLES.get(metric, metric), "latency", "size", "memory", "MACs"):
        result.add_column(name, justify="right", no_wrap=True)

    def add(what: str, row: dict[str, Any]) -> None:
        memory = row["memory_bytes"]
        result.add_row(
            what,
            *((escape(row["network"].replace("_", "-")),) if published else ()),
            f"{row['width_multiplier']:g}",
            str(row["resolution"]),
            *(() if published else (escape(row["precision"]), _runtime(row))),
            f"{row[key]:.1%}" if published else f"{row[key]:.2%}",
            f"{row['latency_ms']:.3g} ms",
            f"{row['file_bytes'] / 1e3:,.0f} kB",
            "" if memory is None else f"{memory / 1e6:,.1f} MB",
            millions(row["macs"]),
        )

    best = found.get("stage")
    add(f"chosen, {STAGES[best]}" if best else "chosen", found["winner"])
    for stage in found.get("stages", []):
        if stage["stage"] != best:
            add(STAGES[stage["stage"]], stage)
    for number, row in enumerate(found["runners_up"]):
        add("" if number else "next best", row)
    for step in found["steps"]:
        limit = LIMITS[step["limit"]]
        add(f"{limit.tell(step['needs'])} buys", step["row"])
    console().print(result)


def _runtime(row: dict[str, Any]) -> str:
    # A grid from elsewhere may name anything, which a table would take for its own markup.
    return escape(RUNTIMES.get(row["runtime"], row["runtime"]))


def _threads(row: dict[str, Any]) -> str:
    return f"{row['threads']} thread{'' if row['threads'] == 1 else 's'}"


def _where(found: dict[str, Any], published: bool) -> None:
    winner, threads = found["winner"], _threads(found["winner"])
    runtime = RUNTIMES.get(winner["runtime"], winner["runtime"])
    if published:
        print(
            f"accuracy: ImageNet, as published ({found['source']}); latency: of a float32 file for "
            f"{runtime} with random weights on {found['processor']}, {threads}"
        )
        print(
            f"next    mobilenets train photos/ --net {winner['network'].replace('_', '-')} "
            f"--alpha {winner['width_multiplier']:g} --size {winner['resolution']}"
        )
        return
    print(f"{metric_of(found)}; latency of one image, {threads}{', by ' + found['device'] if found['device'] else ''}")
    out = Path(found["out"])
    print(f"model   {out / 'model.keras'}\nfile    {found['file']}\nreport  {out / 'report.html'}")


def metric_of(found: dict[str, Any]) -> str:
    """What the metric was measured on."""
    return f"{TITLES.get(found['metric'], found['metric'])}: of the file on {found['images']:,} images"
