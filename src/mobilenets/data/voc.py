"""Reads boxes written as Pascal VOC does: one XML file for each image."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilenets.data import images
from mobilenets.data.box_read import (
    Annotated,
    Lost,
    Reading,
    Tree,
    choose_parts,
    class_indices,
    damaged,
    part_of,
    read_file,
)
from mobilenets.data.names import counted, natural_key, shown, some
from mobilenets.errors import UserError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAME = "Pascal VOC XML"
_LIMIT = 16 * 2**20  # bytes of an XML file or of a list of images
_HEAD = 4096  # bytes in which the first element begins
_FOLDERS = ("JPEGImages", "images", "imgs", "img")  # beside the folder of XML files
UNLISTED = "unlisted"


def recognize(tree: Tree) -> bool:
    """Whether the folder holds such files."""
    return any(_looks_right(path) for path in tree.ending(".xml"))


def _looks_right(path: Path) -> bool:
    try:
        if not path.is_file():  # a pipe would be waited on
            return False
        with open(path, "rb") as file:
            return re.search(rb"<annotation[\s>]", file.read(_HEAD)) is not None
    except OSError:
        return False


def read(tree: Tree, lost: Lost) -> Reading:
    """Reads the parts that are used: by ``ImageSets/Main/*.txt`` where there are such lists, else by folder.

    Raises:
        UserError: a file is damaged, or defusedxml is not installed.
    """
    notes: list[str] = []
    files = [path for path in tree.ending(".xml") if _looks_right(path)]
    parts = parts_of(tree, files, notes)
    learn, measure = choose_parts((part for _, part in parts if part != UNLISTED), notes)
    if unlisted := [path.name for path, part in parts if part == UNLISTED]:
        notes.append(f"not used, because in no list of ImageSets/Main: {counted(len(unlisted), 'XML file')}")
    find = _finder(tree)
    roots = {path: _parsed(tree, path) for path, part in parts if part in learn or part == measure}
    written = sorted({name for root in roots.values() for name, *_ in _objects(root) if name}, key=natural_key)
    classes, numbers = class_indices(written)
    labels = dict(zip(written, numbers, strict=True))
    result: list[list[Annotated]] = []
    for wanted in (learn, {measure}):
        found: dict[Path, Annotated] = {}
        for path, part in parts:
            if part not in wanted:
                continue
            image, reason = find(path, roots[path].findtext("filename") or "")
            if image is None:
                lost.add("missing", tree.called(path), why=reason)
                continue
            before = found.get(image)
            if before is not None:
                # A copy of an XML file still names the image of the first; the file called like the image counts.
                copy = before.origin if path.stem == image.stem else tree.called(path)
                lost.add("twice", copy, why=shown(image.name))
            if before is None or path.stem == image.stem:
                found[image] = _annotated(tree, path, image, roots[path], labels, lost)
        result.append(list(found.values()))
    train, val = result
    notes.extend(_without(tree, files, [entry.image for entry in (*train, *val)]))
    return Reading(classes, train, val, notes)


def parts_of(
    tree: Tree, files: list[Path], notes: list[str], lists_in: str = "Main", noun: str = "an XML file"
) -> list[tuple[Path, str]]:
    """Each annotation file with the part it belongs to; one that two lists of ``ImageSets`` name occurs twice."""
    lists: dict[str, dict[str, set[str]]] = {}
    for folder in tree.folders:
        if f"/{folder.lower()}".endswith(f"/imagesets/{lists_in.lower()}"):
            found = {name: _listed(tree, f"{folder}/{name}.txt") for name in ("train", "trainval", "val", "test")}
            if found["trainval"] and not found["train"]:
                found["train"] = found["trainval"] - (found["val"] or set())
            del found["trainval"]
            if any(found.values()):
                base = folder[: -len(f"imagesets/{lists_in}")].rstrip("/")
                lists[base] = {part: stems for part, stems in found.items() if stems}
    result = []
    for path in files:
        key = tree.relative(path)
        base = next((base for base in lists if not base or key.startswith(f"{base}/")), None)
        if base is None:
            result.append((path, part_of(posixpath.dirname(key).split("/"))))
            continue
        own = [part for part, stems in lists[base].items() if path.stem in stems]
        result.extend((path, part) for part in own or [UNLISTED])
    stems = {path.stem for path in files}
    wanted = {stem for parts in lists.values() for part in parts.values() for stem in part}
    if absent := sorted(wanted - stems, key=natural_key):
        notes.append(f"{counted(len(absent), 'image')} of ImageSets/{lists_in} without {noun} ({some(absent)})")
    return result


def _listed(tree: Tree, key: str) -> set[str]:
    if key not in tree.others:
        return set()
    text = read_file(tree, tree.others[key], _LIMIT).decode("utf-8-sig", "replace")
    names = (line.strip() for line in text.splitlines())
    return {posixpath.splitext(name)[0] if _is_image(name) else name for name in names if name}


def _is_image(name: str) -> bool:
    return posixpath.splitext(name)[1].lower() in images.SUFFIXES


def _finder(tree: Tree) -> Callable[[Path, str], tuple[Path | None, str]]:
    """A function that looks for the image of an XML file: (its file or None, why not)."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for key in tree.images:
        by_stem[posixpath.splitext(key)[0]].append(key)

    def find(path: Path, written: str) -> tuple[Path | None, str]:
        own = posixpath.splitext(tree.relative(path))[0]
        name = posixpath.basename(written.strip().replace("\\", "/"))
        folder, stem = posixpath.split(own)
        above = posixpath.dirname(folder)
        folders = [folder, *(posixpath.join(above, beside) for beside in _FOLDERS), above]
        steps = folder.split("/")
        for index, step in enumerate(steps):
            if step.lower() in ("annotations", "labels", "xml", "xmls"):
                for other in _FOLDERS:  # images/train for annotations/train, and images for annotations/xmls
                    folders.append("/".join((*steps[:index], other, *steps[index + 1 :])))
                    folders.append("/".join((*steps[:index], other)))
        # Its own name first: files are renamed more often than anybody edits <filename>.
        for place in folders:
            if found := by_stem.get(posixpath.join(place, stem)):
                exact = [key for key in found if key.endswith(posixpath.splitext(name)[1] or "\0")]
                return tree.images[(exact or found)[0]], ""
        for place in folders:
            key = tree.inside(place, name) if name else None
            if key in tree.images:
                return tree.images[key], ""
        return None, shown(name) or f"{shown(stem)}.jpg"

    return find


def _parsed(tree: Tree, path: Path) -> "Element":
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import ParseError, fromstring
    except ImportError:
        raise UserError(
            f"{tree.called(path)}: reading XML needs defusedxml; pip install 'mobilenets[detect]'"
        ) from None

    data = read_file(tree, path, _LIMIT)
    try:
        return fromstring(data)
    except ParseError as error:
        raise damaged(tree, path, "XML", f"line {error.position[0]}", str(error).split(":")[0]) from None
    except DefusedXmlException:
        line = data[: max(0, data.find(b"<!ENTITY"))].count(b"\n") + 1
        raise damaged(tree, path, "XML", f"line {line}", "defines entities, which are not read") from None
    except (ValueError, LookupError) as error:  # an encoding that the parser does not know
        raise damaged(tree, path, "XML", "line 1", error) from None


def _objects(root: "Element") -> list[tuple[str, bool, list[float] | None]]:
    """Name, whether it is difficult, and xmin, ymin, xmax, ymax (None: it has no box) of each object."""
    result = []
    for entry in root.iter("object"):
        box = entry.find("bndbox")
        corners = None if box is None else [_number(box.findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax")]
        difficult = (entry.findtext("difficult") or "").strip() == "1"
        result.append(((entry.findtext("name") or "").strip(), difficult, corners))
    return result


def _number(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return float("nan")


def _annotated(tree: Tree, path: Path, image: Path, root: "Element", labels: dict[str, int], lost: Lost) -> Annotated:
    origin = tree.called(path)
    rows = []
    for index, (name, difficult, corners) in enumerate(_objects(root)):
        place = f"object {index + 1}"
        if corners is None:
            lost.add("no box", origin, place)
        elif name not in labels:
            lost.add("class", origin, place, why="no name")
        else:
            rows.append((corners, labels[name], difficult, place))
    boxes = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, :2] -= 1  # VOC counts pixels from 1 and means the first and the last: these are their outer edges
    size = root.find("size")
    sides = [0, 0] if size is None else [_number(size.findtext(side)) for side in ("width", "height")]
    given = tuple(int(side) if side == side and abs(side) < 2**31 else 0 for side in sides)
    return Annotated(
        image=image,
        origin=origin,
        size=given if min(given) > 0 else None,
        boxes=boxes,
        labels=np.array([row[1] for row in rows], np.int64),
        ignored=np.array([row[2] for row in rows], bool),
        places=[row[3] for row in rows],
    )


def _without(tree: Tree, files: list[Path], used: list[Path]) -> list[str]:
    """A note on images that have no XML file, in the folders where others have one."""
    stems = {path.stem for path in files}
    folders, known = {path.parent for path in used}, set(used)
    left = [
        path.name
        for path in tree.images.values()
        if path.parent in folders and path not in known and path.stem not in stems
    ]
    if not left:
        return []
    return [f"{counted(len(left), 'image')} without an XML file left out ({some([shown(name) for name in left])})"]
