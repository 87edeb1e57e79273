"""The pictures of a measured grid: accuracy, AP or mIoU against latency, and maps over width and resolution.

Rows that cannot be drawn (a latency of 0, an accuracy above 1) are left out, and so is a picture of nothing.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from mobilenets.evaluation import formats
from mobilenets.evaluation.chosen import heading
from mobilenets.evaluation.drawing import DPI, INK, QUIET, nothing, save, style
from mobilenets.evaluation.report import RUNTIMES
from mobilenets.selection.table import Row, front, score, score_title

# One hue a runtime, dark enough to write with.
COLORS = {
    "litert": "#1f5fae",
    "onnxruntime": "#b8591b",
    "openvino": "#24804a",
    "tensorflow": "#a8323e",
    "keras": "#5b616a",
}
MARKERS = {"float32": "o", "float16": "s", "int8": "^"}
# None is so dark that ink could not be read on it, nor its opposite when the report turns the picture over.
SHADES = LinearSegmentedColormap.from_list("shades", ["#f6f6f5", "#cbdff5", "#8ab9ec"])
SLOWNESS = LinearSegmentedColormap.from_list("slowness", ["#fbf6ef", "#f8dcb9", "#eda76a"])
CHANGES = LinearSegmentedColormap.from_list("changes", ["#f5ad8c", "#f6f6f5", "#8ab9ec"])
MOST = 24  # widths, resolutions, runtimes; beyond, nobody could read the maps
WIDTH = 9.0  # inches of a page
LEAST_CHANGE = 0.005  # a change of half a point is coloured faintly
LEAST_SPREAD = 0.01  # accuracies within a point of another look alike
# Where a name may stand beside its file, in points; the first six are near enough to leave no doubt.
NEAREST = 6
PLACES = ((-6, 6), (6, -6), (6, 6), (-6, -6), (0, 10), (0, -10), (-12, 14), (12, -14), (14, 14), (-14, -14))

Draw = Callable[[Axes], None]


def drawable(rows: Sequence[Row]) -> list[Row]:
    """The rows whose accuracy and latency a picture can show."""
    return [row for row in rows if score(row) <= 1 and 1e-6 < row["latency_ms"] < 1e9]


def runtimes(rows: Sequence[Row]) -> list[str]:
    """The runtimes of some rows, in the usual order."""
    return _ordered({row["runtime"] for row in rows}, RUNTIMES)


def precisions(rows: Sequence[Row]) -> list[str]:
    """The precisions of some rows, in the usual order."""
    return _ordered({row["precision"] for row in rows}, MARKERS)


def draw_front(grid: dict[str, Any], path: Path | str) -> Path | None:
    """Draws accuracy against latency, and each runtime's Pareto front with its networks' names.

    Args:
        grid: what ``table.read`` returned.
        path: where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    rows = drawable(grid["rows"])
    names = runtimes(rows)
    if not rows or len(names) > MOST:
        return nothing(path)
    latencies = [row["latency_ms"] for row in rows]
    with rc_context(style()):
        figure = Figure(figsize=(WIDTH, 5.2), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        fronts = {name: front([row for row in rows if row["runtime"] == name]) for name in names}
        for name, best in fronts.items():
            _steps(axes, best, _color(name), max(latencies))
        for row in rows:
            _dot(axes, row, any(row is one for one in fronts[row["runtime"]]))
        _logarithmic(axes, min(latencies), max(latencies))
        threads = rows[0]["threads"]
        axes.set_xlabel(f"latency of one image, ms ({threads:g} thread{'s' if threads != 1 else ''})")
        axes.set_ylabel(score_title(rows))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
        axes.grid(axis="both")
        axes.margins(x=0.06, y=0.08)
        _legend(axes, names, precisions(rows))
        _names(axes, fronts, rows)
        return save(figure, path)


def draw_maps(grid: dict[str, Any], path: Path | str) -> Path | None:
    """Draws maps of width by resolution with the number in each cell.

    Above the accuracy of float32 and what every other precision changes in it, in one runtime (see ``compared``);
    then the latency in each runtime. A column is a precision. What was not measured is a dash.

    Args:
        grid: what ``table.read`` returned.
        path: where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw, or too much; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    rows = drawable(grid["rows"])
    kinds = precisions(rows)
    alphas, sizes = (sorted({row[key] for row in rows}) for key in ("width_multiplier", "resolution"))
    if not rows or max(len(alphas), len(sizes), len(runtimes(rows)), len(kinds)) > MOST:
        return nothing(path)
    panels = [_accuracies(rows, kinds, grid.get("images")), *_latencies(rows, kinds)]
    if len(kinds) == 1:  # one column would leave half the page empty
        flat = [panel for line in panels for panel in line]
        panels = [[*flat[at : at + 2], None][:2] for at in range(0, len(flat), 2)]
    columns = len(panels[0])
    wide = max(2.9, min(len(sizes) * 0.95, WIDTH / columns - 0.7), len(sizes) * 0.5)
    tall = max(len(alphas) * 0.42, 0.5)
    with rc_context(style() | {"axes.titlepad": 6}):
        inches = (columns * (wide + 0.7), len(panels) * (tall + 0.7))
        figure = Figure(figsize=inches, dpi=DPI, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)
        places = figure.subplots(len(panels), columns, squeeze=False)
        for axes, panel in zip(places.flat, [panel for line in panels for panel in line], strict=True):
            if panel is None:
                axes.set_axis_off()
                continue
            panel(axes)
            axes.set_xticks(range(len(sizes)), [f"{size:g} px" for size in sizes])
            axes.set_yticks(range(len(alphas)), [f"α {alpha:g}" for alpha in alphas])
        return save(figure, path)


def compared(rows: Sequence[Row], precision: str, base: str = "float32") -> tuple[str, dict[tuple, float]]:
    """What a precision changes in the accuracy, in the runtime where both were measured most often.

    Args:
        rows: of a grid.
        precision: to compare.
        base: to compare with.

    Returns:
        The runtime, and the change for each width and resolution; an empty name where nothing can be compared.
    """
    best: tuple[str, dict[tuple, float]] = ("", {})
    for name in runtimes(rows):
        mine = [row for row in rows if row["runtime"] == name]
        before, after = (_by_network(mine, kind, score) for kind in (base, precision))
        found = {network: after[network] - before[network] for network in after if network in before}
        if len(found) > len(best[1]):
            best = name, found
    return best


def _ordered(names: set[str], usual: Sequence[str] | dict[str, str]) -> list[str]:
    usual = list(usual)
    return sorted(names, key=lambda name: (usual.index(name) if name in usual else len(usual), name))


def _color(runtime: str) -> str:
    return COLORS.get(runtime, QUIET)


def _by_network(rows: Sequence[Row], precision: str, of: Callable[[Row], float]) -> dict[tuple, float]:
    return {(row["width_multiplier"], row["resolution"]): of(row) for row in rows if row["precision"] == precision}


def _steps(axes: Axes, best: Sequence[Row], color: str, last: float) -> None:
    """Draws the best accuracy to be had within a latency."""
    x, y = [row["latency_ms"] for row in best], [score(row) for row in best]
    axes.plot([*x, last], [*y, y[-1]], drawstyle="steps-post", color=color, linewidth=1.2, alpha=0.55, zorder=2)


def _dot(axes: Axes, row: Row, best: bool) -> None:
    """Draws a file: float32 hollow, other precisions filled; pale where another beats it."""
    color = _color(row["runtime"])
    look = {"marker": MARKERS.get(row["precision"], "D"), "linestyle": "none", "markeredgewidth": 1.3}
    fill = "white" if row["precision"] == "float32" else color
    place = ([row["latency_ms"]], [score(row)])
    look |= {"markersize": 6.5 if best else 4.5, "alpha": 1 if best else 0.35, "zorder": 4 if best else 3}
    axes.plot(*place, color=color, markerfacecolor=fill, **look)


def _logarithmic(axes: Axes, least: float, most: float) -> None:
    """Puts readable ticks on the axis of latencies."""
    axes.xaxis.set_major_locator(MaxNLocator(6) if most / least < 4 else LogLocator(subs=(1, 2, 5)))
    # The formatters that come with a logarithmic axis speak mathtext, which is switched off.
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _legend(axes: Axes, names: Sequence[str], kinds: Sequence[str]) -> None:
    entries = [
        Line2D([], [], color=_color(name), linewidth=2.5, label=formats.shorten(RUNTIMES.get(name, name), 24))
        for name in names
    ]
    for kind in kinds:
        fill = "white" if kind == "float32" else QUIET
        look = {"marker": MARKERS.get(kind, "D"), "markerfacecolor": fill, "linestyle": "none"}
        entries.append(Line2D([], [], color=QUIET, label=formats.shorten(kind, 24), **look))
    # Above the axes, where no file can be.
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": min(len(entries), 6), "borderaxespad": 0.2}
    axes.legend(handles=entries, fontsize=8.5, labelcolor=QUIET, columnspacing=1.6, handletextpad=0.5, **place)


def _names(axes: Axes, fronts: dict[str, list[Row]], rows: Sequence[Row]) -> None:
    """Names the networks on the fronts where there is room; the ends of each front come first."""
    figure = axes.figure
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # only now it is known where things are
    scale = figure.dpi / 72

    def around(row: Row, radius: float) -> Bbox:
        x, y = axes.transData.transform((row["latency_ms"], score(row)))
        return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)

    best = [row for rows_of in fronts.values() for row in rows_of]
    dots, small = [around(row, 4 * scale) for row in best], [around(row, 2.5 * scale) for row in rows]
    corners = [[around(row, 0).p0 for row in rows_of] for rows_of in fronts.values()]
    steps = [Bbox([(b[0], a[1]), (b[0] + 1, b[1])]) for line in corners for a, b in pairwise(line)]
    taken: list[Bbox] = []
    ends = [one for rows_of in fronts.values() if rows_of for one in (rows_of[-1], rows_of[0])]
    for row in {id(row): row for row in (*ends, *best)}.values():
        text = f"{row['width_multiplier']:g} · {row['resolution']:g} px"
        options = []
        for rank, (right, up) in enumerate(PLACES):
            label = axes.annotate(
                text,
                (row["latency_ms"], score(row)),
                xytext=(right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right" if right < 0 else "center",
                va="bottom" if up > 0 else "top",
                fontsize=7.5,
                color=_color(row["runtime"]),
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=5,
            )
            label.set_in_layout(False)
            box = label.get_window_extent().padded(1.5 * scale)
            inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and axes.bbox.containsy(box.y0)
            cost = 0 if inside and axes.bbox.containsy(box.y1) else 100
            cost += 100 * box.count_overlaps(taken) + 20 * box.count_overlaps(dots)
            cost += 2 * box.count_overlaps(steps) + box.count_overlaps(small) + rank / 10
            options.append((cost + (2 if rank >= NEAREST else 0), rank, label, box))
        cost, kept, _, box = min(options, key=lambda option: option[:2])
        for _, rank, label, _ in options:
            if rank != kept or cost >= 20:
                label.remove()
        if cost < 20:
            taken.append(box)


def _accuracies(rows: Sequence[Row], kinds: Sequence[str], images: Any) -> list[Draw | None]:
    """The first line of maps: accuracy in one precision, and what the others change."""
    base = kinds[0]
    # The float32 files of all runtimes compute the same, but for rounding: one map shows them all.
    values = {}
    for name in reversed(runtimes(rows)):
        values |= _by_network([row for row in rows if row["runtime"] == name], base, score)
    few, many = min(values.values()), max(values.values())
    norm = Normalize(min(few, many - LEAST_SPREAD), many)
    name = score_title(rows)
    title = (f"{heading(name)}, {formats.shorten(base, 10)}, %", "")
    line: list[Draw | None] = [_map(rows, values, title, SHADES, norm, lambda value: _rate(value, images))]
    for kind in kinds[1:]:
        name, changes = compared(rows, kind, base)
        if not changes:
            line.append(None)
            continue
        most = max(LEAST_CHANGE * 2, *(abs(value) for value in changes.values()))
        title = (f"{formats.shorten(kind, 10)} − {formats.shorten(base, 10)}, points", RUNTIMES.get(name, name))
        norm = Normalize(-most, most)
        line.append(_map(rows, changes, title, CHANGES, norm, lambda value: formats.points(value, images)))
    return line


def _latencies(rows: Sequence[Row], kinds: Sequence[str]) -> list[list[Draw | None]]:
    """A line of maps a runtime; one scale of colours for all, so that they can be compared."""
    latencies = [row["latency_ms"] for row in rows]
    norm = LogNorm(min(latencies), max(max(latencies), min(latencies) * 1.5))
    lines = []
    for name in runtimes(rows):
        mine = [row for row in rows if row["runtime"] == name]
        line: list[Draw | None] = []
        for kind in kinds:
            values = _by_network(mine, kind, itemgetter("latency_ms"))
            title = (f"Latency, {formats.shorten(kind, 10)}, ms", RUNTIMES.get(name, name))
            line.append(_map(rows, values, title, SLOWNESS, norm, _latency) if values else None)
        lines.append(line)
    return lines


def _rate(value: float, images: Any) -> str:
    return formats.percent(value, images).removesuffix("%").rstrip()


def _latency(value: float) -> str:
    return formats.milliseconds(value).removesuffix("ms").rstrip()


def _map(
    rows: Sequence[Row],
    values: dict[tuple, float],
    title: tuple[str, str],
    colors: Colormap,
    norm: Normalize,
    write: Callable[[float], str],
) -> Draw:
    """Makes what draws a map: colours, white lines between the cells, a number in each."""
    alphas, sizes = (sorted({row[key] for row in rows}) for key in ("width_multiplier", "resolution"))
    cells = np.array([[values.get((alpha, size), math.nan) for size in sizes] for alpha in alphas])

    def draw(axes: Axes) -> None:
        axes.imshow(np.ma.masked_invalid(cells), cmap=colors, norm=norm, interpolation="nearest", aspect="auto")
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(1, len(sizes)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(alphas)) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        axes.set_title(title[0], fontsize=9.5)
        axes.set_title(formats.shorten(title[1], 16), fontsize=8.5, color=QUIET, loc="right", fontweight="normal")
        for (line, column), value in np.ndenumerate(cells):
            text, color = (write(value), INK) if math.isfinite(value) else (formats.MISSING, QUIET)
            axes.text(column, line, text, ha="center", va="center", color=color, fontsize=9)

    return draw
