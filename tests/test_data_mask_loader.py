"""Batches with masks: the same whatever the threads, the memory and the past, and masks that lie on their images."""

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mobilenets.data import images
from mobilenets.data.mask_augment import MaskAugment, change, nearest
from mobilenets.data.mask_augment_sheet import augmented_mask_sheet
from mobilenets.data.mask_file import FileMask
from mobilenets.data.mask_loader import MaskBatches, MaskEvaluationBatches
from mobilenets.data.masks import IGNORE, MaskData, MaskSplit, pixels_of
from mobilenets.errors import UserError

DARK, BRIGHT = 30, 230  # of background and object: images here show what their masks say
STILL = MaskAugment(flip=False, scale=(1, 1), aspect=1, colour=0)


def split_of(pictures, masks) -> MaskSplit:
    """Of arrays, or of the paths of images and of masks with the values 0, 1, 2 and 255."""
    kept = {0: 0, 1: 1, 2: 2, IGNORE: IGNORE}
    sources = [FileMask(mask, kept) if isinstance(mask, Path) else mask for mask in masks]
    arrays = [mask if isinstance(mask, np.ndarray) else mask.read() for mask in sources]
    return MaskSplit(
        tuple(pictures) if isinstance(pictures[0], Path) else np.stack(pictures),
        np.array([mask.shape[::-1] for mask in arrays], np.int64),
        tuple(sources) if isinstance(masks[0], Path) else np.stack(arrays),
        np.stack([pixels_of(mask, 3) for mask in arrays]),
    )


def scene(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a bright ellipse, and its mask."""
    mask = np.zeros((height, width), np.uint8)
    centre = (rng.uniform(0.3, 0.7, 2) * (width, height)).astype(int).tolist()
    cv2.ellipse(mask, centre, [max(1, width // 5), max(1, height // 4)], 0, 0, 360, 1, -1)
    return np.repeat(np.where(mask == 1, BRIGHT, DARK).astype(np.uint8)[..., None], 3, axis=2), mask


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> MaskSplit:
    """Thirty files of many shapes, among them one of 10000x50 and one of 16x16."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    paths, masks = [], []
    for index in range(30):
        width, height = {3: (10000, 50), 4: (16, 16)}.get(index, rng.integers(30, 120, 2).tolist())
        picture, mask = scene(rng, width, height)
        picture[: height // 3] += rng.integers(0, 20, (height // 3, width, 3), np.uint8)
        mask[0, 0] = IGNORE
        paths.append(root / f"{index}.{'png' if index % 3 else 'jpg'}")
        masks.append(root / f"{index}_mask.png")
        Image.fromarray(picture).save(paths[-1])
        Image.fromarray(mask).save(masks[-1])
    return split_of(paths, masks)


@pytest.fixture(scope="module")
def arrays() -> MaskSplit:
    rng = np.random.default_rng(1)
    pairs = [scene(rng, 60, 60) for _ in range(40)]
    for index, (picture, _) in enumerate(pairs):
        picture[:4, :4] = index
    return split_of(*zip(*pairs, strict=True))


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("augment", [None, MaskAugment()])
@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_shapes_and_types(kind, augment, request):
    split = request.getfixturevalue(kind)
    batches = MaskBatches(split, 48, 12, augment=augment)
    epoch = list(batches.epoch(0))
    assert len(epoch) == batches.steps == (len(split) // 12 if augment else -(-len(split) // 12))
    assert len(epoch[-1][0]) == (12 if augment else len(split) % 12)
    for x, y in epoch:
        assert x.dtype == y.dtype == np.uint8
        assert x.shape == (*y.shape, 3)
        assert y.shape[1:] == (48, 48)
        assert set(np.unique(y)) <= {0, 1, IGNORE}


@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_without_augmentation_each_image_comes_once_with_its_own_mask(kind, request):
    split = request.getfixturevalue(kind)
    whole, masks = (np.concatenate(parts) for parts in zip(*MaskEvaluationBatches(split, 48, 7), strict=True))
    place = {image.tobytes(): index for index, image in enumerate(whole)}
    assert len(place) == len(whole) == len(split)
    orders = []
    for number in (0, 1):
        order = []
        for x, y in MaskBatches(split, 48, 12).epoch(number):
            for image, mask in zip(x, y, strict=True):
                order.append(place[image.tobytes()])
                np.testing.assert_array_equal(mask, masks[order[-1]])
        assert sorted(order) == list(range(len(split)))
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("kind", ["photos", "arrays"])
@pytest.mark.parametrize("augment", [None, MaskAugment()])
def test_threads_memory_and_the_past_change_nothing(kind, augment, request):
    split = request.getfixturevalue(kind)

    def make(**more) -> MaskBatches:
        return MaskBatches(split, 40, 20, **({"seed": 3, "augment": augment} | more))

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
    picture, mask = scene(np.random.default_rng(0), 24, 24)
    split = split_of([picture] * 64, [mask] * 64)
    batches = MaskBatches(split, 24, 32, augment=MaskAugment())
    found = [image.tobytes() for number in range(3) for x, _ in batches.epoch(number) for image in x]
    assert len(set(found)) == len(found) == 3 * 64


def centre(brightness: np.ndarray) -> np.ndarray:
    """x and y of the centre of what is bright, in pixels."""
    rows, columns = np.mgrid[: brightness.shape[0], : brightness.shape[1]] + 0.5
    return np.array([(columns * brightness).sum(), (rows * brightness).sum()]) / brightness.sum()


def apart(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How far the object of the mask lies right of, and below, that of the image, in pixels."""
    shown = (image[..., 0].astype(float) - DARK) / (BRIGHT - DARK)
    shown[mask == IGNORE] = 0
    return centre((mask == 1).astype(float)) - centre(np.clip(shown, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(100, 80), (41, 37), (300, 200), (97, 301), (64, 64), (128, 128)])
def test_masks_lie_on_their_images_to_a_fraction_of_a_pixel(tmp_path, width, height):
    """The picture is resized by averaging, its mask by choosing: neither may move against the other."""
    rng = np.random.default_rng(width)
    paths, masks = [], []
    for index in range(24):
        picture, mask = scene(rng, width, height)
        paths.append(tmp_path / f"{index}.png")
        masks.append(tmp_path / f"{index}_mask.png")
        Image.fromarray(picture).save(paths[-1])
        Image.fromarray(mask).save(masks[-1])
    split = split_of(paths, masks)
    for augment in (None, STILL, replace(STILL, flip=True), replace(STILL, scale=(0.6, 0.9), flip=True, aspect=1.3)):
        found = []
        for x, y in MaskBatches(split, 64, 24, augment=augment).epoch(0):
            for image, mask in zip(x, y, strict=True):
                found.append(apart(image, mask))
                # Apart from the pixels at the edge, which are a mixture, every pixel is what its mask says.
                edge = cv2.dilate(mask, np.ones((3, 3))) != cv2.erode(mask, np.ones((3, 3)))
                said = np.where(mask == 1, BRIGHT, DARK)
                assert (np.abs(image[..., 0] - said.astype(float)) < 60)[~edge & (mask != IGNORE)].all()
        # At 10 of 64 pixels, corners instead of centres would be 0.2 to 0.5 pixels off.
        assert np.abs(np.mean(found, axis=0)).max() < 0.06, augment
        assert np.abs(found).max() < 0.4


@pytest.mark.parametrize("size", [(640, 480), (1203, 901), (333, 2222)])
def test_masks_lie_on_photos_that_the_decoder_reduces(tmp_path, size):
    picture, mask = scene(np.random.default_rng(0), *size)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    split = split_of([tmp_path / "a.jpg"], [tmp_path / "a_mask.png"])
    ((x, y),) = MaskEvaluationBatches(split, 64, 1)
    assert np.abs(apart(x[0], y[0])).max() < 0.3


def test_nearest_takes_the_value_at_the_centre():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width, new_height, new_width = rng.integers(1, 90, 4).tolist()
        mask = rng.integers(0, 256, (height, width), np.uint8)
        found = nearest(mask, new_width, new_height)
        assert found.shape == (new_height, new_width)
        rows, columns = (
            [(2 * place + 1) * old / (2 * new) for place in range(new)]
            for old, new in ((height, new_height), (width, new_width))
        )
        # A centre between two pixels may take either.
        allowed = [
            mask[np.floor(np.array(rows)[:, None] + down).astype(int), np.floor(np.array(columns) + right).astype(int)]
            for down in (-1e-9, 1e-9)
            for right in (-1e-9, 1e-9)
        ]
        assert np.any([found == each for each in allowed], axis=0).all()
    assert nearest(np.arange(8, dtype=np.uint8)[None], 4, 1).tolist() == [[0, 3, 4, 7]]
    assert nearest(np.arange(6, dtype=np.uint8)[None], 2, 1).tolist() == [[1, 4]]


def test_nothing_happens_where_nothing_may():
    picture, mask = scene(np.random.default_rng(0), 50, 50)
    out, out_mask = np.empty((50, 50, 3), np.uint8), np.empty((50, 50), np.uint8)
    change(picture, mask, STILL, np.random.default_rng(0), out, out_mask)
    np.testing.assert_array_equal(out, picture)
    np.testing.assert_array_equal(out_mask, mask)


def test_padding_is_ignored_and_a_mask_is_never_a_mixture():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (50, 70, 3), np.uint8)
    mask = rng.choice([0, 2], (50, 70)).astype(np.uint8)
    out, out_mask = np.empty((60, 60, 3), np.uint8), np.empty((60, 60), np.uint8)
    shares = []
    for _ in range(60):
        change(picture, mask, MaskAugment(scale=(0.5, 0.9), aspect=1.5, colour=0), rng, out, out_mask)
        assert set(np.unique(out_mask)) == {0, 2, IGNORE}
        seen = out_mask != IGNORE
        shares.append(seen.mean())
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert (out[~seen] == (124, 116, 104)).all()
    assert min(shares) < 0.35
    assert max(shares) > 0.7


def test_flips_sizes_and_places_vary_and_colours_leave_masks_alone():
    picture, mask = scene(np.random.default_rng(0), 64, 64)
    picture[:, :10], mask[:, :10] = 128, 2
    flipped, sizes = 0, []
    for seed in range(100):
        out, out_mask = np.empty((64, 64, 3), np.uint8), np.empty((64, 64), np.uint8)
        plain, plain_mask = out.copy(), out_mask.copy()
        augment = MaskAugment(scale=(0.5, 1), aspect=1)
        change(picture, mask, augment, np.random.default_rng(seed), out, out_mask)
        change(picture, mask, replace(augment, colour=0), np.random.default_rng(seed), plain, plain_mask)
        np.testing.assert_array_equal(out_mask, plain_mask)
        assert not np.array_equal(out, plain)
        columns = np.flatnonzero((out_mask != IGNORE).any(axis=0))
        sizes.append(len(columns))
        flipped += (out_mask[:, columns[-1]] == 2).any()
    assert 35 < flipped < 65
    assert min(sizes) < 36
    assert max(sizes) > 60


def test_large_scales_show_parts():
    picture, mask = scene(np.random.default_rng(0), 64, 64)
    out, out_mask = np.empty((64, 64, 3), np.uint8), np.empty((64, 64), np.uint8)
    seen = set()
    for seed in range(20):
        change(picture, mask, replace(STILL, scale=(2, 2)), np.random.default_rng(seed), out, out_mask)
        assert IGNORE not in out_mask
        seen.add(out_mask.tobytes())
    assert len(seen) > 15


@pytest.mark.parametrize("wrong", [{"scale": (0, 1)}, {"scale": (2, 1)}, {"aspect": 0.5}, {"colour": 2}])
def test_wrong_augmentations_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskAugment(**wrong)


def test_memory_is_that_of_the_networks_size(photos, monkeypatch):
    decoded, read = [], []
    decode, mask = images.decode, FileMask.read
    monkeypatch.setattr(images, "decode", lambda *given: (decoded.append(given), decode(*given))[1])
    monkeypatch.setattr(FileMask, "read", lambda self: (read.append(self), mask(self))[1])
    batches = MaskBatches(photos, 32, 8, augment=MaskAugment(), cache_bytes=40 * 40 * 30 * 4)
    for number in range(3):
        list(batches.epoch(number))
    assert len(decoded) == len(read) == 30


@pytest.mark.parametrize("kind", ["photos", "arrays"])
def test_evaluation_is_in_order_unchanged_and_repeatable(kind, request):
    split = request.getfixturevalue(kind)
    batches = MaskEvaluationBatches(split, 32, 7)
    first = list(batches)
    assert len(first) == batches.steps == -(-len(split) // 7)
    for index, mask in enumerate(np.concatenate([y for _, y in first])):
        np.testing.assert_array_equal(mask, nearest(split.mask(index), 32, 32))
    assert same(batches, first)
    assert same(MaskEvaluationBatches(split, 32, 7, threads=1, cache_bytes=0), first)


def test_no_images(arrays):
    none = arrays.chosen(np.arange(0))
    batches = MaskEvaluationBatches(none, 32, 4)
    assert batches.steps == 0
    assert list(batches) == []
    with pytest.raises(ValueError, match="no image"):
        MaskBatches(none, 8, 4)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch_size": 0}, {"seed": -1}, {"threads": 0}])
def test_wrong_arguments_are_named(arrays, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskBatches(**({"split": arrays, "size": 8, "batch_size": 4} | wrong))


def test_fewer_images_than_a_batch(arrays):
    batches = MaskBatches(arrays.chosen(np.arange(5)), 32, 64, augment=MaskAugment())
    assert batches.steps == 1
    ((x, y),) = batches.epoch(0)
    assert len(x) == len(y) == 5


@pytest.mark.parametrize("name", ["11.png", "11_mask.png"])
def test_a_file_that_goes_bad_is_named(tmp_path, name):
    picture, mask = scene(np.random.default_rng(0), 30, 20)
    for index in range(20):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        Image.fromarray(mask).save(tmp_path / f"{index}_mask.png")
    split = split_of(*([tmp_path / f"{index}{end}.png" for index in range(20)] for end in ("", "_mask")))
    (tmp_path / name).unlink()
    for augment in (None, MaskAugment()):
        with pytest.raises(UserError, match=r"11.png: .*no such file.*put it back"):
            list(MaskBatches(split, 16, 4, augment=augment).epoch(0))
    with pytest.raises(UserError, match="11.png"):
        list(MaskEvaluationBatches(split, 16, 8))
    assert not workers()


def test_breaking_off_leaves_no_thread_behind(arrays):
    for _ in MaskBatches(arrays, 64, 4, augment=MaskAugment(), threads=4).epoch(0):
        assert workers()
        break
    assert not workers()


def test_a_sheet_of_training_images(arrays, tmp_path):
    data = MaskData("discs", "", "built-in", ("background", "disc", "other"), arrays, arrays, 60, False, "")
    for augment in (None, MaskAugment(scale=(0.5, 0.6))):
        path = augmented_mask_sheet(data, tmp_path / "sheet.png", 64, augment, columns=4, rows=2)
        with Image.open(path) as sheet:
            assert sheet.size == (4 * 72 + 8, 2 * 72 + 8)
    with pytest.raises(ValueError, match="columns"):
        augmented_mask_sheet(data, tmp_path / "none.png", columns=0)
    drawn = []
    for flip in (True, False):  # as it is trained on, whatever the data allows where nobody says
        augment = MaskAugment(flip=flip, scale=(1, 1), aspect=1, colour=0)
        drawn.append(augmented_mask_sheet(data, tmp_path / "sheet.png", 64, augment).read_bytes())
    assert drawn[0] != drawn[1]
