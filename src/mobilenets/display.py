"""Tables on the terminal."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

KINDS = {
    "conv": "conv",
    "depthwise": "depthwise",
    "max_pool": "max pool",
    "global_pool": "average pool",
    "flatten": "flatten",
    "add": "add",
    "dense": "dense",
    "norm": "batch norm",
    "attention": "attention",
    "layer_scale": "layer scale",
    "multiply": "multiply",
    "squeeze": "average pool",
}


def console() -> Console:
    """Standard output; as wide as the terminal, or 110 columns where there is none."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=110 if piped else None, highlight=False)


def json_out(value: Any) -> None:
    """Prints one JSON document; in ASCII where it holds what standard output cannot, such as half of a character."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:  # a file's name on Linux is any bytes
        text = json.dumps(value, indent=2)
    print(text)


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; columns whose name starts with ``>`` are numbers and stand right."""
    result = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        result.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=right)
    return result


def millions(value: float) -> str:
    """``568740352`` -> ``568.74 M``."""
    return f"{value / 1e6:,.2f} M"


def mebibytes(value: float) -> str:
    """Bytes -> ``4.59 MiB``."""
    return f"{value / 2**20:,.2f} MiB"


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) that moves a bar on standard error, where that is a terminal."""
    out = Console(stderr=True)
    told = TextColumn("{task.description}", markup=False)
    columns = (told, BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function of (what is being done, done, total) that moves a bar as `progress` does."""
    out = Console(stderr=True)
    told = TextColumn("{task.description}", markup=False)
    columns = (told, BarColumn(bar_width=28), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def show_info(report: dict[str, Any]) -> None:
    """Prints `mobilenets.info.describe`'s result."""
    out = console()
    alpha, rho, size = report["width_multiplier"], report["resolution_multiplier"], report["resolution"]
    out.print(
        f"[bold]{report['title']}[/]  α = {alpha:g}, ρ = {rho:g} ({size}×{size} pixels), "
        f"{report['num_classes']} classes"
    )
    out.print(f"{report['paper']}\n")
    formulas = {entry["block"]: entry for entry in report.get("reduction", {}).get("formula", [])}
    layers = table("layer", "kind", ">kernel", ">stride", ">output", ">MACs", ">parameters", ">of standard")
    for row in report["layers"]:
        block = row["name"].rsplit("_", 1)[0]
        ratio = f"{formulas[block]['counted']:.3f}" if row["name"].endswith("pointwise") and block in formulas else ""
        kernel = f"{row['kernel']}×{row['kernel']}" if row["kind"] in ("conv", "depthwise", "max_pool") else ""
        dilation = f" (dilated {row['dilation']})" if row["dilation"] > 1 else ""
        layers.add_row(
            row["name"],
            KINDS[row["kind"]],
            kernel + dilation,
            str(row["stride"]) if kernel else "",
            "×".join(map(str, row["output"])),
            f"{row['macs']:,}" if row["macs"] else "",
            f"{row['params']:,}" if row["params"] else "",
            ratio,
        )
    out.print(layers)
    totals = table("", ">MACs", ">parameters", ">float32 weights", ">peak activations", ">MACs of this")
    for entry in [report, *report["comparison"]]:
        totals.add_row(
            entry["title"],
            millions(entry["macs"]),
            millions(entry["params"]),
            mebibytes(entry["params"] * 4),
            mebibytes(entry["peak_activation_bytes"]),
            f"{entry['macs'] / report['macs']:.1f}×",
        )
    out.print(totals)
    rule = report["rule_of_thumb"]
    out.print(
        f"Rule of thumb α²P: {millions(rule['params'])} parameters (exact: {millions(report['params'])}); "
        f"α²ρ²: {millions(rule['macs'])} MACs (exact: {millions(report['macs'])})"
    )
    if "reduction" in report:
        out.print(
            f"Separable / standard convolutions: {report['reduction']['macs_ratio']:.3f} of the MACs; per layer "
            "1/N + 1/D² (column “of standard”; N output channels, D kernel side)"
        )
    out.print("1 MAC = 1 multiply-accumulate = 2 FLOPs. Peak activations: float32, one image. 1 MiB = 2²⁰ bytes.")


def show_comparison(rows: list[dict[str, Any]]) -> None:
    """Prints `mobilenets.compare.published`'s result, the narrower and smaller forms left out."""
    out = console()
    largest: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["width_multiplier"] == 1 and row["resolution"] >= largest.get(row["network"], row)["resolution"]:
            largest[row["network"]] = row
    result = table("network", "--net", ">pixels", ">MACs", ">parameters", ">peak activations", ">top-1", "source")
    for row in largest.values():
        result.add_row(
            row["title"].removeprefix("MobileNet "),
            row["network"].replace("_", "-"),
            str(row["resolution"]),
            millions(row["macs"]),
            millions(row["params"]),
            mebibytes(row["peak_activation_bytes"]),
            f"{row['top1']:.1f} %",
            row["source"],
        )
    out.print(result)
    out.print(
        f"α = 1. Top-1: ImageNet, as published by the source; MACs, parameters and memory: counted. --json lists all "
        f"{len(rows)} published results, also those at other α and ρ."
    )


def show_data(about: dict[str, Any]) -> None:
    """Prints `mobilenets.data.sheet.describe`'s result."""
    out = console()
    counts = table("class", ">training", ">evaluation")
    for row in about["classes"]:
        counts.add_row(escape(row["class"]), f"{row['train']:,}", f"{row['val']:,}")
    counts.add_section()
    counts.add_row("all", f"{about['train']:,}", f"{about['val']:,}")
    out.print(counts)
    sizes = about["image_size"]
    rows = [
        (side, "{min} to {max} pixels, median {median}".format(**sizes[side]))
        for side in ("width", "height")
        if sizes[side]
    ]
    rows += [
        ("largest class / smallest", f"{about['imbalance']:g}"),
        ("files left out", f"{about['skipped']:,}"),
        ("contact sheet", about["contact_sheet"]),
    ]
    show_rows(rows)
    _show_problems(about)


def show_boxes(about: dict[str, Any]) -> None:
    """Prints `mobilenets.data.box_sheet.describe_boxes`'s result."""
    out = console()
    counts = table("class", ">training objects", ">evaluation objects")
    for row in about["classes"]:
        counts.add_row(escape(row["class"]), f"{row['train']:,}", f"{row['val']:,}")
    counts.add_section()
    counts.add_row("all", *(f"{about['objects'][part]:,}" for part in ("train", "val")))
    out.print(counts)
    spread, share = "{min} to {max}, median {median}", about["object_size"]["share"]
    rows = [
        ("form", about["form"]),
        ("images", f"{about['train']:,} to train on, {about['val']:,} to evaluate on"),
        ("of them without objects", "{train:,} and {val:,}".format(**about["images_without_objects"])),
        *((side, f"{spread} pixels".format(**about["image_size"][side])) for side in ("width", "height")),
    ]
    if about["objects_per_image"]:
        rows.append(("objects an image", spread.format(**about["objects_per_image"])))
    if share:
        sizes = "{p5:.0%} to {p95:.0%} of the image's side, median {p50:.0%}".format(**share)
        rows.append(("size of an object", f"{sizes} (5 % are smaller, 5 % larger)"))
    rows += [("left out", f"{about['skipped']:,}"), ("contact sheet", about["contact_sheet"])]
    show_rows(rows)
    _show_problems(about)


def show_masks(about: dict[str, Any]) -> None:
    """Prints `mobilenets.data.mask_sheet.describe_masks`'s result."""
    from mobilenets.data.mask_sheet import percentage

    counts = table("class", ">training pixels", ">in images", ">evaluation pixels", ">in images")
    for row in about["classes"]:
        cells = [(percentage(row[part]["share"]), f"{row[part]['images']:,}") for part in ("train", "val")]
        counts.add_row(escape(row["class"]), *cells[0], *cells[1])
    counts.add_section()
    counts.add_row("all", "", f"{about['train']:,}", "", f"{about['val']:,}")
    console().print(counts)
    rows = [("form", about["form"])]
    for side in ("width", "height"):
        rows.append((side, "{min} to {max} pixels, median {median}".format(**about["image_size"][side])))
    ignored = " and ".join(percentage(about["ignored"][part]) for part in ("train", "val"))
    rows += [
        ("pixels that are ignored", f"{ignored} of all"),
        ("left out", f"{about['skipped']:,}"),
        ("contact sheet", about["contact_sheet"]),
    ]
    show_rows(rows)
    _show_problems(about)


def _show_problems(about: dict[str, Any]) -> None:
    out = console()
    for problem in about["problems"]:
        out.print(f"left out: {problem['path']}: {problem['reason']}", markup=False, soft_wrap=True)
    for note in about["notes"]:
        out.print(f"note: {note}", markup=False, soft_wrap=True)


def show_rows(rows: list[tuple[str, str]], title: str | None = None) -> None:
    """Prints names and values."""
    result = table("", ">", title=title)
    result.show_header = False
    for name, value in rows:
        result.add_row(escape(name), escape(value))
    console().print(result)


def show_classes(metrics: dict[str, Any]) -> None:
    """Prints precision, recall and F1 of every class."""
    result = table("class", ">precision", ">recall", ">F1", ">images")
    for row in metrics["per_class"]:
        result.add_row(
            escape(row["class"]),
            *(f"{row[key]:.1%}" for key in ("precision", "recall", "f1")),
            f"{row['support']:,}",
        )
    console().print(result)


def show_metrics(metrics: dict[str, Any]) -> None:
    """Prints what `mobilenets.evaluation.measure` or `mobilenets.evaluation.detection.measure_boxes` found."""
    if "ap" in metrics:
        return _show_detector(metrics)
    if "miou" in metrics:
        return _show_segmenter(metrics)
    from mobilenets.evaluation import rows

    show_rows(rows(metrics))
    if len(metrics["per_class"]) <= 20:
        show_classes(metrics)


def _show_detector(metrics: dict[str, Any]) -> None:
    from mobilenets.evaluation.detection import rows_boxes

    show_rows(rows_boxes(metrics))
    if len(metrics["per_class"]) <= 20:
        result = table("class", ">AP", ">AP50", ">precision", ">recall", ">F1", ">objects")
        for row in metrics["per_class"]:
            figures = ("—" if row[key] is None else f"{row[key]:.1%}" for key in ("ap", "ap50"))
            rates = (f"{row[key]:.1%}" for key in ("precision", "recall", "f1"))
            result.add_row(escape(row["class"]), *figures, *rates, f"{row['objects']:,}")
        console().print(result)


def _show_segmenter(metrics: dict[str, Any]) -> None:
    from mobilenets.evaluation.segmentation import rows_masks

    show_rows(rows_masks(metrics))
    if len(metrics["per_class"]) <= 20:
        keys = ("iou", "precision", "recall", "f1", "boundary_f", "share")
        result = table("class", ">IoU", ">precision", ">recall", ">F1", ">boundary F", ">pixels")
        for row in metrics["per_class"]:
            result.add_row(escape(row["class"]), *("—" if row[key] is None else f"{row[key]:.1%}" for key in keys))
        console().print(result)


def show_elastic(elastic: dict[str, Any]) -> None:
    """Prints the accuracy, or AP, of every width and resolution that a network was trained for."""
    found = {(row["width_multiplier"], row["resolution"]): row for row in elastic["members"]}
    sizes = sorted({size for _, size in found})
    from mobilenets.card import score_in

    name, key = score_in(elastic["members"][0])
    result = table(f"{name} (MACs)", *(f">{size} px" for size in sizes))
    for alpha in sorted({alpha for alpha, _ in found}):
        cells = [found[alpha, size] for size in sizes]
        result.add_row(f"α {alpha:g}", *(f"{cell[key]:.1%} [dim]({millions(cell['macs'])})[/]" for cell in cells))
    console().print(result)


def warn(lines: list[str]) -> None:
    """Prints lines on standard error."""
    out = Console(stderr=True, highlight=False)
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def show_demo(found: dict[str, Any]) -> None:
    """Prints `mobilenets.demo.run`'s result."""
    from mobilenets.display_select import show_chosen

    show_chosen(found["chosen"])
    guesses = table("image", "true class", "the file says", ">probability")
    for entry in found["predictions"]:
        guesses.add_row(entry["file"], entry["truth"], entry["class"], f"{entry['probability']:.1%}")
    console().print(guesses)
    artifact, latency = found["artifact"], found["artifact"]["latency_ms"]
    show_rows(
        [
            ("accuracy, Keras model", f"{found['keras']['accuracy']:.2%}"),
            ("accuracy, LiteRT file", f"{found['file']['accuracy']:.2%}"),
            ("evaluation images", f"{found['file']['images']:,}"),
            ("size of the file", f"{artifact['bytes'] / 1e3:,.0f} kB"),
            (f"latency, {latency['threads']} threads", f"{latency['median']:.3g} ms"),
            ("report", found["report"]),
            ("took", f"{found['seconds']:.0f} s"),
        ]
    )
