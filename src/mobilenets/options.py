"""Options that several verbs share, and how their words are read."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Directory = Annotated[
    Path, typer.Argument(metavar="RUN", help="A model directory, made by `train`.", show_default=False)
]
Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A model directory, or an exported file.", show_default=False)
]
Runtime = Annotated[str, typer.Option(help="auto, litert, onnxruntime, openvino, tensorflow or keras.")]
Source = Annotated[
    str,
    typer.Argument(metavar="DATA", help="A folder of images, or digits, fashion-mnist or stamps.", show_default=False),
]
Task = Annotated[str, typer.Option(help="classify, detect for images with boxes, or segment for images with masks.")]
Head = Annotated[
    str | None,
    typer.Option(
        help="Of a detector: anchor-free or ssdlite. Of a segmenter: lraspp, deeplabv3-plus, lraspp-wide or deeplabv3.",
        show_default="anchor-free, lraspp",
    ),
]
OutputStride = Annotated[
    int | None, typer.Option(help="Of a segmenter: 8, 16 or 32, of the network below.", show_default="16")
]
Fast = Annotated[bool, typer.Option("--fast", help="Of a segmenter: say one class for each 4 x 4 pixels.")]
Net = Annotated[str, typer.Option(help="Network: v1, v2, v3-large, v4-conv-small, …; `info --compare` lists them.")]
Alpha = Annotated[float, typer.Option(help="Width multiplier α > 0.")]
Rho = Annotated[float | None, typer.Option(help="Resolution multiplier ρ in (0, 1].", show_default=False)]
Size = Annotated[int | None, typer.Option(help="Pixels of the image's side, instead of --rho.", show_default=False)]
Seed = Annotated[int, typer.Option(help="Of weights, split, order and augmentation.")]
ValFraction = Annotated[float, typer.Option(help="Share of the images to evaluate on, where there is no val/.")]
Teacher = Annotated[
    str | None, typer.Option(help="Model directory to learn from besides the labels.", show_default=False)
]
Temperature = Annotated[float, typer.Option(help="Of what the teacher says.")]
Teaching = Annotated[float, typer.Option(help="The teacher's share in the loss, 0 to 1.")]
Hint = Annotated[float, typer.Option(help="Weight of the teacher's features, 0 for none.")]


def known(task: str) -> str:
    """What --task asks for.

    Raises:
        UserError: there is no such task.
    """
    if task not in (tasks := ("classify", "detect", "segment")):
        raise UserError(f"--task must be {', '.join(tasks[:-1])} or {tasks[-1]}, not {task!r}")
    return task


def head_for(task: str, name: str | None, output_stride: int | None = None, fast: bool = False) -> Any:
    """The head that the options ask for, for a task; None for a classifier.

    Raises:
        UserError: there is none of that name, or an option is of another task.
    """
    from mobilenets import architectures

    if task != "segment" and (output_stride is not None or fast):
        raise UserError("--output-stride and --fast are of a segmenter; give --task segment, too")
    if task == "segment":
        name = name or architectures.DEFAULT_SEGMENTATION_HEAD
        return architectures.segmentation_head(name, 16 if output_stride is None else output_stride, fast)
    if task == "detect":
        return architectures.head(name or architectures.DEFAULT_HEAD)
    if name:
        raise UserError("--head is of a detector or a segmenter; give --task detect or --task segment, too")
    return None


def command() -> str:
    """The command line as typed."""
    return shlex.join(["mobilenets", *sys.argv[1:]])


def words(text: str, option: str | None = None) -> list[str]:
    """Words between commas, each once.

    Args:
        text: as typed.
        option: that must name something; without one an empty text names nothing, and may.

    Raises:
        UserError: there is nothing between the commas, or in what an option must name.
    """
    found = _split(text)
    if not found and (option or text.strip()):
        # Taken for an option that nobody gave, it would ask for everything.
        raise UserError(f"{option or 'a list'} must name something between its commas, not {text!r}; or leave it out")
    return found


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def numbers(text: str, option: str, kind: type) -> list[Any]:
    """Numbers between commas."""
    try:
        found = [kind(word) for word in _split(text)]
    except ValueError:
        raise UserError(f"{option} must be numbers between commas, not {text!r}") from None
    if not found:
        raise UserError(f"{option} must name at least one number")
    return found


STEPS = {float: (0.5, 0.25, 0.125, 0.0625), int: (64, 32, 16, 8, 4, 2, 1)}  # of ranges, the largest that fits
LARGEST = 10_000  # no width or size is as large
FEWEST, MOST = 4, 9  # values that a range stands for


def several(text: str, option: str, kind: type) -> list[Any]:
    """One number, numbers between commas, or a range of four values or more, evenly spaced.

    ``0.25..1`` stands for 0.25, 0.5, 0.75 and 1, ``96..224`` for 96, 128, 160, 192 and 224.
    """
    first, dots, last = text.partition("..")
    if not dots:
        return numbers(text, option, kind)
    try:
        low, high = kind(first), kind(last)
    except ValueError:
        raise UserError(f"{option} must be numbers between commas, or two with .. between, not {text!r}") from None
    if not 0 < low < high < LARGEST:
        raise UserError(f"{option}: a range goes from a number above 0 to a larger one below {LARGEST:,}, not {text!r}")
    for step in STEPS[kind]:
        count = (high - low) / step
        if count == round(count) and FEWEST <= count + 1 <= MOST:
            return [low + step * index for index in range(round(count) + 1)]
    share = (high - low) / (FEWEST - 1)
    return sorted({kind(round(low + share * index, 3 if kind is float else None)) for index in range(FEWEST)})


def pixels(rho: float | None, size: int | None, resolution: int, default: int | None = None) -> int:
    """The image's side from --rho, a share of the paper's ``resolution``, or --size, whichever is given."""
    if rho is not None and size is not None:
        raise UserError("--rho and --size say the same in two ways; give one of them")
    if rho is not None:
        if not 0 < rho <= 1:
            raise UserError(f"--rho must be in (0, 1], not {rho:g}")
        return round(rho * resolution)
    if size is not None and not 8 <= size <= 4096:
        raise UserError(f"--size must be from 8 to 4096 pixels, not {size}")
    return size or default or resolution
