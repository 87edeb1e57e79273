"""Batches with boxes: the same whatever the threads, the memory and the past, and with nothing cut off."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilenets.data import images
from mobilenets.data.box_augment import IGNORED, UNUSED, BoxAugment
from mobilenets.data.box_loader import BoxBatches, BoxEvaluationBatches
from mobilenets.data.boxes import BoxSplit
from mobilenets.errors import UserError


def split_of(pictures, boxes, labels=None, ignored=None) -> BoxSplit:
    shapes = [images.dimensions(one) if isinstance(one, Path) else one.shape[1::-1] for one in pictures]
    return BoxSplit(
        tuple(pictures) if isinstance(pictures[0], Path) else np.stack(pictures),
        np.array(shapes, np.int64),
        tuple(np.array(some, np.float32).reshape(-1, 4) for some in boxes),
        labels or tuple(np.arange(len(some)) for some in boxes),
        ignored or tuple(np.zeros(len(some), bool) for some in boxes),
    )


def some_boxes(rng: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    first = rng.uniform(0, 0.7, (count, 2))
    return np.hstack([first, first + rng.uniform(0.1, 0.3, (count, 2))]) * (width, height, width, height)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> BoxSplit:
    """Forty files of many shapes, among them one of 10000x50 and one of 16x16, grey ones, one with 500 boxes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths, boxes = [], []
    for index in range(40):
        width, height = {3: (10000, 50), 4: (16, 16)}.get(index, rng.integers(30, 120, 2).tolist())
        pixels = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (width, height))
        paths.append(root / f"{index}.{'png' if index % 3 else 'jpg'}")
        cv2.imwrite(str(paths[-1]), pixels[..., 0] if index % 5 == 0 else pixels)
        boxes.append(some_boxes(rng, {7: 500}.get(index, index % 4), width, height))
    ignored = tuple(np.arange(len(some)) % 3 == 2 for some in boxes)
    return split_of(paths, boxes, ignored=ignored)


@pytest.fixture(scope="module")
def arrays() -> BoxSplit:
    rng = np.random.default_rng(1)
    pictures = [cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (60, 60)) for _ in range(50)]
    return split_of(pictures, [some_boxes(rng, index % 12, 60, 60) for index in range(50)])


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("augment", [None, BoxAugment(), BoxAugment(mosaic=1)])
@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_shapes_and_types(kind, augment, request):
    split = request.getfixturevalue(kind)
    batches = BoxBatches(split, 48, 12, augment=augment)
    epoch = list(batches.epoch(0))
    assert len(epoch) == batches.steps == (len(split) // 12 if augment else -(-len(split) // 12))
    assert len(epoch[-1][0]) == (12 if augment else len(split) % 12)
    for x, objects in epoch:
        assert x.dtype == np.uint8
        assert objects.dtype == np.float32
        assert x.shape == (len(objects), 48, 48, 3)
        most = objects.shape[1]
        assert objects.shape == (len(x), most, 5)
        assert most in (8, 16, 32, 64, 128, 256, 512)
        used = objects[..., 4] != UNUSED
        assert most == 8 or used.sum(axis=1).max() > most // 2
        assert (used[:, :-1] >= used[:, 1:]).all()  # the used rows come first
        assert (objects[~used] == (0, 0, 0, 0, UNUSED)).all()
        assert set(objects[used][:, 4]) <= {IGNORED, *range(500)}
        assert (objects[used][:, :2] < objects[used][:, 2:4]).all()
        assert objects[..., :4].min() >= 0
        assert objects[..., :4].max() <= 1


@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_without_augmentation_each_image_comes_once_with_its_own_objects(kind, request):
    split = request.getfixturevalue(kind)
    whole = np.concatenate([x for x, _ in BoxEvaluationBatches(split, 48, 16)])
    place = {image.tobytes(): index for index, image in enumerate(whole)}
    assert len(place) == len(split)
    batches = BoxBatches(split, 48, 12)
    orders = []
    for number in (0, 1):
        order = []
        for x, objects in batches.epoch(number):
            for image, rows in zip(x, objects, strict=True):
                index = place[image.tobytes()]
                order.append(index)
                boxes = split.boxes[index] / np.tile(split.sizes[index], 2)
                assert np.allclose(rows[: len(boxes), :4], boxes, atol=1e-6)
                assert (rows[len(boxes) :, 4] == UNUSED).all()
                labels = np.where(split.ignored[index], IGNORED, split.labels[index])
                assert np.array_equal(rows[: len(boxes), 4], labels)
        assert sorted(order) == list(range(len(split)))
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("kind", ["photos", "arrays"])
@pytest.mark.parametrize("augment", [None, BoxAugment()])
def test_threads_memory_and_the_past_change_nothing(kind, augment, request):
    split = request.getfixturevalue(kind)

    def make(**more) -> BoxBatches:
        return BoxBatches(split, 40, 20, **({"seed": 3, "augment": augment} | more))

    expected = list(make(threads=1, cache_bytes=0).epoch(2))
    for more in ({"threads": 2}, {"threads": 7}, {"cache_bytes": 20_000}, {"threads": 5, "cache_bytes": 0}):
        batches = make(**more)
        assert same(batches.epoch(2), expected)  # epoch 2 first, as after a resume
        assert same(batches.epoch(2), expected)  # and again, from memory
    batches = make()
    list(batches.epoch(0))
    running = batches.epoch(3)
    next(running)
    assert same(batches.epoch(2), expected)  # while another is under way
    running.close()
    assert not same(batches.epoch(3), expected)
    assert not same(make(seed=4).epoch(2), expected)


def test_neither_epochs_nor_batches_nor_tasks_share_their_randomness():
    # One image over and over: what differs is only the augmentation.
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), (24, 24))
    split = split_of([picture] * 64, [[]] * 64)
    batches = BoxBatches(split, 24, 32, augment=BoxAugment())
    found = [image.tobytes() for number in range(3) for x, _ in batches.epoch(number) for image in x]
    assert len(set(found)) == len(found) == 3 * 64


def test_mosaics_come_as_often_as_asked_for_and_of_images_of_the_split():
    values = np.arange(10, 250, 6, dtype=np.uint8)
    pictures = [np.full((20, 20, 3), value, np.uint8) for value in values]
    plain = BoxAugment(scale=(1, 1), aspect=1, colour=0)
    for share in (0.0, 0.5, 1.0):
        batches = BoxBatches(split_of(pictures, [[]] * 40), 20, 40, augment=replace(plain, mosaic=share))
        shown = [np.unique(image) for number in range(5) for x, _ in batches.epoch(number) for image in x]
        assert set(np.concatenate(shown)) <= set(values)
        assert abs(np.mean([len(one) > 1 for one in shown]) - share) < 0.12
        if share == 1:
            assert set(np.concatenate(shown)) == set(values)


@pytest.mark.parametrize("objects", [0, 8, 9, 500, 512])
def test_rows_are_a_power_of_two(objects):
    split = split_of([np.zeros((64, 64, 3), np.uint8)] * 2, [[(0, 0, 9, 9)] * objects, []])
    ((_, found),) = BoxBatches(split, 64, 2).epoch(0)
    assert found.shape[1] == {0: 8, 8: 8, 9: 16, 500: 512, 512: 512}[objects]
    assert (found[..., 4] != UNUSED).sum() == objects


def test_of_too_many_objects_the_largest_are_kept_in_their_order():
    sides = 2 + np.random.default_rng(0).permutation(600) / 100
    split = split_of([np.zeros((64, 64, 3), np.uint8)], [[(1, 1, 1 + side, 1 + side) for side in sides]])
    ((_, found),) = BoxBatches(split, 64, 1).epoch(0)
    assert found.shape == (1, 512, 5)
    assert found[0, :, 4].tolist() == np.flatnonzero(sides >= np.sort(sides)[88]).tolist()


def test_objects_under_a_pixel_are_ignored():
    split = split_of([np.zeros((64, 64, 3), np.uint8)], [[(5, 5, 6, 30), (5, 5, 9, 30)]])
    ((_, found),) = BoxBatches(split, 32, 1).epoch(0)
    assert found[0, :3, 4].tolist() == [IGNORED, 1, UNUSED]


SHAPES = [(10000, 50), (50, 10000), (16, 16), (1279, 963), (963, 1279), (700, 400), (2047, 300)]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_nothing_is_cut_off_and_objects_stay_in_their_places(tmp_path, kind):
    """A white rectangle near each of two opposite corners is found where its box says."""
    paths, boxes = [], []
    for index, (width, height) in enumerate(SHAPES):
        pixels = np.zeros((height, width, 3), np.uint8)
        corners = np.array([(0, 0, 0.25, 0.25), (0.7, 0.6, 1, 1)]) * (width, height, width, height)
        corners = np.round(corners).astype(int)
        for left, top, right, bottom in corners:
            pixels[top:bottom, left:right] = 255
        paths.append(tmp_path / f"{index}.{kind}")
        cv2.imwrite(str(paths[-1]), pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
        boxes.append(corners)
    split = split_of(paths, boxes)
    (seen, _) = next(iter(BoxEvaluationBatches(split, 96, 20)))
    still = BoxAugment(flip=False, scale=(1, 1), aspect=1, mosaic=0, colour=0)
    for x, objects in ((seen, None), next(BoxBatches(split, 96, 20, augment=still).epoch(0))):
        for index, image in enumerate(x):
            rows = boxes[index] / np.tile(split.sizes[index], 2) if objects is None else objects[index, :2, :4]
            for box in rows * 96:
                left, top, right, bottom = np.maximum(box + np.array([-6, -6, 6, 6]), 0)
                first = np.array([left, top]).astype(int)
                bright = image[first[1] : int(bottom), first[0] : int(right), 0] / 255
                # To a fraction of a pixel, by how bright those at the edges are.
                width, height = bright.max(axis=0), bright.max(axis=1)
                centre = [(one * np.arange(0.5, len(one))).sum() / one.sum() for one in (width, height)] + first
                size = np.array([width.sum(), height.sum()])
                assert np.abs(centre - (np.array(box[:2]) + box[2:]) / 2).max() < 0.5
                assert np.abs(size - (np.array(box[2:]) - box[:2])).max() < 0.8


def test_memory_is_that_of_the_networks_size(photos, monkeypatch):
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda *given: (decoded.append(given), decode(*given))[1])
    # At most 1.25 times the input's sides, so all forty fit.
    batches = BoxBatches(photos, 32, 8, augment=BoxAugment(mosaic=0), cache_bytes=40 * 40 * 40 * 3)
    for number in range(3):
        list(batches.epoch(number))
    assert len(decoded) == 40
    decoded.clear()
    batches = BoxBatches(photos, 32, 8, cache_bytes=10 * 32 * 32 * 3)
    list(batches.epoch(0))
    list(batches.epoch(1))
    assert len(decoded) == 40 + 30


@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_evaluation_is_in_order_and_unchanged(kind, request):
    split = request.getfixturevalue(kind)
    batches = BoxEvaluationBatches(split, 32, 7)
    found = list(batches)
    assert len(found) == batches.steps == -(-len(split) // 7)
    indices = np.concatenate([indices for _, indices in found])
    assert indices.dtype == np.int64
    assert indices.tolist() == list(range(len(split)))
    for image, source in zip(np.concatenate([x for x, _ in found]), split.images, strict=True):
        pixels = images.decode(source) if isinstance(source, Path) else source
        expected = cv2.resize(pixels.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
        if min(pixels.shape[:2]) >= 32:
            assert np.abs(image - expected).mean() < 2
        assert image.shape == (32, 32, 3)
        assert abs(image.mean() - pixels.mean()) < 3
    assert same(BoxEvaluationBatches(split, 32, 7, threads=1, cache_bytes=0), found)


def test_evaluation_batches_can_be_gone_through_again(photos, monkeypatch):
    batches = BoxEvaluationBatches(photos, 32, 6)
    first = list(batches)
    monkeypatch.setattr(images, "decode", None)  # from memory now
    assert same(batches, first)


def test_no_images_to_evaluate():
    empty = BoxSplit((), np.zeros((0, 2), np.int64), (), (), ())
    batches = BoxEvaluationBatches(empty, 32, 4)
    assert batches.steps == 0
    assert list(batches) == []


@pytest.mark.parametrize("how", ["vanishes", "is cut short"])
def test_a_file_that_goes_bad_is_named(tmp_path, how):
    paths = [tmp_path / f"{index}.jpg" for index in range(20)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), np.random.default_rng(index).integers(0, 256, (20, 20, 3), np.uint8))
    split = split_of(paths, [[(1, 1, 9, 9)]] * 20)
    paths[11].unlink() if how == "vanishes" else paths[11].write_bytes(paths[11].read_bytes()[:300])
    for augment in (None, BoxAugment(mosaic=0)):
        with pytest.raises(UserError, match=r"11.jpg: (no such file|truncated)"):
            list(BoxBatches(split, 16, 4, augment=augment).epoch(0))
    with pytest.raises(UserError, match="11.jpg"):
        list(BoxEvaluationBatches(split, 16, 8))
    assert not workers()


def test_breaking_off_leaves_no_thread_behind(arrays):
    batches = BoxBatches(arrays, 64, 4, augment=BoxAugment(), threads=4)
    for _ in batches.epoch(0):
        assert workers()
        break
    assert not workers()
    iterator = batches.epoch(0)
    next(iterator)
    iterator.close()
    assert not workers()


def test_fewer_images_than_a_batch(arrays):
    batches = BoxBatches(arrays.chosen(np.arange(5)), 32, 64, augment=BoxAugment())
    assert batches.steps == 1
    ((x, objects),) = batches.epoch(0)
    assert len(x) == len(objects) == 5


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch_size": 0}, {"seed": -1}, {"threads": 0}])
def test_wrong_arguments_are_named(arrays, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BoxBatches(**({"split": arrays, "size": 8, "batch_size": 4} | wrong))
    if "seed" not in wrong:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BoxEvaluationBatches(**({"split": arrays, "size": 8, "batch_size": 4} | wrong))


def test_no_images_to_learn_from(arrays):
    with pytest.raises(ValueError, match="no image"):
        BoxBatches(arrays.chosen(np.arange(0)), 8, 4)
