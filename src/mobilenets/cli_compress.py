"""``mobilenets compress``: parse, call and print."""

from pathlib import Path
from typing import Annotated

import typer

from mobilenets import display, display_files, options
from mobilenets.given import refuse, refuse_others
from mobilenets.options import Directory, Hint, Json, Seed, Teacher, Teaching, Temperature


def compress(
    context: typer.Context,
    run: Directory,
    out: Annotated[Path, typer.Option(help="Directory to write.", show_default=False)],
    prune: Annotated[float | None, typer.Option(help="Share of the MACs to keep, as 0.5.", show_default="all")] = None,
    target_ms: Annotated[
        float | None, typer.Option(help="Prune until an image takes no longer, measured here.", show_default=False)
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Where --target-ms is measured.", show_default="of the first file")
    ] = None,
    criterion: Annotated[str, typer.Option(help="Which channels go: by taylor, bn or l2.")] = "taylor",
    prune_steps: Annotated[int, typer.Option(help="Times that channels are removed.")] = 3,
    prune_epochs: Annotated[int, typer.Option(help="Passes over the images after that, in all.")] = 9,
    int8: Annotated[str, typer.Option(help="qat: trained as int8 files compute; ptq: calibrated; none.")] = "qat",
    keep_float: Annotated[str | None, typer.Option(help="Layers to leave in float32.", show_default="none")] = None,
    weight_bits: Annotated[int, typer.Option(help="8, or 4: files of half the size.")] = 8,
    to: Annotated[str, typer.Option(help="Files: of litert, onnx and openvino.")] = "litert",
    epochs: Annotated[int, typer.Option(help="Passes over the images, for int8.")] = 5,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step.", show_default="64, 8 for a detector or segmenter")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="from the batch size")] = None,
    teacher: Teacher = None,
    temperature: Temperature = 4.0,
    teaching: Teaching = 0.7,
    hint: Hint = 0.0,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy, AP or mIoU that a file may lose.")] = 1.0,
    threads: Annotated[int | None, typer.Option(help="For the latency.", show_default="every core")] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only tell which layers int8 hurts: table and picture in --out.")
    ] = False,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    json: Json = False,
) -> None:
    """Remove channels, train for int8, write files; before and after are measured on files, side by side."""
    if sensitivity:
        refuse_others(context, "--sensitivity", ("run", "out", "weight_bits", "sensitivity", "json"))
        from mobilenets.compress_sensitivity import sensitivity_of

        rows = sensitivity_of(run, out, weight_bits)
        display.json_out({"rows": rows}) if json else display_files.show_sensitivity(out, rows)
        return
    if int8 != "qat":
        refuse(context, f"--int8 {int8}", ("epochs", "lr"))
    from mobilenets.card import read_card
    from mobilenets.compress import Options
    from mobilenets.compress import compress as run_it
    from mobilenets.training.settings import USUAL_IMAGES, Settings

    settings = Settings(
        epochs=epochs,
        batch_size=USUAL_IMAGES[read_card(run)["task"]] if batch_size is None else batch_size,
        learning_rate=lr,
        warmup_epochs=min(0.1, epochs),
        temperature=temperature,
        teaching=teaching,
        hint=hint,
        seed=seed,
    )
    wanted = Options(
        prune=prune,
        target_ms=target_ms,
        runtime=runtime,
        criterion=criterion,
        steps=prune_steps,
        prune_epochs=prune_epochs,
        int8=int8,
        floats=options.words(keep_float or ""),
        weight_bits=weight_bits,
        teacher=teacher,
        targets=options.words(to),
        max_drop=max_drop,
        threads=threads,
    )
    card = run_it(run, out, wanted, settings, resume=resume, overwrite=overwrite, quiet=json, command=options.command())
    display.json_out(card) if json else display_files.show_compression(out, card)
