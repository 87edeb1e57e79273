"""The picture of a benchmark: latency against accuracy, and which files no other beats in both."""

from pathlib import Path
from typing import Any

from mobilenets.files import writing

COLORS = {
    "litert": "tab:blue",
    "onnxruntime": "tab:orange",
    "openvino": "tab:green",
    "tensorflow": "tab:red",
    "keras": "0.4",
}
TITLES = {
    "litert": "LiteRT",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
}
MARKERS = {"float32": "o", "float16": "s", "int8": "^"}
NAMED = 24  # points beyond which only those on the front are named


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the rows of `mobilenets.deployment.benchmark`.

    One call's latency against accuracy where that is known, otherwise against multiply-accumulates, and otherwise one
    bar for each row. Of several numbers of threads and images a call the most threads and the fewest images are shown.

    Args:
        rows: to draw.
        path: ``.png``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    threads, batch = max(row["threads"] for row in rows), min(row["batch"] for row in rows)
    shown = [row for row in rows if (row["threads"], row["batch"]) == (threads, batch)]
    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    known = [row for row in shown if row["accuracy"] is not None]
    if known:
        _points(axes, known, [row["accuracy"] * 100 for row in known])
        sources = sorted({row["accuracy_of"] for row in known if row["accuracy_of"]})
        score = "AP" if known[0]["score"] == "AP" else "top-1 accuracy"
        axes.set_ylabel(f"{score}, %\n({'; '.join(source[:70] for source in sources[:2])})")
        _front(axes, known)
    elif all(row["macs"] for row in shown):
        _points(axes, shown, [row["macs"] / 1e6 for row in shown])
        axes.set_ylabel("multiply-accumulates, millions (accuracy is not known)")
        axes.set_yscale("log")
    else:
        _bars(axes, shown)
    calls = "one image" if batch == 1 else f"{batch} images"
    axes.set_xlabel(f"latency of a call with {calls}, ms; {threads} threads")
    axes.set_title(rows[0]["processor"], fontsize=9, color="0.4", loc="right")
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    pyplot.close(figure)


def _points(axes: Any, rows: list[dict[str, Any]], heights: list[float]) -> None:
    named: set[tuple[str, float]] = set()
    for row, height in sorted(zip(rows, heights, strict=True), key=lambda pair: pair[0]["median_ms"]):
        axes.errorbar(
            row["median_ms"],
            height,
            xerr=[[row["median_ms"] - row["least_ms"]], [row["most_ms"] - row["median_ms"]]],
            fmt=MARKERS.get(row["precision"], "D"),
            color=COLORS.get(row["runtime"], "k"),
            markersize=7,
            elinewidth=0.8,
            alpha=0.85,
        )
        name = _name(row, rows)
        if (name, height) not in named and (row["pareto"] or len(rows) <= NAMED):
            named.add((name, height))  # colours tell one runtime from another
            axes.annotate(name, (row["median_ms"], height), xytext=(5, 5), textcoords="offset points", fontsize=7.5)
    runtimes = [name for name in COLORS if any(row["runtime"] == name for row in rows)]
    for name in runtimes:
        axes.plot([], [], "o", color=COLORS[name], label=TITLES[name])
    for precision, marker in MARKERS.items():
        if any(row["precision"] == precision for row in rows):
            axes.plot([], [], marker, color="0.6", label=precision)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(alpha=0.3, which="both")
    axes.margins(x=0.12, y=0.1)
    axes.legend(fontsize=8, loc="best")


def _front(axes: Any, rows: list[dict[str, Any]]) -> None:
    front = sorted((row for row in rows if row["pareto"]), key=lambda row: row["median_ms"])
    x, y = [row["median_ms"] for row in front], [row["accuracy"] * 100 for row in front]
    axes.plot(x, y, drawstyle="steps-post", color="0.3", linewidth=1, linestyle="--", zorder=0, label="Pareto front")
    axes.legend(fontsize=8, loc="best")


def _bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    rows = sorted(rows, key=lambda row: -row["median_ms"])
    names = [f"{row['name']} · {TITLES.get(row['runtime'], row['runtime'])}" for row in rows]
    errors = [[row["median_ms"] - row["least_ms"] for row in rows], [row["most_ms"] - row["median_ms"] for row in rows]]
    colors = [COLORS.get(row["runtime"], "k") for row in rows]
    axes.barh(names, [row["median_ms"] for row in rows], xerr=errors, color=colors, alpha=0.85)
    axes.grid(alpha=0.3, axis="x")


def _name(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """What tells a point from the others, beside its colour and shape."""
    for key in ("network", "width_multiplier", "resolution"):
        if len({other[key] for other in rows}) > 1:
            return row["name"].removesuffix(f" {row['precision']}")
    return row["name"]
