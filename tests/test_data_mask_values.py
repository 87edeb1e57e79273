"""What the values and colours of masks mean: palettes, bits, shades, lists of classes, transparency."""

import zlib

import numpy as np
import pytest

from folders import noted
from mask_folders import HEIGHT, WIDTH, blocks, found, paint, pairs, put, refused, write
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.masks import IGNORE


def test_a_palette_is_read_by_its_values(tmp_path):
    mask = blocks(0, 1, 2, 255).astype(np.uint8)
    for index in range(2):
        put(tmp_path / "images" / f"{index}.jpg")
        paint(tmp_path / "masks" / f"{index}.png", mask, "P", [9, 9, 9, 0, 200, 0, 10, 20, 30] * 80)
    data = load_masks(tmp_path)
    assert data.classes == ("background", "class 1", "class 2")
    np.testing.assert_array_equal(found(data)["0.jpg"], mask)


def test_a_palette_that_says_something_else_than_its_values_is_told(tmp_path):
    root = tmp_path / "farm"
    for index in range(2):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", blocks(0, 1).astype(np.uint8), "P", [0, 0, 0, 192, 128, 128])
    assert noted(load_masks(root), "palette", "another order", "classes.txt")
    write(
        root / "labelmap.txt", "# label:color_rgb:parts:actions\nperson:192,128,128::\nbackground:0,0,0::\ncat:1,2,3::"
    )
    data = load_masks(root)
    assert data.classes == ("background", "person", "cat")
    np.testing.assert_array_equal(found(data)["0.jpg"], blocks(0, 1))


@pytest.mark.parametrize("kind", ["grey", "RGB", "one bit", "0/1", "blue"])
def test_two_values_are_background_and_object(tmp_path, kind):
    mask = blocks(0, 1)
    for index in range(2):
        put(tmp_path / "images" / f"{index}.jpg")
        pixels = {
            "grey": (mask * 255).astype(np.uint8),
            "RGB": np.repeat((mask * 255).astype(np.uint8)[..., None], 3, axis=2),
            "one bit": mask.astype(bool),
            "0/1": mask.astype(np.uint8),
            "blue": (mask[..., None] * (0, 0, 250)).astype(np.uint8),
        }[kind]
        paint(tmp_path / "masks" / f"{index}.png", pixels)
    data = load_masks(tmp_path)
    assert data.classes == ("background", "object")
    np.testing.assert_array_equal(found(data)["0.jpg"], mask)
    assert noted(data, "black is background", "0,0,250") == (kind == "blue")
    write(tmp_path / "classes.txt", "road")
    data = load_masks(tmp_path)
    assert data.classes == ("background", "road")
    np.testing.assert_array_equal(found(data)["0.jpg"], mask)


def test_one_bit_beside_eight(tmp_path):
    pairs(tmp_path)
    put(tmp_path / "images" / "one.jpg")
    paint(tmp_path / "masks" / "one.png", blocks(0, 1).astype(bool))
    np.testing.assert_array_equal(found(load_masks(tmp_path))["one.jpg"], blocks(0, 1))


def test_grey_of_two_and_four_bits(tmp_path):
    for bits in (2, 4):
        put(tmp_path / "images" / f"{bits}.jpg")
        path = tmp_path / "masks" / f"{bits}.png"
        path.parent.mkdir(exist_ok=True)
        # Written by hand: neither Pillow nor OpenCV writes such files.
        path.write_bytes(png(blocks(0, 1, 2), bits))
    masks = found(load_masks(tmp_path))
    for mask in masks.values():
        np.testing.assert_array_equal(mask, blocks(0, 1, 2))


def png(mask: np.ndarray, bits: int) -> bytes:
    """Grey PNG of fewer than eight bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    planes = mask[..., None] >> np.arange(bits)[::-1] & 1
    rows = np.packbits(planes.reshape(len(mask), -1).astype(np.uint8), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    head = mask.shape[1].to_bytes(4) + mask.shape[0].to_bytes(4) + bytes((bits, 0, 0, 0, 0))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_soft_edges_of_black_and_white_are_ignored_and_told(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:20, 10:30] = 255
    mask[20, 10:30] = np.arange(20, 220, 10)
    for index in range(2):
        put(tmp_path / "images" / f"{index}.jpg")
        paint(tmp_path / "masks" / f"{index}.png", mask)
    data = load_masks(tmp_path)
    assert data.classes == ("background", "object")
    np.testing.assert_array_equal(found(data)["1.jpg"], np.select([mask == 0, mask == 255], [0, 1], IGNORE))
    assert noted(data, "no class has value 20: 2 pixels of 2 masks ignored (0.png, 1.png)")
    assert noted(data, "15 more values that no class has: 30 pixels")


def test_shades_without_a_list_are_told(tmp_path):
    root = pairs(tmp_path / "farm", mask=blocks(0, 80, 160))
    data = load_masks(root)
    assert len(data.classes) == 161
    assert noted(data, "only 3 occur", "name:80,80,80")
    write(root / "classes.txt", "floor:0,0,0\nwall:80,80,80\ndoor:160,160,160")
    data = load_masks(root)
    assert data.classes == ("floor", "wall", "door")
    np.testing.assert_array_equal(found(data)["1.jpg"], blocks(0, 1, 2))


def test_values_that_are_no_class_are_ignored_and_told(tmp_path):
    root = tmp_path / "farm"
    pairs(root)
    write(root / "classes.txt", "ground\n\ntree \n")
    mask = blocks(0, 1, 7).astype(np.uint8)
    mask[0, 0] = 99
    paint(root / "masks" / "1.png", mask)
    data = load_masks(root)
    assert data.classes == ("ground", "tree")
    np.testing.assert_array_equal(found(data)["1.jpg"], np.where(mask < 2, mask, IGNORE))
    assert noted(data, "no class has value 2", f"{2 * (blocks(0, 1, 2) == 2).sum()} pixels of 2 masks", "0.png, 2.png")
    assert noted(data, "no class has value 7", f"{(mask == 7).sum()} pixels of 1 mask", "1.png")
    assert noted(data, "no class has value 99", "1 pixel of 1 mask", "1.png")
    assert noted(data, "value 2 occurs", "first line")


def test_grey_of_sixteen_bits(tmp_path):
    pairs(tmp_path)
    paint(tmp_path / "masks" / "1.png", blocks(0, 1, 300, 2).astype(np.uint16))
    data = load_masks(tmp_path)
    assert data.classes == ("background", "class 1", "class 2")
    np.testing.assert_array_equal(found(data)["1.jpg"], blocks(0, 1, 255, 2))
    assert noted(data, "no class has value 300", "1.png")


COLOURS = {"sky": (70, 130, 180), "road": (128, 64, 128), "Background": (0, 0, 0), "car": (0, 0, 142)}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("labelmap.txt", "{0}:{1},{2},{3}::"),
        ("classes.txt", "{0}: {1}, {2}, {3}"),
        ("label_colors.txt", "{1} {2} {3}\t\t{0}"),
    ],
)
def test_colours_of_a_list(tmp_path, name, line):
    root = tmp_path / "farm"
    lines = [line.format(key, *colour) for key, colour in COLOURS.items()]
    write(root / name, "# label:color_rgb:parts:actions\r\n" + "\r\n".join(lines))
    table = np.array([(0, 0, 0), (70, 130, 180), (128, 64, 128), (0, 0, 142), (70, 130, 181)], np.uint8)
    for index in range(3):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", table[blocks(0, 1, 2, 3, 4)])
    data = load_masks(root)
    assert data.classes == ("Background", "sky", "road", "car")
    for mask in found(data).values():
        np.testing.assert_array_equal(mask, np.where(blocks(0, 1, 2, 3, 4) == 4, 255, blocks(0, 1, 2, 3, 4)))
    assert noted(data, "no class has colour 70,130,181", f"{3 * (blocks(0, 1, 2, 3, 4) == 4).sum()} pixels of 3 masks")


def test_a_list_with_colours_and_masks_with_values(tmp_path):
    root = tmp_path / "farm"
    pairs(root)
    write(root / "labelmap.txt", "ground:0,0,0::\ntree:10,200,10::\nhouse:200,0,0::\n")
    data = load_masks(root)
    assert data.classes == ("ground", "tree", "house")
    np.testing.assert_array_equal(found(data)["1.jpg"], blocks(0, 1, 2))
    assert noted(data, "places of the classes", "not their colours")
    write(root / "labelmap.txt", "house:2,2,2\nvoid:0,0,0\ntree:1,1,1\n")
    data = load_masks(root)
    assert data.classes == ("house", "tree")
    np.testing.assert_array_equal(found(data)["1.jpg"], np.array([255, 1, 0])[blocks(0, 1, 2)])
    assert noted(data, "void", "ignored")


def test_colours_of_voc(tmp_path):
    root = tmp_path / "farm"
    table = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192)], np.uint8)
    for index in range(3):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", table[blocks(0, 1, 2, 3, 4)])
    data = load_masks(root)
    assert len(data.classes) == 16
    np.testing.assert_array_equal(found(data)["0.jpg"], np.array([0, 1, 2, 15, 255])[blocks(0, 1, 2, 3, 4)])
    assert noted(data, "VOC", "classes.txt")


def test_colours_that_nobody_knows_are_refused(tmp_path):
    root = tmp_path / "farm"
    table = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)
    for index in range(3):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", table[blocks(0, 1, 2)])
    refused(root, "255,0,0", "0,255,0", "classes.txt", "name:red,green,blue")


def test_transparency(tmp_path):
    root = tmp_path / "farm"
    write(root / "classes.txt", "background:0,0,0\nred:200,0,0\n")
    mask = blocks(0, 1, 2, 3)
    rgba = np.array([(90, 80, 70, 0), (200, 0, 0, 255), (200, 0, 0, 128), (0, 0, 0, 255)], np.uint8)[mask]
    for index in range(3):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", rgba)
    data = load_masks(root)
    np.testing.assert_array_equal(found(data)["0.jpg"], np.array([0, 1, 255, 0])[mask])
    assert noted(data, "no class has a half transparent colour", "3 masks")
    assert noted(data, "transparent pixels are read as black", "3 masks")
