"""Reads boxes written as YOLO does: one text file for each image, and the classes in ``data.yaml`` or a list."""

import math
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from mobilenets.data.folder import VAL_NAMES
from mobilenets.data.names import counted, natural_key, shown, some
from mobilenets.errors import UserError

NAME = "YOLO text"
_TEXT_LIMIT = 16 * 2**20  # bytes
_YAML_LIMIT = 2**20
_HEAD = 2**16  # bytes that hold a first line


@dataclass(frozen=True)
class _Plan:
    """What is to be read.

    Attributes:
        origin: The file that names the classes, as the user would type it.
        names: The class of each number.
        keypoints: How many numbers follow a box in a data set of poses, or 0.
        parts: Images by part.
    """

    origin: str
    names: dict[int, str]
    keypoints: int
    parts: list[tuple[str, list[Path]]]


def recognize(tree: Tree) -> bool:
    """Whether the folder holds such files."""
    return bool(_yamls(tree)) or (_class_list(tree) is not None and any(_labels(tree, key) for key in tree.images))


def hint(tree: Tree) -> str:
    """What is missing where only the list of classes is; "" where there is nothing like it."""
    for key in tree.images:
        if (label := _labels(tree, key)) and _looks_right(tree.others[label]):
            return "there are labels as YOLO writes them: add classes.txt with one class name a line"
    return ""


def _yamls(tree: Tree) -> list[Path]:
    """The YAML files that describe a data set, the likeliest first."""
    found = []
    for path in tree.ending(".yaml", ".yml"):
        try:
            if not path.is_file():
                continue
            with open(path, "rb") as file:
                text = file.read(_YAML_LIMIT)
        except OSError:
            continue
        # Blanks of one line alone: over many empty lines, each of them would be a start to search on from.
        if re.search(rb"(?m)^(?:[ \t]*['\"]?names|['\"]?train)['\"]?[ \t]*:", text):
            found.append(path)
    return sorted(found, key=lambda path: (len(path.parts), path.stem.lower() != "data", natural_key(path.name)))


def _class_list(tree: Tree) -> Path | None:
    found = [path for path in tree.others.values() if path.name.lower() == "classes.txt" or path.suffix == ".names"]
    return min(found, key=lambda path: len(path.parts), default=None)


def read(tree: Tree, lost: Lost) -> Reading:
    """Reads the parts that are used.

    Raises:
        UserError: ``data.yaml`` is damaged or names images that are not there, or PyYAML is not installed.
    """
    notes: list[str] = []
    plan = _plan_of_yaml(tree, notes, lost) if _yamls(tree) else _plan_of_list(tree)
    learn, measure = choose_parts((part for part, _ in plan.parts), notes)
    numbers = sorted(plan.names)
    classes, indices = class_indices([plan.names[number] for number in numbers])
    labels = dict(zip(numbers, indices, strict=True))
    result = []
    bare: list[str] = []
    read_already: set[str] = set()
    for wanted in (learn, {measure}):
        found: dict[Path, Annotated] = {}
        for part, files in plan.parts:
            for image in files if part in wanted else ():
                if image in found:
                    continue
                key = _labels(tree, tree.relative(image))
                if key is None:
                    bare.append(shown(image.name))
                else:
                    read_already.add(key)
                found[image] = _annotated(tree, image, key, labels, plan, lost)
        result.append(list(found.values()))
    if bare:
        notes.append(f"{counted(len(bare), 'image')} without a text file taken as background ({some(bare)})")
    _orphans(tree, read_already, lost)
    return Reading(classes, *result, notes)


def _plan_of_yaml(tree: Tree, notes: list[str], lost: Lost) -> _Plan:
    path, *others = _yamls(tree)
    origin = tree.called(path)
    if others:
        notes.append(f"{origin} is read, not {some([tree.called(other) for other in others])}")
    content = _yaml(tree, path)
    bases = _bases(tree, path, content, notes)
    parts = []
    for part in ("train", *VAL_NAMES):
        given = content.get(part)
        values = given if isinstance(given, list) else [given] if given else []
        for value in values:
            if not isinstance(value, str):
                raise UserError(f"{origin}: {part}: is not a path")
            if (found := _images_at(tree, bases, value, lost)) is not None:
                parts.append((part, found))
                continue
            strayed = all(_inside(tree, base, value) is None for base in bases)
            where = f"{origin}: {part}: '{shown(value)}' " + (
                "lies outside the folder" if strayed else "is not in the folder"
            )
            if part == "train":
                raise UserError(f"{where}; give a path inside, relative to {path.name}")
            if part != "test":
                notes.append(f"{where}")
    if not parts:
        parts = _by_folder(tree)
    shape = content.get("kpt_shape")
    sizes = [int(side) for side in shape if _countable(side)] if isinstance(shape, list) else []
    return _Plan(origin, _names(origin, content), math.prod(sizes) if sizes else 0, parts)


def _countable(word: object) -> bool:
    return isinstance(word, str) and re.fullmatch("[0-9]{1,9}", word) is not None


def _plan_of_list(tree: Tree) -> _Plan:
    path = _class_list(tree)
    lines = read_file(tree, path, _TEXT_LIMIT).decode("utf-8-sig", "replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    return _Plan(tree.called(path), dict(enumerate(lines)), 0, _by_folder(tree))


def _by_folder(tree: Tree) -> list[tuple[str, list[Path]]]:
    """Images by the part that their folders name, from folders where at least one has a text file."""
    used = {posixpath.dirname(key) for key in tree.images if _labels(tree, key)}
    parts: dict[str, list[Path]] = {}
    for key, path in tree.images.items():
        if (folder := posixpath.dirname(key)) in used:
            parts.setdefault(part_of(folder.split("/")), []).append(path)
    return list(parts.items())


def _yaml(tree: Tree, path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise UserError(f"{tree.called(path)}: reading YAML needs PyYAML; pip install 'mobilenets[detect]'") from None

    data = read_file(tree, path, _YAML_LIMIT)
    try:
        # As safe as safe_load, and a class called "no" or "01" stays that word instead of becoming False or 1.
        content = yaml.load(data.decode("utf-8-sig"), Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise damaged(tree, path, "YAML", f"line {line}", error.problem or error.context) from None
    except UnicodeDecodeError as error:
        raise damaged(tree, path, "YAML", f"line {data[: error.start].count(10) + 1}", "not UTF-8") from None
    except yaml.reader.ReaderError as error:
        line = data.decode("utf-8-sig")[: error.position].count("\n") + 1
        raise damaged(tree, path, "YAML", f"line {line}", error.reason) from None
    except RecursionError:
        raise damaged(tree, path, "YAML", "line 1", "lists within lists without end") from None
    if not isinstance(content, dict):
        raise damaged(tree, path, "YAML", "line 1", "names no classes")
    return content


def _names(origin: str, content: dict[str, Any]) -> dict[int, str]:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{origin}: names no classes; add 'names: [first, second]'")
    # Lists within lists, each written once and named ten times, would print for ever.
    if not all(
        isinstance(name, str) and (isinstance(number, int) or _countable(number)) for number, name in names.items()
    ):
        raise UserError(f"{origin}: names: must be a list of words, or a number and a word each")
    return {int(number): name for number, name in names.items()}


def _bases(tree: Tree, path: Path, content: dict[str, Any], notes: list[str]) -> list[str]:
    """The folders that the paths of a YAML file may start from."""
    own = posixpath.dirname(tree.relative(path))
    given = content.get("path")
    if not isinstance(given, str) or not given:
        return [own]
    key = _inside(tree, own, given)
    if key in tree.folders:
        return [key, own]
    strayed = "lies outside the folder" if key is None else "is not in the folder"
    notes.append(f"{tree.called(path)}: path: '{shown(given)}' {strayed}; paths are taken from where the file lies")
    return [own]


def _inside(tree: Tree, base: str, value: str) -> str | None:
    """As ``Tree.inside``; "../" that leads out is dropped, since Roboflow writes ../train/images for train/images."""
    key = tree.inside(base, value)
    bare = re.sub(r"^(\.\.[/\\])+", "", value)
    return tree.inside(base, bare) if key is None and bare not in ("", "..", value) else key


def _images_at(tree: Tree, bases: list[str], value: str, lost: Lost) -> list[Path] | None:
    """The images in a folder or in a list of images; None where neither is there."""
    for base in bases:
        key = _inside(tree, base, value)
        if key is not None and key in tree.folders:
            return [path for name, path in tree.images.items() if not key or name.startswith(f"{key}/")]
        if key in tree.others:
            return _listed(tree, tree.others[key], [posixpath.dirname(key), *bases], lost)
    return None


def _listed(tree: Tree, path: Path, bases: list[str], lost: Lost) -> list[Path]:
    """The images that a file names, one a line."""
    found = []
    for line in read_file(tree, path, _TEXT_LIMIT).decode("utf-8-sig", "replace").splitlines():
        if name := line.strip():
            keys = [_inside(tree, base, name) for base in bases]
            key = next((key for key in keys if key in tree.images), None)
            if key is not None:
                found.append(tree.images[key])
            else:
                kind = "missing" if any(keys) else "strayed"
                lost.add(kind, shown(str(tree.typed / name)), name=shown(name), why=f"named in {tree.called(path)}")
    return found


def _labels(tree: Tree, key: str) -> str | None:
    """The text file of an image: labels/ for images/, beside it, or in labels/ beside it or its folder."""
    folder, name = posixpath.split(key)
    name = posixpath.splitext(name)[0] + ".txt"
    steps = folder.split("/")
    places = []
    for index in reversed(range(len(steps))):
        if steps[index].lower() in ("images", "jpegimages"):
            places.append("/".join((*steps[:index], "labels", *steps[index + 1 :])))
    places += [folder, posixpath.join(folder, "labels"), posixpath.join(posixpath.dirname(folder), "labels")]
    return next((key for place in places if (key := posixpath.join(place, name)) in tree.others), None)


def _lines(tree: Tree, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not empty, split at blanks, with their numbers from 1."""
    text = read_file(tree, path, _TEXT_LIMIT).decode("utf-8-sig", "replace")
    return ((number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split()))


def _line(words: list[str], keypoints: int = 0) -> tuple[int, list[float]] | None:
    """Class and left, top, right, bottom in shares of the image; None where the line is malformed.

    Six numbers are what a detector prints, the last one being its confidence: no annotation.
    """
    try:
        first, *numbers = map(float, words)
    except ValueError:
        return None
    if not math.isfinite(first) or first != int(first):
        return None
    if len(numbers) == 4 or (keypoints and len(numbers) == 4 + keypoints):
        x, y, width, height = numbers[:4]
        return int(first), [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    corners = np.array(numbers).reshape(-1, 2)  # an outline
    return int(first), [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def _annotated(tree: Tree, image: Path, key: str | None, labels: dict[int, int], plan: _Plan, lost: Lost) -> Annotated:
    path = image if key is None else tree.others[key]
    origin = tree.called(path)
    rows = []
    for number, words in () if key is None else _lines(tree, path):
        place = f"line {number}"
        parsed = _line(words, plan.keypoints)
        if parsed is None:
            lost.add("line", origin, place, why=f"{counted(len(words), 'word')}: {shown(' '.join(words)[:40])}")
        elif parsed[0] not in labels:
            lost.add("class", origin, place, why=f"{parsed[0]}, see {plan.origin}")
        else:
            rows.append((parsed[1], labels[parsed[0]], place))
    return Annotated(
        image=image,
        origin=origin,
        size=None,
        boxes=np.array([row[0] for row in rows], np.float64).reshape(-1, 4),
        labels=np.array([row[1] for row in rows], np.int64),
        ignored=np.zeros(len(rows), bool),
        places=[row[2] for row in rows],
        shares=True,
    )


def _orphans(tree: Tree, used: set[str], lost: Lost) -> None:
    """Text files that look like labels but have no image."""
    folders = {posixpath.dirname(key) for key in used}
    known = {key for name in tree.images if (key := _labels(tree, name))}
    for key, path in tree.others.items():
        alone = key.lower().endswith(".txt") and posixpath.dirname(key) in folders and key not in known
        if alone and _looks_right(path):
            lost.add("missing", tree.called(path), why=f"{shown(path.stem)}.jpg or the like")


def _looks_right(path: Path) -> bool:
    """Whether the first line of a text file is one of labels."""
    try:
        if not path.is_file():  # a pipe would be waited on
            return False
        with open(path, "rb") as file:
            text = file.read(_HEAD).decode("utf-8-sig", "replace")
    except OSError:
        return False
    lines = text.strip().splitlines()
    return bool(lines) and _line(lines[0].split()) is not None
