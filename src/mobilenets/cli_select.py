"""The verbs that pick one network out of many: ``extract``, ``grid`` and ``choose``."""

from pathlib import Path
from typing import Annotated

import typer

from mobilenets import display, options
from mobilenets.errors import UserError
from mobilenets.options import Directory, Json


def extract(
    run: Directory,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.", show_default=False)],
    alpha: Annotated[float | None, typer.Option(help="Width multiplier α.", show_default="the widest")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the side.", show_default="the largest")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    json: Json = False,
) -> None:
    """Take the network of one width and size out of one that was trained for several."""
    from mobilenets.selection.extract import extract as run_it

    card, trained = run_it(run, out, alpha, size, overwrite=overwrite, command=options.command())
    if not trained:
        display.warn(
            ["note: this width and resolution was not trained itself; train it further: mobilenets train --weights"]
        )
    if json:
        display.json_out(card)
    else:
        display.show_metrics(card["metrics"])
        print(f"model   {out / 'model.keras'}\nreport  {out / 'report.html'}")


def grid(
    run: Directory,
    alpha: Annotated[str | None, typer.Option(help="Width multipliers.", show_default="all trained")] = None,
    size: Annotated[str | None, typer.Option(help="Pixels of the side.", show_default="all trained")] = None,
    to: Annotated[
        str | None, typer.Option(help="Kinds of files.", show_default="litert, onnx, openvino as installed")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of float32, float16 and int8.")] = "float32,int8",
    threads: Annotated[int | None, typer.Option(help="For the latency.", show_default="every core")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each file.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of a turn.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="Directory to write.", show_default="RUN/grid")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Forget what was measured before.")] = False,
    json: Json = False,
) -> None:
    """Measure every width and resolution of one training as the files that would ship; goes on where it stopped."""
    from mobilenets import display_select
    from mobilenets.selection.grid import Plan
    from mobilenets.selection.grid import grid as measure
    from mobilenets.selection.grid_report import render

    plan = Plan(
        alphas=None if alpha is None else options.several(alpha, "--alpha", float),
        sizes=None if size is None else options.several(size, "--size", int),
        targets=None if to is None else options.words(to, "--to"),
        precisions=options.words(precision, "--precision"),
        threads=threads,
        rounds=rounds,
        seconds=seconds,
    )
    out = out or run / "grid"
    with display.stages() as update:
        found = measure(run, plan, out, overwrite=overwrite, report=update)
    page = render(out)
    display.warn(
        [
            f"left out α {entry['width_multiplier']:g}, {entry['resolution']} px, {entry['target']} "
            f"{entry['precision']}: {entry['reason']}"
            for entry in found["skipped"]
        ]
    )
    if json:
        display.json_out(found)
    else:
        display_select.show_grid(found)
        where = "" if out == run / "grid" else f" --grid {out}"
        print(f"table   {out / 'grid.csv'}\nreport  {page}\nnext    mobilenets choose {run}{where} --latency-ms …")


def choose(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="What `grid` has measured.", show_default=False)
    ] = None,
    latency_ms: Annotated[float | None, typer.Option(help="Of one image, at most.", show_default=False)] = None,
    size_kb: Annotated[float | None, typer.Option(help="Of the file (1 kB = 1,000 bytes).", show_default=False)] = None,
    memory_mb: Annotated[
        float | None, typer.Option(help="To load and run it (1 MB = 10⁶ bytes).", show_default=False)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="To be best in: accuracy, precision, recall or f1; of a detector ap, ap50 or f1; of a segmenter "
            "miou, f1 or pixel_accuracy.",
            show_default="accuracy, ap or miou",
        ),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="litert, onnxruntime, openvino or tensorflow.", show_default="any")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float16 or int8.", show_default="any")] = None,
    device: Annotated[
        Path | None, typer.Option(help="Table of another machine, by `benchmark --out`.", show_default=False)
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="Instead of RUN: published networks, v1,v2,v3,v4.", show_default=False)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="With --net, for the latency.", show_default="every core")] = None,
    grid: Annotated[Path | None, typer.Option(help="Directory of the grid.", show_default="RUN/grid")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory to write.", show_default="RUN/chosen, replaced")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    json: Json = False,
) -> None:
    """Pick the best file that fits a budget, measure it again, and write it; or the best published network."""
    from mobilenets import display_select
    from mobilenets.selection.budget import Budget

    budget = Budget(latency_ms, size_kb, memory_mb, metric, runtime, precision)
    if (run is None) == (net is None):
        raise UserError("choose needs either a RUN that `mobilenets grid` has measured, or --net v1,v2,v3,v4")
    if net is not None:
        if out or grid or overwrite:
            raise UserError("--out, --grid and --overwrite go with a RUN: of published networks no file is written")
        from mobilenets.selection.published import choose_published

        with display.stages() as update:
            names = options.words(net, "--net")
            found = choose_published(names, budget, threads=threads, device=device, report=update)
    else:
        if threads is not None:
            raise UserError("--threads goes with --net: a RUN is measured by `mobilenets grid --threads`")
        from mobilenets.selection.choose import choose as run_it

        with display.stages() as update:
            found = run_it(
                run,
                budget,
                out,
                grid=grid,
                device=device,
                overwrite=overwrite,
                command=options.command(),
                report=update,
            )
    display.json_out(found) if json else display_select.show_choice(found)
    if not json:
        display.warn([f"note: {note}" for note in found["notes"]])
