"""The picture of a predictor at work: how long each frame took, and which network ran it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mobilenets.evaluation.drawing import ACCENT, DPI, INK, PALE, QUIET, nothing, save, style
from mobilenets.selection.deadline import Frame, FrontMember

LATE = "#c0392b"
HIGHEST = 2.2  # times the deadline; what took longer is drawn there
NAMED = 14  # networks whose names have room


@dataclass(frozen=True)
class Phase:
    """Frames under one load, to be shaded.

    Attributes:
        first: index of a frame.
        end: index behind the last one.
        label: written above.
        load: how dark, 0..1.
    """

    first: int
    end: int
    label: str
    load: float


def draw_frames(
    history: Iterable[Frame],
    members: Sequence[FrontMember],
    deadline_ms: float,
    path: Path | str,
    phases: Sequence[Phase] = (),
) -> Path | None:
    """Draws the time of every frame with the deadline, and below it the network that ran the frame.

    Args:
        history: of a `mobilenets.selection.deadline.DeadlinePredictor`.
        members: its networks.
        deadline_ms: its deadline.
        path: where the PNG goes.
        phases: what loaded the machine meanwhile, where that is known.

    Returns:
        ``path``, or None when there is nothing to draw; an older picture there is removed then.

    Raises:
        UserError: ``path`` cannot be written.
    """
    frames = list(history)
    if not frames:
        return nothing(path)
    with rc_context(style()):
        # Inches; every network has a line of its own below.
        below = 0.45 + 0.19 * min(len(members), NAMED)
        figure = Figure(figsize=(9.2, 2.5 + below), dpi=DPI, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [2.1, below]})
        _times(upper, frames, deadline_ms)
        _networks(lower, frames, members)
        for axes in (upper, lower):
            axes.spines[["left", "bottom"]].set_visible(False)
            for phase in phases:
                axes.axvspan(phase.first, phase.end, color=INK, alpha=0.16 * phase.load, linewidth=0, zorder=0)
        for phase in phases:
            middle = (phase.first + phase.end) / 2
            place = {"xytext": (0, 3), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
            upper.annotate(phase.label, (middle, 1), ha="center", fontsize=8, color=QUIET, **place)
        if phases:
            upper.set_title(upper.get_title(loc="left"), pad=20)
        return save(figure, path)


def _times(axes: Axes, frames: list[Frame], deadline: float) -> None:
    index, ms = np.array([frame.index for frame in frames]), np.array([frame.ms for frame in frames])
    met = np.array([frame.met for frame in frames])
    top = HIGHEST * deadline
    beyond = ms > top
    for chosen, marker, size, colour, faint in (
        (met, "o", 1.9, ACCENT, 0.55),
        (~met & ~beyond, "o", 2.8, LATE, 1.0),
        (beyond, "^", 4.2, LATE, 1.0),
    ):
        if chosen.any():  # of no dots at all, unclipped, the layout would make a mess
            axes.plot(
                index[chosen], np.minimum(ms[chosen], 0.97 * top), marker, markersize=size, color=colour, alpha=faint,
                clip_on=False, markeredgewidth=0,
            )  # fmt: skip
    axes.axhline(deadline, color=INK, linewidth=1)
    axes.annotate(
        f"{deadline:g} ms", (1, deadline), xycoords=("axes fraction", "data"), xytext=(3, 0),
        textcoords="offset points", va="center", fontsize=8, color=INK,
    )  # fmt: skip
    axes.set_title(f"{100 * met.mean():.1f} % of {len(frames)} frames within the deadline of {deadline:g} ms")
    axes.set_ylabel("frame, ms")
    if beyond.any():
        axes.annotate(
            f"▲ beyond {top:.3g} ms", (1, 1), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points",
            va="center", fontsize=8, color=LATE,
        )  # fmt: skip
    axes.set_ylim(0, top)
    axes.grid(axis="y")
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.01)


def _networks(axes: Axes, frames: list[Frame], members: Sequence[FrontMember]) -> None:
    index, used = [frame.index for frame in frames], [frame.member for frame in frames]
    step = -(-len(members) // NAMED)
    # From the most accurate down, so that it has its name in any case.
    named = range(len(members) - 1, -1, -step)
    axes.set_yticks(
        named, [f"{members[place]}  {100 * members[place].accuracy:.1f} %" for place in named], fontsize=7.5
    )
    axes.grid(axis="y")
    axes.step(index, used, where="post", color=ACCENT, linewidth=1.3)
    axes.plot(index, used, linestyle="", marker="s", markersize=1.2, color=PALE, markeredgewidth=0, zorder=1)
    axes.set_ylim(-0.6, len(members) - 0.4)
    axes.set_xlabel("frame")
