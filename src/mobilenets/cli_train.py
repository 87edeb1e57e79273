"""``mobilenets train``: parse, call and print."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets import display, options
from mobilenets.options import (
    Hint,
    Json,
    Net,
    Seed,
    Source,
    Teacher,
    Teaching,
    Temperature,
    ValFraction,
)


def train(
    source: Source,
    net: Net = "v1",
    alpha: Annotated[str, typer.Option(help="Width multiplier α > 0; several, as 0.25,0.5 or 0.25..1.")] = "1",
    rho: Annotated[
        str | None, typer.Option(help="Resolution multiplier ρ in (0, 1]; or several.", show_default=False)
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Pixels of the image's side, instead of --rho; or several.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("runs/model"),
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="from the batch size")] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="On kernels.", show_default="0.002 sgd, 0.05 adamw")
    ] = None,
    warmup: Annotated[float, typer.Option(help="Epochs of growing learning rate.")] = 1.0,
    label_smoothing: Annotated[float, typer.Option(help="Share of a label spread over all classes.")] = 0.1,
    flip: Annotated[
        bool | None, typer.Option(help="Mirror images at random.", show_default="as the data allows")
    ] = None,
    crop: Annotated[str, typer.Option(help="auto, none, pad or resized.")] = "auto",
    randaugment: Annotated[int, typer.Option(help="Random operations an image (RandAugment).")] = 0,
    magnitude: Annotated[float, typer.Option(help="Their strength, 0 to 10.")] = 5.0,
    mixup: Annotated[float, typer.Option(help="MixUp's Beta parameter, 0 for none.")] = 0.0,
    ema: Annotated[bool, typer.Option(help="Average the weights over the last part of the run.")] = False,
    class_weights: Annotated[
        bool | None, typer.Option(help="Let classes count alike.", show_default="where they are unbalanced")
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
    seed: Seed = 0,
    val_fraction: ValFraction = 0.2,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard.")] = False,
    json: Json = False,
) -> None:
    """Train a classifier on a folder of images, and evaluate it; with several widths or sizes, one for all of them."""
    from mobilenets import architectures

    table = architectures.network(net)
    images = load(source, seed, val_fraction)
    _warn(images)
    alphas = options.several(alpha, "--alpha", float)
    sizes = _sizes(rho, size, table.resolution, images.native_size)
    for pixels in sizes:
        for width_multiplier in alphas:
            architectures.check((pixels, pixels, 3), len(images.classes), width_multiplier)
    from mobilenets.training.settings import Settings

    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=lr,
        weight_decay=weight_decay,
        warmup_epochs=min(warmup, epochs),
        label_smoothing=label_smoothing,
        flip=flip,
        crop=crop,
        randaugment=randaugment,
        magnitude=magnitude,
        mixup=mixup,
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
    from mobilenets.training.classify import train as run

    card = run(
        images,
        out,
        table,
        alphas,
        sizes,
        settings,
        weights=weights,
        teacher=teacher,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        quiet=json,
        command=options.command(),
        data_options={"seed": seed, "val_fraction": val_fraction},
    )
    if json:
        display.json_out(card)
    else:
        display.show_metrics(card["metrics"])
        if "elastic" in card:
            display.show_elastic(card["elastic"])
        print(f"model   {out / 'model.keras'}\nreport  {out / 'report.html'}")


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


def _warn(images: Any, most: int = 20) -> None:
    """Tells what is wrong with the data but does not prevent training."""
    lines = [f"note: {note}" for note in images.notes]
    if images.problems:
        lines.append(f"warning: {len(images.problems)} files could not be read and are left out:")
        lines += [f"  {problem.path}: {problem.reason}" for problem in images.problems[:most]]
        if len(images.problems) > most:
            lines.append(f"  … and {len(images.problems) - most} more; `mobilenets data` names them all")
    display.warn(lines)
