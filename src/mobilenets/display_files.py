"""What the verbs that write, measure and use files print."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from mobilenets.display import console, millions, show_rows, table


def show_artifacts(run: Path, entries: list[dict[str, Any]]) -> None:
    """Prints the card's entries of exported files."""
    if len(entries) == 1:
        return _show_artifact(run, entries[0])
    from mobilenets.card import score_in

    name, score = score_in(entries[0]["metrics"])
    result = table("file", ">size", f">{name}", ">same class", ">largest difference", ">latency")
    for entry in entries:
        difference = entry["comparison"]
        result.add_row(
            escape(str(run / entry["file"])),
            f"{entry['bytes'] / 1e3:,.0f} kB",
            f"{entry['metrics'][score]:.2%}",
            f"{difference['top1_agreement']:.2%}",
            f"{difference['max_difference']:.1e}",
            f"{entry['latency_ms']['median']:.3g} ms",
        )
    console().print(result)
    first = entries[0]
    print(f"{first['comparison']['images']:,} images; latency of one call, {first['latency_ms']['threads']} threads")
    for entry in entries:
        _tell_weights_only(entry)


def _show_artifact(run: Path, entry: dict[str, Any]) -> None:
    from mobilenets.card import score_in

    name, score = score_in(entry["metrics"])
    difference, latency = entry["comparison"], entry["latency_ms"]
    largest = f"{difference['max_difference']:.1e}"
    show_rows(
        [
            ("file", str(run / entry["file"])),
            ("size", f"{entry['bytes'] / 1e3:,.0f} kB"),
            (f"{name} of the file", f"{entry['metrics'][score]:.2%}"),
            *([] if entry.get("class_map") else [("largest difference of a probability", largest)]),
            (
                "same surest class as the Keras model" if score == "ap" else "same class as the Keras model",
                f"{difference['top1_agreement']:.2%} of {'the pixels compared in ' * (score == 'miou')}"
                f"{difference['images']:,} images",
            ),
            (
                f"latency, {latency['threads']} threads",
                f"{latency['median']:.3g} ms (p95 {latency['p95']:.3g} ms)",
            ),
        ]
    )
    _tell_weights_only(entry)


def _tell_weights_only(entry: dict[str, Any]) -> None:
    if entry["precision"] == "int8" and entry.get("computed") == "float32":
        print(f"{Path(entry['file']).name}: its weights are int8; it computes in float32, which is faster here")


def show_compression(out: Path, card: dict[str, Any]) -> None:
    """Prints the files before and after `mobilenets.compress.compress`."""
    files = card["compression"]["files"]
    made = card["compression"]
    how = "" if made["int8"] == "none" else f", {made['int8']}"
    how += ", 4-bit weights" if made["weight_bits"] == 4 else ""
    from mobilenets.card import score_in

    name, score = score_in(files[0])
    result = table("", "target", "precision", f">{name}", ">size", ">latency", ">MACs", ">parameters")
    for row in files:
        result.add_row(
            row["when"],
            row["target"],
            f"{row['precision']}{'' if row['when'] == 'before' else how}",
            f"{row[score]:.2%}",
            f"{row['bytes'] / 1e3:,.0f} kB",
            f"{row['latency_ms']['median']:.3g} ms",
            millions(row["macs"]),
            millions(row["params"]),
        )
    console().print(result)
    print(f"{files[0]['images']:,} images; latency of one image, {files[0]['latency_ms']['threads']} threads, in turns")
    print(f"model   {out / 'model.keras'}\nreport  {out / 'report.html'}")


def show_sensitivity(out: Path, rows: list[dict[str, Any]], most: int = 20) -> None:
    """Prints the first rows of `mobilenets.compress_sensitivity.sensitivity_of`."""
    from mobilenets.card import score_in

    title, score = score_in(rows[0])
    result = table("operation", "kind", f">{title}", ">change", ">signal to noise")
    for row in rows[:most]:
        noise = "" if row["sqnr"] is None else f"{row['sqnr']:.1f} dB"
        result.add_row(row["name"], row["kind"], f"{row[score]:.2%}", f"{100 * row['change']:+.2f}", noise)
    console().print(result)
    if len(rows) > most:
        print(f"{len(rows) - most} less sensitive ones are in the table")
    print(f"table   {out / 'sensitivity.csv'}\npicture {out / 'sensitivity.png'}")


def show_benchmark(found: dict[str, Any]) -> None:
    """Prints `mobilenets.deployment.benchmark.benchmark`'s result."""
    rows = found["rows"]
    known = any(row["accuracy"] is not None for row in rows)
    threads, batches = ({row[key] for row in rows} for key in ("threads", "batch"))
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "file": lambda row: row["name"],
        "runtime": lambda row: row["runtime"],
        ">ms": lambda row: f"{row['median_ms']:.3g}",
        ">p95": lambda row: f"{row['p95_ms']:.3g}",
        ">of peak": lambda row: "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}",
        ">MiB": lambda row: "" if row["memory_bytes"] is None else f"{row['memory_bytes'] / 2**20:,.0f}",
        ">MB": lambda row: f"{row['file_bytes'] / 1e6:,.2f}",
    }
    if len(threads) > 1:
        columns[">threads"] = lambda row: str(row["threads"])
    if len(batches) > 1:
        columns |= {
            ">batch": lambda row: str(row["batch"]),
            ">images/s": lambda row: f"{row['images_per_second']:,.0f}",
        }
    if known:
        columns[f">{rows[0]['score']}"] = lambda row: (
            "" if row["accuracy"] is None else f"{'* ' if row['pareto'] else ''}{row['accuracy']:.1%}"
        )
    out = console()
    if out.width < 100:
        for name in (">p95", ">MiB"):
            columns.pop(name)
    result = table(*columns)
    result.columns[0].min_width = 12
    result.columns[1].no_wrap = True
    before = None
    for row in rows:
        place = [row[key] for key in ("network", "width_multiplier", "resolution", "batch", "threads")]
        if before not in (None, place):
            result.add_section()
        before = place
        result.add_row(*(escape(cell(row)) for cell in columns.values()))
    out.print(result)
    machine = found["machine"]
    best: dict[tuple[str, int], float] = {}
    for peak in found["peaks"]:
        key = (peak["precision"], peak["threads"])
        best[key] = max(best.get(key, 0), peak["gmacs_per_second"])
    peaks = ", ".join(f"{value:,.0f} GMAC/s in {precision} on {count}" for (precision, count), value in best.items())
    print(f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['flags'])})")
    call = f"a call{_always(batches, 'image')}{_always(threads, 'thread')}"
    print(
        f"ms: {call}, median of {rows[0]['rounds']} rounds' means · MiB: memory that loading and running took · "
        "MB: the file"
    )
    print(f"peak: wide 1×1 convolutions, {peaks} threads")
    if known:
        print("*: no other file with as many threads and images a call is both faster and more accurate.")
        for source in dict.fromkeys(row["accuracy_of"] for row in rows if row["accuracy_of"]):
            print(f"{rows[0]['score']}: {source}")


def _always(values: set[int], what: str) -> str:
    """What all rows have in common; nothing where they do not."""
    (value,) = values if len(values) == 1 else (0,)
    return f", {value} {what}{'' if value == 1 else 's'}" if value else ""


def show_predictions(found: dict[str, Any]) -> None:
    """Prints `mobilenets.deployment.predict.predict`'s result."""
    result = table("image", "class", ">probability")
    for entry in found["images"]:
        name = entry["file"]
        for guess in entry["classes"]:
            result.add_row(escape(name), escape(guess["class"]), f"{guess['probability']:.2%}")
            name = ""
    console().print(result)


def show_areas(found: dict[str, Any]) -> None:
    """Prints `mobilenets.deployment.segment.segment_images`'s result."""
    result = table("image", "class", ">pixels", ">share")
    for entry in found["images"]:
        name = entry["file"]
        for each in entry["classes"]:
            result.add_row(escape(name), escape(each["class"]), f"{each['pixels']:,}", f"{each['share']:.1%}")
            name = ""
    console().print(result)
    written = [entry[key] for entry in found["images"] for key in ("picture", "cut_out") if entry[key]]
    if written:
        print(f"pictures {Path(written[0]).parent}")


def show_cut_outs(found: dict[str, Any]) -> None:
    """Prints `mobilenets.deployment.segment_video.cut_out_videos`'s result."""
    result = table("video", ">frames", ">a second", "size", "cut out")
    for entry in found["videos"]:
        size = f"{entry['width']}×{entry['height']}"
        rate = f"{entry['frames_per_second']:g}"
        result.add_row(escape(entry["file"]), f"{entry['frames']:,}", rate, size, escape(entry["cut_out"]))
    console().print(result)


def show_objects(found: dict[str, Any]) -> None:
    """Prints `mobilenets.deployment.find.find_objects`'s result."""
    result = table("image", "object", ">score", ">left", ">top", ">right", ">bottom")
    for entry in found["images"]:
        name = entry["file"]
        for each in entry["objects"]:
            corners = (f"{value:.0f}" for value in each["box"])
            result.add_row(escape(name), escape(each["class"]), f"{each['score']:.0%}", *corners)
            name = ""
        if not entry["objects"]:
            result.add_row(escape(name), "[dim]none[/]", *[""] * 5)
    console().print(result)
    pictures = [entry["picture"] for entry in found["images"] if entry["picture"]]
    if pictures:
        print(f"pictures {Path(pictures[0]).parent}")
