"""``mobilenets train``: parse, call and print."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets import display, options
from mobilenets.errors import UserError
from mobilenets.options import (
    Fast,
    Head,
    Hint,
    Json,
    Net,
    OutputStride,
    Seed,
    Source,
    Task,
    Teacher,
    Teaching,
    Temperature,
    ValFraction,
)


def train(
    source: Source,
    net: Net = "v1",
    alpha: Annotated[
        str | None,
        typer.Option(help="Width multiplier α > 0; several, as 0.25,0.5 or 0.25..1.", show_default="1"),
    ] = None,
    rho: Annotated[
        str | None, typer.Option(help="Resolution multiplier ρ in (0, 1]; or several.", show_default=False)
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels of the image's side, instead of --rho; or several.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("runs/model"),
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 20,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step.", show_default="64, or 8 with boxes or masks")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="from the batch size")] = None,
    schedule: Annotated[str, typer.Option(help="How it falls: cosine or poly.")] = "cosine",
    weight_decay: Annotated[
        float | None, typer.Option(help="On kernels.", show_default="0.002 sgd, 0.05 adamw")
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(help="Norm that gradients are clipped to, 0 for never.", show_default="10 with boxes or masks"),
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Epochs of growing learning rate.", show_default="1")] = None,
    label_smoothing: Annotated[float, typer.Option(help="Share of a label spread over all classes.")] = 0.1,
    flip: Annotated[
        bool | None, typer.Option(help="Mirror images at random.", show_default="as the data allows")
    ] = None,
    crop: Annotated[str, typer.Option(help="auto, none, pad or resized.")] = "auto",
    randaugment: Annotated[int, typer.Option(help="Random operations an image (RandAugment).")] = 0,
    magnitude: Annotated[float, typer.Option(help="Their strength, 0 to 10.")] = 5.0,
    mixup: Annotated[float, typer.Option(help="MixUp's Beta parameter, 0 for none.")] = 0.0,
    mosaic: Annotated[float, typer.Option(help="Of a detector: probability of four images in one.")] = 0.0,
    dice: Annotated[float, typer.Option(help="Of a segmenter: share of Dice's loss.")] = 0.0,
    ema: Annotated[bool, typer.Option(help="Average the weights over the last part of the run.")] = False,
    class_weights: Annotated[
        bool | None,
        typer.Option(help="Let classes count alike.", show_default="where they are unbalanced; no for segmenters"),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without gain.", show_default=False)
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    # Not a Path, which would make imagenet of ./imagenet.
    weights: Annotated[str | None, typer.Option(help="Model to start from, or imagenet.", show_default=False)] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head alone.")] = False,
    cache_features: Annotated[
        bool, typer.Option("--cache-features", help="With --freeze: look at each image once.")
    ] = False,
    layer_decay: Annotated[float, typer.Option(help="Learning rate of a block against the next one's.")] = 1.0,
    teacher: Teacher = None,
    temperature: Temperature = 4.0,
    teaching: Teaching = 0.7,
    hint: Hint = 0.0,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Go the whole way to a file that fits: latency-ms=5,size-kb=500,memory-mb=20.", show_default=False
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="With --budget, to be best in: accuracy (default), precision, recall, f1; ap, ap50, f1 of detectors; "
            "miou, f1, pixel_accuracy of segmenters.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="With --budget: litert, onnxruntime or openvino.")] = "litert",
    head: Head = None,
    output_stride: OutputStride = None,
    fast: Fast = False,
    task: Task = "classify",
    seed: Seed = 0,
    val_fraction: ValFraction = 0.2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard.")] = False,
    json: Json = False,
) -> None:
    """Train a classifier on a folder of images, and evaluate it; with several widths or sizes, one for all of them.

    With --task detect, train a detector on images with boxes (COCO JSON, Pascal VOC XML, YOLO text); with --task
    segment, a segmenter on images with masks (PNG masks beside the images, Pascal VOC, COCO JSON).
    """
    from mobilenets import architectures

    table, form = architectures.network(net), options.head_for(options.known(task), head, output_stride, fast)
    images = {"classify": load, "detect": load_boxes, "segment": load_masks}[task](source, seed, val_fraction)
    _warn(images)
    fits = _budget(budget, metric, runtime)
    from mobilenets.card import usual_size

    # A segmenter's usual images are smaller than those that scenes are drawn at.
    resolution, native = usual_size(table, form), None if task == "segment" else images.native_size
    alphas, sizes = _grid(alpha, rho, size, resolution, native, fits is not None)
    for pixels in sizes:
        for width_multiplier in alphas:
            architectures.check((pixels, pixels, 3), len(images.classes), width_multiplier)
    from mobilenets.training.settings import USUAL_IMAGES, Settings

    usual = USUAL_IMAGES[task]
    settings = Settings(
        epochs=epochs,
        batch_size=usual if batch_size is None else batch_size,
        optimizer=optimizer,
        learning_rate=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(1.0, epochs) if warmup is None else warmup,
        clip_norm=clip_norm,
        schedule=schedule,
        label_smoothing=label_smoothing,
        flip=flip,
        crop=crop,
        randaugment=randaugment,
        magnitude=magnitude,
        mixup=mixup,
        mosaic=mosaic,
        dice=dice,
        ema=ema,
        class_weights=class_weights,
        patience=patience,
        precision=precision,
        freeze=freeze,
        cache_features=cache_features,
        layer_decay=layer_decay,
        temperature=temperature,
        teaching=teaching,
        hint=hint,
        seed=seed,
    )
    common = {
        "weights": weights,
        "resume": resume,
        "overwrite": overwrite,
        "quiet": json,
        "command": options.command(),
        "data_options": {"seed": seed, "val_fraction": val_fraction},
    }
    if form and teacher:
        raise UserError(f"--teacher is for classifiers; leave it out with --task {task}")
    if fits is not None:
        if teacher or tensorboard:
            raise UserError("--teacher and --tensorboard are for a training alone; leave them out with --budget")
        common["head"] = form
        return _whole_way(images, out, table, alphas, sizes, fits, settings, common, json)
    if form:
        from mobilenets.training.dense import train_dense

        card = train_dense(images, out, table, form, alphas, sizes, settings, tensorboard=tensorboard, **common)
        return _tell(card, out, json)
    from mobilenets.training.classify import train as run

    card = run(images, out, table, alphas, sizes, settings, teacher=teacher, tensorboard=tensorboard, **common)
    _tell(card, out, json)


def _tell(card: dict[str, Any], out: Path, json: bool) -> None:
    """Prints how good a trained model is."""
    if json:
        return display.json_out(card)
    display.show_metrics(card["metrics"])
    if "elastic" in card:
        display.show_elastic(card["elastic"])
    print(f"model   {out / 'model.keras'}\nreport  {out / 'report.html'}")


def _budget(text: str | None, metric: str | None, runtime: str) -> Any:
    """The budget that is asked for; None where none is."""
    if text is None:
        if (metric, runtime) != (None, "litert"):
            raise UserError("--metric and --runtime say what --budget is about; give it, too")
        return None
    from mobilenets.selection.budget import parse

    return parse(text, metric=metric, runtime=runtime)


def _grid(
    alpha: str | None, rho: str | None, size: str | None, resolution: int, native: int | None, several: bool
) -> tuple[list[float], list[int]]:
    """The widths and resolutions to train; without a word about either, those of a whole grid if ``several``."""
    if not several:
        return options.several(alpha or "1", "--alpha", float), _sizes(rho, size, resolution, native)
    from mobilenets.selection.budgeted import ALPHAS, sides

    alphas = options.several(alpha, "--alpha", float) if alpha else list(ALPHAS)
    sizes = _sizes(rho, size, resolution, native) if rho or size else sides(native or resolution)
    if len(set(alphas)) * len(set(sizes)) < 2:
        raise UserError(
            "--budget chooses among several widths or sizes; give more than one, or neither --alpha nor --size"
        )
    return alphas, sizes


def _whole_way(
    images: Any, out: Path, table: Any, alphas: Any, sizes: Any, budget: Any, settings: Any, common: Any, json: bool
) -> None:
    """Trains to a budget, and prints what came of it."""
    from mobilenets.selection.budgeted import train_to_budget

    with display.stages() as update:
        card = train_to_budget(
            images,
            out,
            table,
            alphas,
            sizes,
            budget,
            settings,
            say=None if json else lambda line: display.warn([line]),
            report=update,
            **common,
        )
    if json:
        return display.json_out(card)
    from mobilenets import display_select

    chosen = card["chosen"]
    display_select.show_choice(chosen | {"out": str(out), "file": str(out / card["artifacts"][0]["file"])})
    display.warn([f"note: {note}" for note in chosen["notes"]])


def _sizes(rho: str | None, size: str | None, resolution: int, default: int | None) -> list[int]:
    """Pixels of the image's side, of --rho or --size."""
    shares = [None] if rho is None else options.several(rho, "--rho", float)
    sides = [None] if size is None else options.several(size, "--size", int)
    return [options.pixels(share, side, resolution, default) for share in shares for side in sides]


def load(source: str, seed: int, val_fraction: float) -> Any:
    """Loads a data set; shows a bar while a folder is looked through."""
    from mobilenets.data import load as read

    with display.progress("looking at the images") as update:
        return read(source, seed=seed, val_fraction=val_fraction, progress=update)


def load_boxes(source: str, seed: int, val_fraction: float) -> Any:
    """Loads images with boxes; shows a bar while a folder is looked through."""
    from mobilenets.data.box_folder import load_boxes as read

    with display.progress("looking at the images") as update:
        return read(source, seed=seed, val_fraction=val_fraction, progress=update)


def load_masks(source: str, seed: int, val_fraction: float) -> Any:
    """Loads images with masks; shows a bar while a folder is looked through."""
    from mobilenets.data.mask_folder import load_masks as read

    with display.progress("looking at the masks and images") as update:
        return read(source, seed=seed, val_fraction=val_fraction, progress=update)


def _warn(images: Any, most: int = 20) -> None:
    """Tells what is wrong with the data but does not prevent training."""
    lines = [f"note: {note}" for note in images.notes]
    if images.problems:
        lines.append(f"warning: {len(images.problems)} files could not be read and are left out:")
        lines += [f"  {problem.path}: {problem.reason}" for problem in images.problems[:most]]
        if len(images.problems) > most:
            lines.append(
                f"  … and {len(images.problems) - most} more; `mobilenets data`, with the same --task, names them all"
            )
    display.warn(lines)
