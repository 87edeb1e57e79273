"""Folders of images with boxes as COCO and Pascal VOC lay them out."""

import json

import pytest

from box_folders import coco, content, put, small, voc, write
from folders import noted, told
from mobilenets.data.box_folder import load_boxes


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
