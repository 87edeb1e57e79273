"""Boxes, images and annotation files that cannot be used, in all three forms."""

import os
from pathlib import Path

import pytest

from box_folders import coco, content, put, refused, small, voc, write
from folders import noted, told
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.boxes import BoxData


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
