"""``mobilenets weights``, ``evaluate`` and ``predict``: parse, call and print."""

from pathlib import Path
from typing import Annotated

import typer

from mobilenets import display, display_files, options
from mobilenets.errors import UserError
from mobilenets.options import Alpha, Json, Model, Net, Runtime, Size, Task

PORTED = {"detect": "ssdlite", "segment": "lraspp-wide"}  # heads that other programs publish weights of


def weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .pt, .safetensors, .keras or .h5 file.")],
    net: Net,
    source: Annotated[str, typer.Option("--from", help="Program that wrote it: keras, torchvision, timm or timm-tf.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory to write.")],
    alpha: Alpha = 1.0,
    size: Size = None,
    normalization: Annotated[
        str | None, typer.Option(help="imagenet or inception, if not the program's usual.", show_default=False)
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="File of class names.", show_default="ImageNet's of 1000, COCO's of 90, VOC's of 21"),
    ] = None,
    task: Task = "classify",
    head: Annotated[
        str | None, typer.Option(help="Of a detector or a segmenter.", show_default="ssdlite, lraspp-wide")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the model that --out holds.")] = False,
    json: Json = False,
) -> None:
    """Port another program's weights into a model directory."""
    from mobilenets import architectures

    table = architectures.network(net)
    form = options.head_for(options.known(task), head or PORTED.get(task))
    from mobilenets.card import usual_size

    resolution = usual_size(table, form)
    architectures.check((resolution, resolution, 3), 1, alpha)
    from mobilenets.training.ported import write_ported, write_ported_dense

    arguments = (source, alpha, options.pixels(None, size, resolution))
    common = {
        "normalization": normalization,
        "classes": classes,
        "overwrite": overwrite,
        "command": options.command(),
    }
    width = "" if alpha == 1 else f" --alpha {alpha:g}"
    if form:
        card = write_ported_dense(file, out, table, form, *arguments, **common)
        words = f"mobilenets train photos/ --task {task} --net {net} --head {form.name}{width} --weights {out}"
    else:
        card = write_ported(file, out, table, *arguments, **common)
        words = f"mobilenets train photos/ --net {net}{width} --weights {out}"
    if json:
        display.json_out(card)
    else:
        print(f"model   {out / 'model.keras'}  ({table.title}, {len(card['classes'])} classes)")
        print(f"next    mobilenets predict {out} image.jpg · {words}")


def evaluate(
    run: Model,
    data: Annotated[str | None, typer.Option(help="Other images, with the same classes.", show_default=False)] = None,
    runtime: Runtime = "auto",
    json: Json = False,
) -> None:
    """Evaluate a model or an exported file: accuracy, precision, recall, F1, confusion matrix, and the report."""
    from mobilenets.deployment.artifacts import check_entries, is_file

    if is_file(run):
        from mobilenets.deployment.evaluate import evaluate_file

        metrics = evaluate_file(run, data, None if runtime == "auto" else runtime)
    else:
        from mobilenets.card import read_card
        from mobilenets.evaluation.evaluate import evaluate_directory

        if runtime not in ("auto", "keras"):
            raise UserError(f"--runtime {runtime}: name the file to run on it, one of {run / 'export'}")
        check_entries(run, read_card(run))  # the report, which is written last, tells of them
        metrics = evaluate_directory(run, data)
    if json:
        display.json_out(metrics)
    else:
        display.show_metrics(metrics)
        if data is None and run.is_dir() and (run / "report.html").is_file():
            print(f"report  {run / 'report.html'}")


def predict(
    run: Model,
    paths: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images, or directories of images.")],
    runtime: Runtime = "auto",
    precision: Annotated[str | None, typer.Option(help="Of exported files.", show_default="any")] = None,
    top: Annotated[
        int | None, typer.Option(help="Of a classifier: classes to list for each image.", show_default="3")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of a detector: least score.", show_default="where F1 is best")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Of a detector or a segmenter: directory for pictures of it.", show_default=False),
    ] = None,
    cut_out: Annotated[
        bool,
        typer.Option(
            "--cut-out", help="Of a segmenter: write PNGs with a transparent background, also of a video's frames."
        ),
    ] = False,
    tiles: Annotated[bool, typer.Option("--tiles", help="Of a segmenter: look at large images in tiles.")] = False,
    json: Json = False,
) -> None:
    """Classify images, find objects in them, or tell what each pixel shows, whichever the model does."""
    from mobilenets.card import CLASSIFY, DETECT, SEGMENT
    from mobilenets.deployment.artifacts import task_of

    task = task_of(run)
    for option, given, of in (
        ("--top", top is not None, (CLASSIFY,)),
        ("--threshold", threshold is not None, (DETECT,)),
        ("--out", out is not None, (DETECT, SEGMENT)),
        ("--cut-out", cut_out, (SEGMENT,)),
        ("--tiles", tiles, (SEGMENT,)),
    ):
        if given and task not in of:
            raise UserError(f"{option} is for models that {' or '.join(of)}, and this one is there to {task}")
    if task == SEGMENT and _videos(paths, cut_out, tiles):
        from mobilenets.deployment.segment_video import cut_out_videos

        with display.stages() as update:
            found = cut_out_videos(run, list(paths), out, runtime, precision, update)
        return display.json_out(found) if json else display_files.show_cut_outs(found)
    if task == SEGMENT:
        from mobilenets.deployment.segment import segment_images

        found = segment_images(run, list(paths), out, runtime, precision, cut_out, tiles)
        show = display_files.show_areas
    elif task == CLASSIFY:
        from mobilenets.deployment.predict import predict as classify

        top = 3 if top is None else top
        found, show = classify(run, list(paths), runtime, top, precision), display_files.show_predictions
    else:
        from mobilenets.deployment.find import find_objects

        found, show = find_objects(run, list(paths), out, runtime, threshold, precision), display_files.show_objects
    display.warn([f"skipped {entry['file']}: {entry['reason']}" for entry in found["skipped"]])
    display.json_out(found) if json else show(found)


def _videos(paths: list[Path], cut_out: bool, tiles: bool) -> bool:
    """Whether a segmenter is asked about videos."""
    from mobilenets.deployment.segment_video import is_video

    videos = [path for path in paths if is_video(path)]
    if not videos:
        return False
    if not cut_out or tiles:
        raise UserError(f"{videos[0]}: of a video the background can be cut out; give --cut-out, and no --tiles")
    if len(videos) < len(paths):
        raise UserError(f"{videos[0]}: is a video; give videos and images one after the other")
    return True
