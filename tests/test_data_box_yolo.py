"""Folders of images with boxes as YOLO lays them out."""

import time

import pytest

from box_folders import content, put, refused, small, write, yolo
from folders import noted, told
from mobilenets.data.box_folder import load_boxes


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


@pytest.mark.parametrize("blank", ["\n", " \t", " \n"])
def test_yaml_of_blanks_takes_no_time(tmp_path, blank):
    root = yolo(tmp_path, "train: images/train\nval: images/val\nnames: [cat, no]")
    write(root / "other.yaml", blank * 2**15 + "nothing: here")
    began = time.process_time()
    assert load_boxes(root).classes == ("cat", "no")
    assert time.process_time() - began < 2


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
