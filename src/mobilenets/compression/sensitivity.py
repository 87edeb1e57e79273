"""Which operations integers hurt: each alone in integers, all the others in float."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from mobilenets.compression.scheme import INTEGER, Ranges, integer_form, make_scheme
from mobilenets.compression.simulate import Run, moves
from mobilenets.evaluation import formats
from mobilenets.evaluation.drawing import ACCENT, DPI, PALE, nothing, save, style
from mobilenets.evaluation.segmentation import counts, mean_iou
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.operations import Graph, Op
from mobilenets.models.tasks import classes_of, segments

DRAWN = 30  # bars; beyond, a page does not hold them


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to compute one operation in integers, and nothing else.

    Attributes:
        name: of the operation, as ``floats`` of a `Quantization` may name it.
        kind: of the operation.
        score: with it in integers, 0..1: accuracy, or a segmenter's mean intersection over union at its own size.
        change: of the score against float32, in -1..1.
        error: mean square of the change of the logits.
        sqnr: signal to noise of the logits, decibels; None where nothing changed.
    """

    name: str
    kind: str
    score: float
    change: float
    error: float
    sqnr: float | None


def sensitivity(
    model: keras.Model, batches: Iterable[tuple[np.ndarray, np.ndarray]], ranges: Ranges, weight_bits: int = 8
) -> list[dict[str, Any]]:
    """Measures every operation that integers compute: convolutions, dense layers, sums, products and means.

    An operation's inputs, weights and output are rounded as in the files, simulated. Float outputs are computed once;
    for each operation then only what depends on it. All outputs of one batch are in memory at a time: 16 images of
    224 pixels take half a gigabyte in V2.

    Args:
        model: a classifier of `mobilenets.models.classifier`, or a segmenter of `mobilenets.models.segmenter`.
        batches: of images uint8 (batch, height, width, channels) and labels (batch,) or masks (batch, height, width),
            class indices or `mobilenets.data.masks.IGNORE`; some hundred images.
        ranges: of every operation's output, of `integer_form` of the model's graph.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.

    Returns:
        The fields of a `Sensitivity` each, ready for JSON, ``score`` under its own name, ``accuracy`` or ``miou``; the
        most sensitive first, by the error of the logits.

    Raises:
        ValueError: there are no images.
    """
    graph = integer_form(graph_of(model))
    scheme = make_scheme(graph, ranges, weight_bits=weight_bits)
    plain = replace(scheme, integer=frozenset())
    alone = {
        op.name: replace(scheme, integer=frozenset({op.name}))
        for op in graph.ops
        if op.kind in INTEGER and not moves(op, scheme)
    }
    exact, changed = _Sums(model), {name: _Sums(model) for name in alone}
    for images, truth in batches:
        pixels = keras.ops.convert_to_tensor(images.astype(np.float32))
        run = Run(plain, pixels)
        wanted = _logits(run, graph.ops, graph)
        exact.add(wanted, 0.0, truth)  # against nothing at all: its error is the signal
        for name, each in alone.items():
            other = Run(each, pixels)
            other.values.update(run.values)
            changed[name].add(_logits(other, _following(graph, name), graph), wanted, truth)
    if not exact.values:
        raise ValueError("sensitivity needs images")
    rows = sorted(_rows(graph, exact, changed), key=lambda row: -row.error)
    return [{exact.name if key == "score" else key: value for key, value in asdict(row).items()} for row in rows]


class _Sums:
    """What is kept of the logits of all batches: themselves, with each operation in turn, they would be gigabytes.

    Attributes:
        name: of the score, ``accuracy`` or ``miou``.
        values: how many logits there were.
    """

    def __init__(self, model: keras.Model) -> None:
        self.name, self.values = "miou" if segments(model) else "accuracy", 0
        self._squares, self._counts = 0.0, np.zeros((3, classes_of(model)), np.int64)

    def add(self, logits: np.ndarray, wanted: np.ndarray | float, truth: np.ndarray) -> None:
        """Adds a batch: its logits, what they should be, and the class of each image or pixel."""
        self._squares += float(np.square(logits - wanted, dtype=np.float64).sum())
        self.values += logits.size
        if truth.shape[1:] != logits.shape[1:-1]:
            logits = keras.ops.image.resize(logits, truth.shape[1:], "bilinear", data_format="channels_last")
        found = keras.ops.convert_to_numpy(logits).argmax(axis=-1)
        self._counts += counts(truth, found, self._counts.shape[1])

    @property
    def error(self) -> float:
        """Mean square of the logits' difference from what they should be."""
        return self._squares / self.values

    @property
    def score(self) -> float:
        """0..1."""
        true, _, right = self._counts
        if self.name == "miou":
            return mean_iou(*self._counts) or 0.0  # None where every pixel is ignored
        return float(right.sum() / max(true.sum(), 1))


def _following(graph: Graph, name: str) -> list[Op]:
    """An operation and all that depend on it."""
    found = {name}
    for op in graph.ops:
        if found & set(op.inputs):
            found.add(op.name)
    return [op for op in graph.ops if op.name in found]


def _logits(run: Run, ops: Sequence[Op], graph: Graph) -> np.ndarray:
    """Computes operations; returns what the last one, but for a softmax, has computed."""
    for op in ops:
        if op.kind != "softmax":
            run.compute(op)
    output = graph.output
    name = output.inputs[0] if output.kind == "softmax" else output.name
    return keras.ops.convert_to_numpy(run.values[name])


def _rows(graph: Graph, exact: _Sums, changed: Mapping[str, _Sums]) -> list[Sensitivity]:
    kinds, signal = {op.name: op.kind for op in graph.ops}, exact.error
    rows = []
    for name, sums in changed.items():
        sqnr = float(10 * np.log10(signal / sums.error)) if sums.error and signal else None
        rows.append(Sensitivity(name, kinds[name], sums.score, sums.score - exact.score, sums.error, sqnr))
    return rows


def draw(rows: Sequence[Mapping[str, Any]], path: Path | str) -> Path | None:
    """Draws the signal to noise that each operation leaves, the most sensitive on top, and the points it costs.

    Args:
        rows: of `sensitivity`; the first `DRAWN` that changed anything.
        path: where the PNG goes.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    rows = [row for row in rows if row["sqnr"] is not None][:DRAWN]
    if not rows:
        return nothing(path)
    values = [row["sqnr"] for row in rows]
    with rc_context(style()):
        figure = Figure(figsize=(6.4, 0.9 + 0.19 * len(rows)), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        colours = [ACCENT if row["change"] < 0 else PALE for row in rows]
        axes.barh(range(len(rows)), values, color=colours, height=0.72)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7.5)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(min(0, *values), max(0, *values) * 1.12)
        for place, row in enumerate(rows):
            if row["change"]:
                text = f"{formats.points(row['change'])} points"
                axes.annotate(text, (max(row["sqnr"], 0), place), (3, 0), textcoords="offset points", va="center",
                              fontsize=7, color=ACCENT)  # fmt: skip
        axes.set_title("Each operation alone in integers")
        axes.set_xlabel("signal to noise of the logits, dB (a short bar is a sensitive operation)")
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        return save(figure, path)
