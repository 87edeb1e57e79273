"""The scenes of several stamps, with boxes and masks."""

import cv2
import numpy as np
import pytest

from mobilenets.data import scenes as module
from mobilenets.data import stamps
from mobilenets.data.scenes import drawn, scene, scenes, unseen
from mobilenets.errors import UserError

needs_stamps = pytest.mark.skipif(not stamps._DEBIAN.exists(), reason="tuxpaint-stamps-default is not installed")
FEW = {"train": 100, "val": 40, "unseen": 40}  # every scene is drawn by numbers of its own


@pytest.fixture(scope="module")
def few():
    with pytest.MonkeyPatch.context() as patch:
        for part, count in FEW.items():
            patch.setitem(module.COUNTS, part, count)
        yield scenes(), unseen()


def disc(side, colour=(255, 255, 255), outside=(0, 0, 0)):
    pixels = np.empty((side, side, 4), np.uint8)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    inside = rows**2 + columns**2 < (side / 2) ** 2
    pixels[..., :3] = np.where(inside[..., None], colour, outside)
    pixels[..., 3] = 255 * inside
    return stamps.Cutout("disc", pixels)


@needs_stamps
def test_a_data_set_of_boxes(few):
    data, more = few
    assert data.classes == tuple(stamps.CLASSES)
    assert (data.name, data.source, data.form, data.native_size, data.flip) == (
        "stamps",
        "stamps",
        "built-in",
        320,
        True,
    )
    for split, count in zip((data.train, data.val, more), FEW.values(), strict=True):
        assert len(split) == count
        assert split.images.shape == (count, 320, 320, 3)
        assert split.images.dtype == np.uint8
        assert split.sizes.dtype == np.int64
        assert (split.sizes == 320).all()
        for boxes, labels, ignored in zip(split.boxes, split.labels, split.ignored, strict=True):
            assert (boxes.dtype, labels.dtype, ignored.dtype) == (np.float32, np.int64, bool)
            assert boxes.shape == (len(labels), 4)
            assert ignored.shape == labels.shape
            assert not ignored.any()
            assert boxes.min(initial=0) >= 0
            assert boxes.max(initial=0) <= 320
            assert (boxes[:, 2:] - boxes[:, :2]).min(initial=10) >= 10
        objects = np.array([len(labels) for labels in split.labels])
        assert set(objects) <= set(range(7))
        assert set(range(1, 7)) <= set(objects)
        assert (np.bincount(np.concatenate(split.labels), minlength=7) > count / 5).all()
    assert 0 < np.mean([len(labels) == 0 for labels in data.train.labels]) < 0.1


@needs_stamps
def test_boxes_are_tight_around_what_is_visible():
    for index in range(30):
        one = drawn("train", index)
        assert set(np.unique(one.masks)) == {0, *range(1, len(one.labels) + 1)} - ({0} if one.masks.all() else set())
        for number, box in enumerate(one.boxes, 1):
            left, top, width, height = cv2.boundingRect((one.masks == number).astype(np.uint8))
            assert box.tolist() == [left, top, left + width, top + height]


def test_labels_and_masks_belong_to_their_objects():
    colours = {4: (200, 0, 0), 0: (0, 200, 0), 2: (0, 0, 200)}
    objects = [(label, disc(200, colour)) for label, colour in colours.items()]
    seen = 0
    for seed in range(10):
        one = scene(objects, np.random.default_rng(seed))
        for number, label in enumerate(one.labels, 1):
            # The edge is a blend, what lies within is of one colour.
            inner = cv2.erode((one.masks == number).astype(np.uint8), np.ones((5, 5)), borderValue=0)
            pixels = one.image[inner > 0]
            assert (pixels.argmax(axis=1) == np.argmax(colours[label])).all()
            assert np.sort(pixels, axis=1)[:, :2].max() <= 2
            seen += 1
    assert seen > 20


def test_at_least_half_of_every_object_can_be_seen():
    for seed in range(4):
        one = scene([(0, disc(300))] * 40, np.random.default_rng(seed))
        assert 5 < len(one.labels) <= 40
        visible = np.bincount(one.masks.ravel())[1:]
        # The smallest are 38 pixels wide, and no disc is smaller than its box.
        sides = np.maximum((one.boxes[:, 2:] - one.boxes[:, :2]).max(axis=1), 38)
        assert (visible > 0.49 * np.pi / 4 * sides**2).all()


def test_nothing_is_narrower_than_ten_pixels():
    pole = stamps.Cutout("pole", np.full((400, 20, 4), 255, np.uint8))
    widths = [np.diff(scene([(0, pole)], np.random.default_rng(seed)).boxes[:, ::2]) for seed in range(40)]
    assert 10 <= np.concatenate(widths).min() < 14


def test_the_border_cuts_off_a_quarter_at_most():
    cut = 0
    for seed in range(60):
        one = scene([(0, disc(300))], np.random.default_rng(seed), size=160)
        (left, top, right, bottom) = one.boxes[0]
        assert (one.masks > 0).sum() > 0.74 * np.pi / 4 * max(right - left, bottom - top) ** 2
        cut += min(left, top) == 0 or max(right, bottom) == 160
    assert 5 < cut < 40


def test_sizes_are_spread_evenly_over_their_logarithms():
    def longer_sides(cutout):
        found = [scene([(0, cutout)], np.random.default_rng(seed)).boxes[0] for seed in range(60)]
        # Cut by the border at one side they keep the other.
        return np.array([max(box[2] - box[0], box[3] - box[1]) / 320 for box in found])

    sides = longer_sides(disc(300))
    assert sides.min() > 0.11
    assert sides.max() < 0.71
    assert 0.24 < np.median(sides) < 0.35  # the middle between 0.12 and 0.7 is 0.29
    # A small cut-out is not enlarged until it is a blur.
    small = longer_sides(disc(50))
    assert small.min() > 0.11
    assert 0.3 < small.max() < 2.5 * 50 / 320 + 0.01


def test_objects_are_mirrored_half_of_the_time_and_turned_a_little():
    pixels = np.zeros((100, 200, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[:, :100, 0], pixels[:, 100:, 1] = 200, 200  # red, then green
    angles = []
    for seed in range(80):
        one = scene([(0, stamps.Cutout("two", pixels))], np.random.default_rng(seed))
        if one.boxes.min() > 0 and one.boxes.max() < 320:
            red, green = (
                np.argwhere((one.image[..., channel] > 100) & (one.masks == 1)).mean(axis=0) for channel in (0, 1)
            )
            rows, columns = green - red
            angles.append(np.degrees(np.arctan2(rows, columns)))
    assert len(angles) > 40
    turned = np.array(angles)
    straight = np.abs(turned) < 90
    assert 0.3 < straight.mean() < 0.7
    off = np.where(straight, turned, (turned + 360) % 360 - 180)
    assert np.abs(off).max() < 21
    assert np.abs(off).max() > 15
    assert (off > 3).any()
    assert (off < -3).any()


def test_what_is_transparent_does_not_show():
    one, other = (
        scene([(0, disc(250, outside=outside))], np.random.default_rng(3)) for outside in ((0, 0, 0), (255, 0, 255))
    )
    np.testing.assert_array_equal(one.image, other.image)
    ghost = stamps.Cutout("ghost", np.full((90, 90, 4), 60, np.uint8))
    empty = scene([(0, ghost)], np.random.default_rng(3))
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.shape == (0,)
    assert not empty.masks.any()


@needs_stamps
def test_scenes_are_the_same_every_time_and_whatever_their_number(few, monkeypatch):
    data, more = few
    for split, part in ((data.train, "train"), (data.val, "val"), (more, "unseen")):
        for index in (0, 7, FEW[part] - 1):
            one = drawn(part, index)
            np.testing.assert_array_equal(one.image, split.images[index])
            np.testing.assert_array_equal(one.boxes, split.boxes[index])
            np.testing.assert_array_equal(one.labels, split.labels[index])
    for part in module.COUNTS:
        monkeypatch.setitem(module.COUNTS, part, 2)
    again = scenes()
    np.testing.assert_array_equal(again.train.images, data.train.images[:2])
    assert again.fingerprint == data.fingerprint
    # Another version of the package with other pictures is another data set.
    changed = stamps.Cutout("blue.png", np.full((90, 90, 4), 255, np.uint8))
    monkeypatch.setattr(module, "cutouts", lambda name: (*stamps.cutouts(name), changed))
    assert scenes().fingerprint != data.fingerprint


@needs_stamps
def test_no_scene_is_in_two_parts(few):
    data, more = few
    every = [image.tobytes() for split in (data.train, data.val, more) for image in split.images]
    assert len(set(every)) == len(every) == sum(FEW.values())


@needs_stamps
def test_unseen_objects_are_shown_by_no_other_scene(monkeypatch):
    shown = {part: set() for part in module.COUNTS}

    def record(objects, rng):
        shown[part].update((label, cutout.name) for label, cutout in objects)

    monkeypatch.setattr(module, "scene", record)
    for part in shown:
        for index in range(600):
            drawn(part, index)
    kept = {
        held: {
            (label, cutout.name) for label, name in enumerate(stamps.CLASSES) for cutout in stamps.held_out(name, held)
        }
        for held in (False, True)
    }
    assert shown["unseen"] == kept[True]
    assert shown["train"] == shown["val"] == kept[False]
    assert not shown["unseen"] & shown["train"]


@needs_stamps
@pytest.mark.slow
def test_all_scenes():
    data, more = scenes(), unseen()
    assert (len(data.train), len(data.val), len(more)) == (1200, 300, 300)
    for split in (data.train, data.val, more):
        assert split.images.std(axis=(1, 2, 3)).min() > 5
        assert 3 < split.objects / len(split) < 3.6
    assert 0.02 < np.mean([len(labels) == 0 for labels in data.train.labels]) < 0.05


def test_where_they_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(stamps, "_DEBIAN", tmp_path)
    stamps.cutouts.cache_clear()
    for make in (scenes, unseen, lambda: drawn("val", 0)):
        with pytest.raises(UserError, match="tuxpaint-stamps-default"):
            make()
    stamps.cutouts.cache_clear()
