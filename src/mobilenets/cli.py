"""The command line: one function a verb, each of which parses, calls and prints."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mobilenets import __version__, display, display_files, options
from mobilenets.cli_compress import compress
from mobilenets.cli_select import choose, extract, grid
from mobilenets.cli_train import load, load_boxes, load_masks, train
from mobilenets.cli_use import evaluate, predict, weights
from mobilenets.errors import UserError
from mobilenets.given import refuse_others
from mobilenets.options import (
    Alpha,
    Directory,
    Json,
    Rho,
    Seed,
    Size,
    Source,
    Task,
    ValFraction,
)

app = typer.Typer(
    name="mobilenets",
    help="From a folder of images to a small model that is measured to fit the device it runs on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mobilenets {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def info(
    context: typer.Context,
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="v1, v2, v3-large, …, vgg16, resnet50.")] = "v1",
    alpha: Alpha = 1.0,
    rho: Rho = None,
    size: Size = None,
    classes: Annotated[int, typer.Option(help="Number of classes.")] = 1000,
    output_stride: Annotated[int, typer.Option(help="8, 16 or 32.")] = 32,
    compare: Annotated[bool, typer.Option("--compare", help="All networks, with published accuracies.")] = False,
    plot: Annotated[Path | None, typer.Option(help="With --compare: draw it here.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Count a network's multiply-accumulates, parameters and memory, layer by layer."""
    if plot and not compare:
        raise UserError("--plot draws what --compare lists; give both")
    if compare:
        refuse_others(context, "--compare", ("compare", "plot", "json"))
        return _compare(plot, json)
    from mobilenets import architectures
    from mobilenets.info import describe

    table = architectures.network(network)
    report = describe(table, alpha, options.pixels(rho, size, table.resolution), classes, output_stride)
    display.json_out(report) if json else display.show_info(report)


def _compare(picture: Path | None, json: bool) -> None:
    from mobilenets.compare import plot, published

    rows = published()
    if picture:
        plot(rows, picture)
    display.json_out(rows) if json else display.show_comparison(rows)
    if picture and not json:
        print(f"picture {picture}")


@app.command()
def data(
    source: Source,
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("contact_sheet.png"),
    task: Task = "classify",
    seed: Seed = 0,
    val_fraction: ValFraction = 0.2,
    json: Json = False,
) -> None:
    """Look at a data set: classes, counts, sizes, broken files, and a contact sheet."""
    if (look := {"detect": _boxes, "segment": _masks}.get(options.known(task))) is not None:
        return look(source, sheet, seed, val_fraction, json)
    from mobilenets.data.sheet import contact_sheet, describe

    images = load(source, seed, val_fraction)
    about = describe(images)
    contact_sheet(images, sheet)
    about["contact_sheet"] = str(sheet)
    display.json_out(about) if json else display.show_data(about)


def _boxes(source: str, sheet: Path, seed: int, val_fraction: float, json: bool) -> None:
    from mobilenets.data.box_sheet import box_sheet, describe_boxes

    images = load_boxes(source, seed, val_fraction)
    about = describe_boxes(images) | {"contact_sheet": str(sheet)}
    box_sheet(images, sheet)
    display.json_out(about) if json else display.show_boxes(about)


def _masks(source: str, sheet: Path, seed: int, val_fraction: float, json: bool) -> None:
    from mobilenets.data.mask_sheet import describe_masks, mask_sheet

    images = load_masks(source, seed, val_fraction)
    about = describe_masks(images) | {"contact_sheet": str(sheet)}
    mask_sheet(images, sheet)
    display.json_out(about) if json else display.show_masks(about)


app.command()(train)


app.command()(extract)
app.command()(grid)
app.command()(choose)


app.command()(weights)
app.command()(evaluate)


@app.command()
def export(
    run: Directory,
    to: Annotated[str, typer.Option(help="Of litert, onnx, openvino and savedmodel.")] = "litert",
    precision: Annotated[str, typer.Option(help="Of float32, float16 and int8.")] = "float32",
    batch: Annotated[
        str | None,
        typer.Option(
            help="Images a call, or dynamic.", show_default="1 for litert, openvino and detectors, else dynamic"
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels of the side.", show_default="the model's")] = None,
    input: Annotated[str, typer.Option(help="Type of the image: uint8 or float32, 0..255 either way.")] = "uint8",
    max_drop: Annotated[float, typer.Option(help="Points of accuracy that the file may lose.")] = 1.0,
    threads: Annotated[int | None, typer.Option(help="For the latency.", show_default="every core")] = None,
    calibrate: Annotated[
        str | None, typer.Option(help="Images for int8's ranges.", show_default="those trained on")
    ] = None,
    class_map: Annotated[
        bool, typer.Option("--class-map", help="Of a segmenter: give the class of each pixel, not probabilities.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the files that ship, run each of them, and refuse those that lost accuracy."""
    from mobilenets.deployment.export import export as write

    entries = write(
        run,
        options.words(to),
        options.words(precision),
        input_dtype=input,
        batch=batch,
        size=options.pixels(None, size, 0) or None,
        max_drop=max_drop,
        threads=threads,
        calibration=calibrate,
        class_map=class_map,
    )
    display.json_out({"artifacts": entries}) if json else display_files.show_artifacts(run, entries)


app.command()(compress)


app.command()(predict)


@app.command()
def benchmark(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A model directory, an exported file, or networks: v1,v2,v3-large.")
    ],
    alpha: Annotated[str, typer.Option(help="Width multipliers of networks.")] = "1",
    size: Annotated[str | None, typer.Option(help="Their pixels.", show_default="each network's own")] = None,
    to: Annotated[
        str | None,
        typer.Option(help="Kinds of files.", show_default="all there are; litert, onnx, openvino of networks"),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the files.", show_default="all there are; float32,int8 of networks")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="Run each file in all of these that take it.", show_default="in its own")
    ] = None,
    threads: Annotated[str | None, typer.Option(help="Numbers of threads.", show_default="every core")] = None,
    batch: Annotated[str, typer.Option(help="Images a call.")] = "1",
    classes: Annotated[int, typer.Option(help="Of networks.")] = 1000,
    rounds: Annotated[int, typer.Option(help="Turns of each file.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of a turn.")] = 0.4,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .json file; .csv and .png go beside it.", show_default="benchmark.json, in RUN if it is one"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure latency, memory and size of every file, in turns, beside its accuracy and this machine's peak."""
    from mobilenets.deployment.benchmark import Plan, check_out, write
    from mobilenets.deployment.benchmark import benchmark as measure

    run = Path(what)
    out = out or (run if run.is_dir() and (run / "card.json").is_file() else Path()) / "benchmark.json"
    check_out(out)
    plan = Plan(
        alphas=options.numbers(alpha, "--alpha", float),
        sizes=[options.pixels(None, pixels, 0) for pixels in options.numbers(size, "--size", int)] if size else None,
        targets=options.words(to) if to else None,
        precisions=options.words(precision) if precision else None,
        runtimes=options.words(runtime) if runtime else None,
        threads=options.numbers(threads, "--threads", int) if threads else None,
        batches=options.numbers(batch, "--batch", int),
        rounds=rounds,
        seconds=seconds,
        classes=classes,
    )
    with display.stages() as update:
        found = measure(what, plan, update)
    written = write(found, out)
    display.warn([f"left out {entry['file']} in {entry['runtime']}: {entry['reason']}" for entry in found["skipped"]])
    if json:
        display.json_out(found)
    else:
        display_files.show_benchmark(found)
        print(f"written {', '.join(map(str, written))}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory to write; replaced if it holds a model.")] = Path("runs/demo"),
    json: Json = False,
) -> None:
    """The whole way in minutes: train all widths and sizes on handwritten digits, and take the best that fits."""
    from mobilenets.demo import run

    with display.stages() as update:
        say = None if json else lambda line: display.warn([line])
        found = run(out, quiet=json, command=options.command(), say=say, report=update)
    display.json_out(found) if json else display.show_demo(found)


# What a verb that was stopped has kept.
_RESUMES = dict.fromkeys(("train", "compress"), "; go on from the last epoch with --resume") | {
    "grid": "; the same command goes on where it stopped"
}


def main() -> None:
    """Runs the command line; every mistake of the user's is one line and exit status 2."""
    _print_everything()
    try:
        # Without its standalone mode, typer hands its own exceptions over instead of drawing a box.
        status = app(standalone_mode=False)
    except UserError as error:
        sys.exit(_fail(str(error)))
    except typer.TyperException as error:
        sys.exit(_fail(f"{error.format_message()} (see mobilenets --help)"))
    except (KeyboardInterrupt, typer.Abort):
        print(f"\nmobilenets: stopped{_RESUMES.get(next(iter(sys.argv[1:]), None), '')}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)  # whoever read the output, such as `head`, has left
    except OSError as error:  # a path that may not be looked at, or is too long
        sys.exit(_fail(f"{error.filename or 'a file'}: {error.strerror or error}"))
    sys.exit(status if isinstance(status, int) else 0)


def _print_everything() -> None:
    """Lets no file's name, which may be no text at all, stop what is printed once the work is done."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str) -> int:
    print(f"mobilenets: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
