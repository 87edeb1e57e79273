"""A budget, and which of the files that were measured it picks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mobilenets.deployment.runtimes import RUNTIMES
from mobilenets.deployment.targets import PRECISIONS
from mobilenets.errors import UserError
from mobilenets.evaluation.chosen import METRICS, MODELS, metrics_of, task_of
from mobilenets.evaluation.formats import is_number
from mobilenets.selection.table import Row

SLACK = 1.05  # times a budget that a file, measured again, may take: measuring is no more exact
RUNNERS_UP = 4


@dataclass(frozen=True)
class Limit:
    """Something that is limited.

    Attributes:
        title: what people call it.
        column: of a grid's rows.
        scale: of the column in one unit.
        unit: that the limit is told in.
    """

    title: str
    column: str
    scale: float
    unit: str

    def of(self, row: Row) -> float | None:
        """What a file takes, in the unit; None where nobody measured it."""
        value = row.get(self.column)
        return None if value is None else value / self.scale

    def tell(self, value: float) -> str:
        """A value with its unit."""
        return f"{value:,.3g} {self.unit}" if value < 1000 else f"{value:,.0f} {self.unit}"


# A kilobyte has 1,000 bytes, a megabyte a million.
LIMITS = {
    "latency_ms": Limit("latency", "latency_ms", 1, "ms"),
    "size_kb": Limit("size", "file_bytes", 1e3, "kB"),
    "memory_mb": Limit("memory", "memory_bytes", 1e6, "MB"),
}


@dataclass(frozen=True)
class Budget:
    """What a file may take at most, and what it shall be best in.

    Attributes:
        latency_ms: of one image, milliseconds; None for any, as with the others.
        size_kb: of the file with all that belongs to it, kilobytes (1,000 bytes).
        memory_mb: that loading and running it takes, megabytes (10⁶ bytes).
        metric: of `METRICS`; None for the usual one, accuracy, a detector's AP or a segmenter's mIoU.
        runtime: that it must run in; None for any.
        precision: of it; None for any.
    """

    latency_ms: float | None = None
    size_kb: float | None = None
    memory_mb: float | None = None
    metric: str | None = None
    runtime: str | None = None
    precision: str | None = None

    def __post_init__(self) -> None:
        """Raises:
        UserError: something is out of its range.
        """
        for name, value in self.limits.items():
            if not is_number(value) or value <= 0:
                raise UserError(f"--{name.replace('_', '-')} must be a number above 0, not {value}")
        known = dict.fromkeys(name for names in METRICS.values() for name in names)
        if self.metric is not None and self.metric not in known:
            raise UserError(f"--metric must be one of {', '.join(known)}, not {self.metric!r}")
        if self.runtime is not None and self.runtime not in RUNTIMES:
            raise UserError(f"--runtime must be one of {', '.join(RUNTIMES)}, not {self.runtime!r}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise UserError(f"--precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, keys of `LIMITS`."""
        return {name: getattr(self, name) for name in LIMITS if getattr(self, name) is not None}

    def value(self, row: Row) -> float:
        """What the row shall be best in, 0..1."""
        known = metrics_of(row)
        return row[known[self.metric or next(iter(known))]]

    def about(self, task: str) -> "Budget":
        """The same for files of a task, a key of `METRICS`: with the usual metric, where none is named.

        Raises:
            UserError: the metric is of another task.
        """
        known = METRICS[task]
        if self.metric not in (None, *known):
            raise UserError(f"--metric {self.metric}: of {MODELS[task]} one of {', '.join(known)} is measured")
        return replace(self, metric=self.metric or next(iter(known)))

    def keeps(self, row: Row, slack: float = 1.0) -> bool:
        """Whether a file takes no more than ``slack`` times what it may."""
        return all(share is not None and share <= slack for share in self.shares(row).values())

    def shares(self, row: Row) -> dict[str, float | None]:
        """How much of each limit a file takes; None where nobody measured it."""
        found = {}
        for name, limit in self.limits.items():
            taken = LIMITS[name].of(row)
            found[name] = None if taken is None else taken / limit
        return found


def parse(text: str, **others: Any) -> Budget:
    """Reads ``latency-ms=5,size-kb=500,memory-mb=20``.

    Raises:
        UserError: it is none.
    """
    limits: dict[str, float] = {}
    for word in filter(None, (word.strip() for word in text.split(","))):
        name, _, value = word.partition("=")
        key = name.strip().replace("-", "_")
        try:
            if key not in LIMITS or key in limits:
                raise ValueError
            limits[key] = float(value)
        except ValueError:
            known = ", ".join(f"{name.replace('_', '-')}=NUMBER" for name in LIMITS)
            raise UserError(f"--budget must be of {known}, each once, between commas; not {text!r}") from None
    if not limits:
        raise UserError("--budget must name at least one limit, as latency-ms=5,size-kb=500")
    return Budget(**limits, **others)


@dataclass(frozen=True)
class Choice:
    """What a budget picks.

    Attributes:
        budget: the budget.
        winner: the row that is best in its metric; of equal ones the faster, then the smaller.
        runners_up: the best file of each of the next networks, best first.
        shares: how much of each limit the winner takes.
        steps: for each limit, alone, the least that buys something better: ``limit``, ``needs`` (in its unit), ``row``.
        fitting: how many files keep the budget.
        considered: of how many.
    """

    budget: Budget
    winner: Row
    runners_up: list[Row]
    shares: dict[str, float | None]
    steps: list[dict[str, Any]]
    fitting: int
    considered: int


def pick(rows: Sequence[Row], budget: Budget) -> Choice:
    """Picks the best file that keeps a budget.

    Raises:
        UserError: none does; says which limit is impossible, and what comes nearest. Or its metric is of another task.
    """
    suited = [
        row for row in rows if budget.runtime in (None, row["runtime"]) and budget.precision in (None, row["precision"])
    ]
    if not suited:
        asked = " and ".join(filter(None, [budget.runtime, budget.precision]))
        known = ", ".join(sorted({f"{row['runtime']} {row['precision']}" for row in rows})) or "nothing"
        raise UserError(
            f"no file for {asked} was measured, but {known}; measure it with `mobilenets grid RUN --to … --precision …`"
        )
    budget = budget.about(task_of(suited[0]))
    fitting = sorted((row for row in suited if budget.keeps(row)), key=lambda row: _order(row, budget))
    if not fitting:
        raise UserError(_impossible(suited, budget))
    winner = fitting[0]
    others: dict[Any, Row] = {}
    for row in fitting[1:]:
        others.setdefault(network_of(row), row)
    others.pop(network_of(winner), None)
    return Choice(
        budget,
        winner,
        list(others.values())[:RUNNERS_UP],
        budget.shares(winner),
        _steps(suited, budget, winner),
        len(fitting),
        len(suited),
    )


def network_of(row: Row) -> tuple:
    """What networks differ in."""
    return (row.get("network"), row["width_multiplier"], row["resolution"])


def _order(row: Row, budget: Budget) -> tuple[float, ...]:
    return (-budget.value(row), row["latency_ms"], row["file_bytes"])


def _steps(rows: Sequence[Row], budget: Budget, winner: Row) -> list[dict[str, Any]]:
    """What a little more of each limit would buy, the others as they are."""
    found = []
    for name in budget.limits:
        relaxed = replace(budget, **{name: None})
        better = [
            row
            for row in rows
            if relaxed.keeps(row) and budget.value(row) > budget.value(winner) and LIMITS[name].of(row) is not None
        ]
        if better:
            row = min(better, key=lambda row: (LIMITS[name].of(row), -budget.value(row)))
            found.append({"limit": name, "needs": LIMITS[name].of(row), "row": row})
    return found


def _impossible(rows: Sequence[Row], budget: Budget) -> str:
    """Says what prevents a choice, and what comes nearest."""
    alone = []
    for name, most in budget.limits.items():
        limit = LIMITS[name]
        known = [row for row in rows if limit.of(row) is not None]
        if not known:
            return f"--{name.replace('_', '-')}: nobody measured the {limit.title} of these files; leave it out"
        least = min(known, key=limit.of)
        if limit.of(least) > most:
            alone.append(
                f"{limit.title} {limit.tell(most)} (the least is {limit.tell(limit.of(least))}, {named(least)})"
            )
    known = [row for row in rows if None not in budget.shares(row).values()]
    if not known:
        return "no file was measured in all that is limited; measure again with `mobilenets grid RUN --overwrite`"
    nearest = min(known, key=lambda row: max(budget.shares(row).values()))
    takes = ", ".join(f"{LIMITS[name].title} {LIMITS[name].tell(LIMITS[name].of(nearest))}" for name in budget.limits)
    why = f"impossible alone: {'; '.join(alone)}" if alone else "each limit is possible alone, but not all together"
    return f"no file fits the budget; {why}. The nearest is {named(nearest)}: {takes}"


def named(row: Mapping[str, Any]) -> str:
    """A file in a few words."""
    network = f"{row['network']} " if row.get("network") else ""
    return (
        f"{network}α {row['width_multiplier']:g}, {row['resolution']} px, {row['precision']}, "
        f"{RUNTIMES[row['runtime']].title if row['runtime'] in RUNTIMES else row['runtime']}"
    )
