"""Folders of images with boxes that tests write, and what they ask of those."""

import json
import os
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np

import folders
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.boxes import BoxData

WIDTH, HEIGHT = 80, 60
CLASSES = {3: "cat", 17: "dog", 90: "night owl"}
refused = partial(folders.refused, load_boxes)


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


def yolo(root: Path, yaml: str, layout: str = "images/{}") -> Path:
    """Two images to train on and one to measure on, with a data.yaml."""
    for part, names in (("train", "ab"), ("val", "c")):
        for name in names:
            image = put(root / layout.format(part) / f"{name}.jpg")
            label = Path(str(image).replace("images", "labels")).with_suffix(".txt")
            write(label, "1 0.5 0.5 0.5 0.5\n")
    write(root / "data.yaml", yaml)
    return root
