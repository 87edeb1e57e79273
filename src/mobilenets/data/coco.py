"""Reads boxes written as COCO does: one JSON file for all the images of a part."""

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from mobilenets.data.names import counted, shown, some
from mobilenets.errors import UserError

NAME = "COCO JSON"
_LIMIT = 2 * 2**30  # bytes; COCO's own instances_train2017.json has 450 MB
_BLOCK = 2**24  # bytes that are looked through at once
_KEYS = (b'"images"', b'"annotations"', b'"categories"')
# Where images lie, seen from the JSON file's folder, from the one above and from the root. {} is the part's name.
_PLACES = ("", "{}", "images", "images/{}", "data", "JPEGImages")


def recognize(tree: Tree) -> bool:
    """Whether the folder holds such files."""
    return bool(files_of(tree))


def files_of(tree: Tree) -> list[Path]:
    """The JSON files that list images with boxes; those that COCO or Roboflow would name so go before all others."""
    files = tree.ending(".json")
    for pattern in (r"instances_.*\.json", r".*\.coco\.json"):
        if named := [path for path in files if re.fullmatch(pattern, path.name, re.IGNORECASE)]:
            return named
    return [path for path in files if _looks_right(path)]


def _looks_right(path: Path) -> bool:
    """Whether two of the three lists occur in a file, which may be large: it is not parsed for that."""
    seen: set[bytes] = set()
    tail = b""
    try:
        if not path.is_file():  # a pipe would be waited on
            return False
        with open(path, "rb") as file:
            while len(seen) < 2 and (block := file.read(_BLOCK)):
                seen.update(key for key in _KEYS if key in tail + block)
                tail = block[-max(map(len, _KEYS)) :]
    except OSError:
        return False
    return len(seen) >= 2


def read(tree: Tree, lost: Lost) -> Reading:
    """Reads the parts that are used.

    Raises:
        UserError: a file is damaged, or has no list of images, annotations or categories.
    """
    found = contents(tree, outlines=False)
    notes = found.notes
    train: list[Annotated] = []
    val: list[Annotated] = []
    places = {name: index for index, name in enumerate(found.classes)}
    for path, content in found.files.items():
        (val if path in found.measured else train).extend(_annotated(tree, path, content, places, lost))
    notes.extend(unlisted(tree, {entry.image for entry in (*train, *val)}))
    return Reading(found.classes, _merged(train), _merged(val), notes)


@dataclass(frozen=True)
class Contents:
    """The files in use.

    Attributes:
        files: The three lists of each.
        measured: Those of them whose images are set aside.
        classes: The names of the classes.
        notes: One-line warnings for the user.
    """

    files: dict[Path, dict[str, Any]]
    measured: frozenset[Path]
    classes: tuple[str, ...]
    notes: list[str]


def contents(tree: Tree, *, outlines: bool) -> Contents:
    """Reads the files of the parts that are used, with or without the ``segmentation`` of objects.

    Raises:
        UserError: a file is damaged, or has no list of images, annotations or categories.
    """
    notes: list[str] = []
    parts = {path: _part(tree, path) for path in files_of(tree)}
    learn, measure = choose_parts(parts.values(), notes)
    files = {path: _load(tree, path, outlines) for path, part in parts.items() if part in learn or part == measure}
    names: dict[str, None] = {}
    for path, content in files.items():
        if parts[path] in learn:
            names.update(dict.fromkeys(categories_of(content)[0]))
    used = {name for content in files.values() for name in _used(content)}
    pairs = [(entry.get("name"), entry.get("supercategory")) for each in files.values() for entry in each["categories"]]
    groups = {above for name, above in pairs if isinstance(above, str) and above != name}
    # Roboflow's exports begin with a category that only stands above the others.
    if only_groups := [name for name in names if name in groups and name not in used and len(names) > 1]:
        notes.append(f"no class, since it has no object and stands above others: {some(only_groups)}")
    classes = tuple(name for name in names if name not in only_groups)
    return Contents(files, frozenset(path for path in files if parts[path] not in learn), classes, notes)


def unlisted(tree: Tree, listed: set[Path]) -> list[str]:
    """A note on images that no file in use lists, in the folders where others are."""
    folders = {image.parent for image in listed}
    left = [shown(path.name) for path in tree.images.values() if path.parent in folders and path not in listed]
    if not left:
        return []
    return [f"{counted(len(left), 'image')} that no annotation file in use lists left out ({some(left)})"]


def _part(tree: Tree, path: Path) -> str:
    folders = posixpath.dirname(tree.relative(path)).split("/")
    return part_of(re.split(r"[_\-. ]+", path.stem)) or part_of(reversed(folders))


def _load(tree: Tree, path: Path, outlines: bool) -> dict[str, Any]:
    """The three lists of a file, each a list of objects."""
    data = read_file(tree, path, _LIMIT)
    try:
        content = json.loads(data, object_hook=None if outlines else _without_masks)
    except json.JSONDecodeError as error:
        raise damaged(tree, path, "JSON", f"line {error.lineno}, column {error.colno}", error.msg) from None
    except UnicodeDecodeError as error:
        raise damaged(tree, path, "JSON", f"line {data[: error.start].count(10) + 1}", error.reason) from None
    except RecursionError:
        raise damaged(tree, path, "JSON", "somewhere", "lists within lists without end") from None
    except ValueError as error:  # a number of thousands of digits
        raise damaged(tree, path, "JSON", "somewhere", error) from None
    except MemoryError:
        raise UserError(f"{tree.called(path)}: not enough memory to read it") from None
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(
                f"{tree.called(path)}: has no list of {key}; a COCO file has images, annotations, categories"
            )
    return content


def _without_masks(entry: dict) -> dict:
    # Outlines make up nine tenths of a large file, and nobody here asks for them.
    entry.pop("segmentation", None)
    return entry


def key_of(value: object) -> int | float | str | None:
    """An id that others may refer to."""
    return value if isinstance(value, int | float | str) and value == value else None  # NaN equals nothing


def categories_of(content: dict) -> tuple[tuple[str, ...], dict[int | float | str, str]]:
    """Class names in the order of their ids, and the name of each id."""
    entries = [entry for entry in content["categories"] if key_of(entry.get("id")) is not None]
    entries.sort(key=lambda entry: (isinstance(entry["id"], str), entry["id"]))
    written = [str(entry.get("name", entry["id"])) for entry in entries]
    classes, places = class_indices(written)
    return classes, {entry["id"]: classes[place] for entry, place in zip(entries, places, strict=True)}


def _used(content: dict) -> set[str]:
    names = categories_of(content)[1]
    ids = {key_of(entry.get("category_id")) for entry in content["annotations"]}
    return {names[number] for number in ids if number in names}


def _annotated(tree: Tree, path: Path, content: dict, places: dict[str, int], lost: Lost) -> list[Annotated]:
    """The images of one file that are there, with their objects."""
    origin = tree.called(path)
    names = categories_of(content)[1]
    found = images_of(tree, path, content, lost)
    objects: dict[int | float | str, list[tuple[str, int, bool, object]]] = defaultdict(list)
    for index, entry in enumerate(content["annotations"]):
        number = key_of(entry.get("image_id"))
        place = place_of(index, entry)
        if number not in found:
            lost.add("no image", origin, shown(place))
            continue
        image, listed = found[number]
        if image is None:
            continue  # told already
        category = names.get(key_of(entry.get("category_id")))
        if not entry.get("bbox"):
            lost.add("no box", origin, shown(place), name=shown(listed["file_name"]))
        elif category not in places:
            kind = "class" if category is None else "new class"
            lost.add(kind, origin, shown(place), name=shown(listed["file_name"]), why=category or "")
        else:
            objects[number].append((place, places[category], entry.get("iscrowd") in (1, True), entry["bbox"]))

    result = []
    for number, (image, entry) in found.items():
        if image is not None:
            rows = objects.get(number, [])
            boxes = _numbers([row[3] for row in rows])
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is left out later
                boxes[:, 2:] += boxes[:, :2]
            labels = np.array([row[1] for row in rows], np.int64)
            ignored = np.array([row[2] for row in rows], bool)
            result.append(Annotated(image, origin, size_of(entry), boxes, labels, ignored, [row[0] for row in rows]))
    return result


def images_of(
    tree: Tree, path: Path, content: dict, lost: Lost
) -> dict[int | float | str, tuple[Path | None, dict[str, Any]]]:
    """The images that a file lists, by their ids: where each is, None where it is missing, and its entry."""
    origin = tree.called(path)
    find = _finder(tree, path)
    found: dict[int | float | str, tuple[Path | None, dict]] = {}
    for index, entry in enumerate(content["images"]):
        name, number = entry.get("file_name"), key_of(entry.get("id"))
        if not isinstance(name, str) or not name or number is None or number in found:
            lost.add("malformed", origin, f"image {index + 1} of the list", why="no file_name, or no id of its own")
            continue
        image, kind = find(name)
        if image is None:
            lost.add(kind, shown(str(tree.typed / name)), name=shown(name), why=f"named in {origin}")
        found[number] = (image, entry)
    return found


def _finder(tree: Tree, path: Path) -> Callable[[str], tuple[Path | None, str]]:
    """A function that looks for an image: (its file or None, what is wrong)."""
    here = posixpath.dirname(tree.relative(path))
    part = re.sub(r"^(instances|annotations?|labels)[_\-]", "", re.sub(r"\.coco$", "", path.stem))
    folders = [
        key
        for base in dict.fromkeys((here, posixpath.dirname(here), ""))
        for form in _PLACES
        for word in dict.fromkeys((part, _part(tree, path)))
        if (key := tree.inside(base, form.format(word).rstrip("/") or ".")) is not None and key in tree.folders
    ]
    folders = list(dict.fromkeys(folders))

    def find(name: str) -> tuple[Path | None, str]:
        keys = [tree.inside(folder, name) for folder in folders]
        image = next((tree.images[key] for key in keys if key in tree.images), None)
        if image is None and keys[0] is None:
            return None, "strayed"
        if any(key in tree.others for key in keys) and posixpath.splitext(name)[1].lower() not in images.SUFFIXES:
            return None, "format"
        return image, "missing"

    return find


def _numbers(boxes: list) -> np.ndarray:
    """float64 ``(objects, 4)``; NaN for a box that is not four numbers."""
    result = np.full((len(boxes), 4), np.nan)
    for index, box in enumerate(boxes):
        if isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box):
            try:
                result[index] = box
            except OverflowError:
                continue
    return result


def place_of(index: int, entry: dict) -> str:
    """Where in its file an annotation stands."""
    return f"annotation {entry['id']}" if "id" in entry else f"annotation {index + 1} of the list"


def size_of(entry: dict) -> tuple[int, int] | None:
    """Width and height that an image's entry gives."""
    size = entry.get("width"), entry.get("height")
    return size if all(type(side) is int and side > 0 for side in size) else None


def _merged(entries: list[Annotated]) -> list[Annotated]:
    """An image that is listed twice has the objects of both."""
    result: dict[Path, Annotated] = {}
    for entry in entries:
        before = result.get(entry.image)
        if before is not None:
            arrays = (
                np.concatenate([getattr(each, name) for each in (before, entry)])
                for name in ("boxes", "labels", "ignored")
            )
            entry = Annotated(entry.image, entry.origin, entry.size, *arrays, [*before.places, *entry.places])
        result[entry.image] = entry
    return list(result.values())
