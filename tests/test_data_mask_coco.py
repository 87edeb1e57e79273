"""Masks from COCO's outlines and run lengths, compared with pycocotools."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import path as outline
from PIL import Image

from mobilenets.data.mask_folder import load_masks
from mobilenets.data.masks import IGNORE, MaskData
from mobilenets.data.outlines import filled, unpacked
from mobilenets.errors import UserError

WIDTH, HEIGHT = 60, 40
CLASSES = {3: "cat", 17: "dog", 90: "night owl"}


def square(left: float, top: float, width: float, height: float) -> list[float]:
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def coco(root: Path, shapes: list[tuple], names: str = "a.png b.png", **more: object) -> Path:
    """A folder with a COCO file; a shape is (image, category, segmentation[, further entries])."""
    root.mkdir(parents=True, exist_ok=True)
    listed = []
    for index, name in enumerate(names.split()):
        pixels = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)
        listed.append({"id": index, "file_name": name, "width": WIDTH, "height": HEIGHT})
    annotations = [
        {"id": 100 + index, "image_id": image, "category_id": category, "segmentation": shape} | dict(*rest)
        for index, (image, category, shape, *rest) in enumerate(shapes)
    ]
    categories = [{"id": number, "name": name} for number, name in CLASSES.items()]
    content = {"images": listed, "annotations": annotations, "categories": categories, **more}
    (root / "shapes.json").write_text(json.dumps(content))
    return root


def masks(data: MaskData) -> dict[str, np.ndarray]:
    result = {}
    for split in (data.train, data.val):
        for index, path in enumerate(split.images):
            mask = split.mask(index)
            counts = np.bincount(mask.ravel(), minlength=256)
            assert split.pixels[index].tolist() == [*counts[: len(data.classes)], counts[IGNORE]]
            result[path.name] = mask
    return result


def boxed(*rows: tuple[int, int, int, int, int]) -> np.ndarray:
    """Rectangles (class, left, top, width, height), each in front of those before."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for label, left, top, width, height in rows:
        mask[top : top + height, left : left + width] = label
    return mask


def test_outlines_become_masks(tmp_path):
    root = coco(
        tmp_path / "zoo", [(0, 17, [square(5, 5, 20, 10), square(40, 5, 3, 3)]), (1, 3, [square(0, 0, 60, 40)])]
    )
    data = load_masks(root)
    assert (data.name, data.form, data.native_size) == ("zoo", "COCO JSON", None)
    assert data.classes == ("background", "cat", "dog", "night owl")
    assert (len(data.train), len(data.val), data.problems) == (1, 1, ())
    found = masks(data)
    np.testing.assert_array_equal(found["a.png"], boxed((2, 5, 5, 20, 10), (2, 40, 5, 3, 3)))
    assert (found["b.png"] == 1).all()
    assert any("'night owl'" in note for note in data.notes)


def test_images_without_objects_are_background(tmp_path):
    data = load_masks(coco(tmp_path, [(0, 3, [square(1, 1, 5, 5)]), (1, 3, [square(1, 1, 5, 5)])], "a.png b.png c.png"))
    assert not masks(data)["c.png"].any()


def test_a_class_called_background_is_class_0(tmp_path):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "Background"}]
    shapes = [(image, 1, [square(1, 1, 5, 5)]) for image in (0, 1)]
    data = load_masks(coco(tmp_path, [*shapes, (0, 2, [square(3, 3, 2, 2)])], categories=categories))
    assert data.classes == ("Background", "cat")
    np.testing.assert_array_equal(masks(data)["a.png"], boxed((1, 1, 1, 5, 5), (0, 3, 3, 2, 2)))


@pytest.mark.parametrize("turn", [1, -1])
def test_smaller_objects_are_in_front(tmp_path, turn):
    shapes = [(0, 3, [square(0, 0, 30, 30)]), (0, 17, [square(10, 10, 30, 10)]), (0, 90, [square(12, 12, 4, 4)])]
    data = load_masks(coco(tmp_path, [*shapes[::turn], (1, 3, [square(1, 1, 4, 4)])]))
    np.testing.assert_array_equal(
        masks(data)["a.png"], boxed((1, 0, 0, 30, 30), (2, 10, 10, 30, 10), (3, 12, 12, 4, 4))
    )


def test_of_two_objects_of_one_size_the_later_is_in_front(tmp_path):
    shapes = [(0, 3, [square(0, 0, 10, 10)]), (0, 17, [square(5, 5, 10, 10)]), (1, 3, [square(1, 1, 4, 4)])]
    np.testing.assert_array_equal(
        masks(load_masks(coco(tmp_path, shapes)))["a.png"], boxed((1, 0, 0, 10, 10), (2, 5, 5, 10, 10))
    )


def packed(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths."""
    flat = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"counts": counts, "size": list(mask.shape)}


def test_crowds_are_ignored_behind_objects(tmp_path):
    crowd = boxed((1, 20, 10, 20, 20)).astype(bool)
    shapes = [(0, 3, [square(0, 0, 50, 35)]), (0, 17, packed(crowd), {"iscrowd": 1}), (1, 3, [square(1, 1, 4, 4)])]
    shapes += [(1, 17, packed(crowd), {"iscrowd": 1})]
    found = masks(load_masks(coco(tmp_path, shapes)))
    np.testing.assert_array_equal(found["a.png"], boxed((1, 0, 0, 50, 35)))
    np.testing.assert_array_equal(found["b.png"], boxed((IGNORE, 20, 10, 20, 20), (1, 1, 1, 4, 4)))


def test_what_cannot_be_drawn_is_told_and_its_box_ignored(tmp_path):
    box = {"bbox": [30, 20, 10, 5]}
    wrong = {
        "empty": [],
        "two corners": [[1, 2, 3, 4]],
        "odd": [[1, 2, 3, 4, 5, 6, 7]],
        "words": [["a", "b", "c", "d", "e", "f"]],
        "nested": [[[1, 2], [3, 4], [5, 6]]],
        "far": [[0, 0, 1e30, 0, 0, 1e30]],
        "huge": [[0, 0, 10**400, 0, 0, 1]],
        "a word": "outline",
        "sum": {"counts": [5, 6], "size": [HEIGHT, WIDTH]},
        "negative": {"counts": [-1, 2401], "size": [HEIGHT, WIDTH]},
        "size": {"counts": [0, 2400], "size": [WIDTH, HEIGHT]},
        "no counts": {"size": [HEIGHT, WIDTH]},
        "text": {"counts": "~~~", "size": [HEIGHT, WIDTH]},
        "wrapping": {"counts": [2**62, 2**62, 2**62, 2**62, 2400], "size": [HEIGHT, WIDTH]},
    }
    good = [(image, 3, [square(1, 1, 9, 9)]) for image in (0, 1)]
    expected = boxed((IGNORE, 30, 20, 10, 5), (1, 1, 1, 9, 9))
    for name, shape in wrong.items():
        root = coco(tmp_path / name, [*good, (0, 17, shape, box), (1, 17, shape)])
        data = load_masks(root)
        assert len(data.problems) == 2, name
        assert all("object has no usable outline" in problem.reason for problem in data.problems)
        assert "annotation 102" in data.problems[0].reason
        found = masks(data)
        np.testing.assert_array_equal(found["a.png"], expected, name)
        np.testing.assert_array_equal(found["b.png"], boxed((1, 1, 1, 9, 9)), name)


def test_a_class_that_is_not_listed_is_ignored_and_told(tmp_path):
    shapes = [(image, 3, [square(1, 1, 9, 9)]) for image in (0, 1)]
    data = load_masks(coco(tmp_path, [*shapes, (0, 5, [square(20, 20, 5, 5)])]))
    np.testing.assert_array_equal(masks(data)["a.png"], boxed((1, 1, 1, 9, 9), (IGNORE, 20, 20, 5, 5)))
    assert [problem.reason for problem in data.problems] == ["annotation 102: class is not in the list of classes"]


def test_sizes_that_differ_and_sizes_that_lie(tmp_path):
    shapes = [(image, 3, [square(1, 1, 9, 9)]) for image in range(4)]
    root = coco(tmp_path, shapes, "a.png b.png c.png d.png")
    content = json.loads((root / "shapes.json").read_text())
    content["images"][0] |= {"width": 2 * WIDTH, "height": 2 * HEIGHT}
    content["images"][1] |= {"width": 10**6, "height": 10**6}
    del content["images"][2]["width"]
    (root / "shapes.json").write_text(json.dumps(content))
    data = load_masks(root)
    assert sorted(masks(data)) == ["c.png", "d.png"]
    reasons = {Path(problem.path).name: problem.reason for problem in data.problems}
    assert "120x80 pixels, a.png has 60x40" in reasons["shapes.json"]
    assert "too large: 1000000x1000000 pixels" in reasons["b.png"]


def test_boxes_alone_are_no_masks(tmp_path):
    root = coco(tmp_path, [(0, 3, [], {"bbox": [1, 2, 3, 4]}), (1, 3, None, {"bbox": [1, 2, 3, 4]})])
    with pytest.raises(UserError, match=r"2 images with boxes \(COCO JSON\) but no masks.*--task detect"):
        load_masks(root)


def test_damaged_json_is_named(tmp_path):
    root = coco(tmp_path, [(0, 3, [square(1, 1, 9, 9)])])
    (root / "shapes.json").write_text((root / "shapes.json").read_text()[:-20])
    with pytest.raises(UserError, match=r"shapes.json, line 1, column \d+: damaged JSON"):
        load_masks(root)


def test_both_forms(tmp_path):
    root = coco(tmp_path, [(image, 3, [square(1, 1, 9, 9)]) for image in (0, 1)])
    for name in "ab":
        Image.fromarray(boxed((1, 0, 0, 5, 5))).save(root / f"{name}_mask.png")
    data = load_masks(root)
    assert data.form == "images and masks"
    assert any("though there is also COCO JSON" in note for note in data.notes)


def drawn(corners, width, height):
    """An outline's pixels in the whole image."""
    top, left, inside = filled(corners, width, height)
    pixels = np.zeros((height, width), bool)
    pixels[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return pixels


def test_pixels_whose_centre_lies_inside():
    assert drawn(square(1.5, 0.5, 2, 1), 5, 3).astype(int).tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0] * 5]
    assert drawn(square(1.51, 0.49, 2, 1), 5, 3).astype(int).tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0] * 5]
    assert drawn([0, 0, 4, 0, 0, 4], 4, 4).sum() == 6  # centres on the edge belong to one side of it
    assert not drawn(square(-9, -9, 5, 5), 4, 4).any()
    assert drawn(square(-9, -9, 50, 50), 4, 4).all()
    assert not drawn([1, 1, 2, 2, 3, 3], 9, 9).any()
    # What is surrounded twice is outside, as a star's middle.
    star = [5, 0, 8, 9, 0, 3, 10, 3, 2, 9]
    assert not drawn([10 * corner for corner in star], 100, 100)[50, 50]


def test_outlines_as_matplotlib_knows_their_inside():
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(100) + 0.5, np.arange(80) + 0.5), axis=-1).reshape(-1, 2)
    for _ in range(30):
        corners = rng.uniform(-10, 110, (int(rng.integers(3, 9)), 2))
        inside = outline.Path(corners).contains_points(centres).reshape(80, 100)
        np.testing.assert_array_equal(drawn(corners.ravel(), 100, 80), inside)


def test_objects_of_any_size_are_drawn_in_little_memory(tmp_path):
    import tracemalloc

    side = 3000
    root = coco(tmp_path, [])
    Image.fromarray(np.zeros((side, side), np.uint8)).save(root / "large.png")
    content = json.loads((root / "shapes.json").read_text())
    content["images"].append({"id": 9, "file_name": "large.png", "width": side, "height": side})
    content["annotations"] = [
        {"id": index, "image_id": 9, "category_id": 3, "segmentation": [square(index, index, side - 50, side - 50)]}
        for index in range(40)
    ] + [{"id": 99, "image_id": 0, "category_id": 17, "segmentation": [square(1, 1, 9, 9)]}]
    (root / "shapes.json").write_text(json.dumps(content))
    tracemalloc.start()
    try:
        data = load_masks(root)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 30 * side**2  # all objects as whole images would be 40
    mask = masks(data)["large.png"]
    assert (mask > 0).sum() == (mask == mask.max()).sum() == (side - 50 + 39) ** 2 - 2 * sum(range(40))


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (9, 9), 0)
    return noise > np.quantile(noise, rng.uniform(0.1, 0.9))


@pytest.mark.peers
def test_run_lengths_as_pycocotools_unpacks_them():
    peer = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (1, 300), (300, 1), *rng.integers(1, 200, (20, 2)).tolist(), (400, 700)]
    for height, width in shapes:
        for mask in (blobs(rng, height, width), np.zeros((height, width), bool), np.ones((height, width), bool)):
            text = peer.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
            np.testing.assert_array_equal(unpacked(text, width, height), mask)
            np.testing.assert_array_equal(unpacked(text.decode(), width, height), mask)
            np.testing.assert_array_equal(unpacked(packed(mask)["counts"], width, height), mask)


@pytest.mark.peers
def test_objects_as_pycocotools_draws_them(tmp_path, monkeypatch):
    reference = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    rng = np.random.default_rng(0)
    shapes = []
    for index in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 30))))
        corners = np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(5, 25) + rng.uniform(5, 50, 2)
        shape = np.clip(corners, 0, (WIDTH, HEIGHT)).ravel().tolist()
        mask = blobs(rng, HEIGHT, WIDTH)
        shapes.append((index, 3, packed(mask) if index % 4 == 0 else [shape]))
    names = " ".join(f"{index:02}.png" for index in range(20))
    root = coco(tmp_path, shapes, names)
    monkeypatch.setattr("sys.stdout", io.StringIO())  # it prints
    peer = reference.COCO(str(root / "shapes.json"))
    found = masks(load_masks(root))
    different = total = 0
    for index, (name, mask) in enumerate(sorted(found.items())):
        (annotation,) = peer.imgToAnns[index]
        theirs = peer.annToMask(annotation).astype(bool)
        if index % 4 == 0:
            np.testing.assert_array_equal(mask == 1, theirs, name)
            continue
        # It rounds outlines to fifths of a pixel, and draws their border: that much may differ.
        kernel = np.ones((3, 3), np.uint8)
        inner, outer = cv2.erode(theirs.astype(np.uint8), kernel), cv2.dilate(theirs.astype(np.uint8), kernel)
        assert ((mask == 1) <= (outer == 1)).all()
        assert ((mask == 1) >= (inner == 1)).all()
        different += ((mask == 1) != theirs).sum()
        total += theirs.sum()
    assert different < 0.05 * total
