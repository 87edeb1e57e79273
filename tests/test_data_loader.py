"""Batches: the same whatever the threads, the memory and the past."""

import threading
import time
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilenets.data import ImageData, Split, images, load
from mobilenets.data.augment import Augment
from mobilenets.data.loader import Batches, EvaluationBatches, evaluation_batches
from mobilenets.data.resizing import fit
from mobilenets.errors import UserError

ALL = Augment(flip=True, crop="resized", randaugment=2, erase=0.3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> ImageData:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "eel"):
        (root / name).mkdir()
        for index in range(30):
            shape = (int(rng.integers(30, 120)), int(rng.integers(30, 120)))
            pixels = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), shape)
            cv2.imwrite(str(root / name / f"{index}.{'png' if index % 3 else 'jpg'}"), pixels)
    return load(root)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("augment", [None, ALL, Augment(crop="pad")])
@pytest.mark.parametrize("kind", ["photos", "digits"])
def test_shapes_and_types(kind, augment, request):
    data = request.getfixturevalue(kind)
    classes = len(data.classes)
    batches = Batches(data.train, classes, 24, 16, augment=augment)
    epoch = list(batches.epoch(0))
    count = len(data.train)
    assert len(epoch) == batches.steps == (count // 16 if augment else -(-count // 16))
    for x, y, weight in epoch:
        assert x.dtype == np.uint8
        assert y.dtype == weight.dtype == np.float32
        assert x.shape == (len(y), 24, 24, 3)
        assert y.shape == (len(x), classes)
        assert np.array_equal(weight, np.ones(len(x)))
        assert np.array_equal(y.sum(axis=1), np.ones(len(x)))
    sizes = {len(x) for x, _, _ in epoch[:-1]}
    assert sizes == {16}
    assert len(epoch[-1][0]) == (16 if augment else count % 16 or 16)


def test_an_epoch_is_every_image_once_in_another_order(digits):
    batches = Batches(digits.train, 10, 8, 100)
    first = np.concatenate([x for x, _, _ in batches.epoch(0)])
    second = np.concatenate([x for x, _, _ in batches.epoch(1)])
    assert not np.array_equal(first, second)
    expected = sorted(image.tobytes() for image in digits.train.images)
    assert sorted(image.tobytes() for image in first) == expected
    assert sorted(image.tobytes() for image in second) == expected
    # Labels go with their images.
    label = {image.tobytes(): name for image, name in zip(digits.train.images, digits.train.labels, strict=True)}
    x, y, _ = next(batches.epoch(5))
    assert [label[image.tobytes()] for image in x] == y.argmax(axis=1).tolist()


def test_fewer_images_than_a_batch(photos):
    few = Split(photos.train.images[:5], photos.train.labels[:5])
    batches = Batches(few, 3, 16, 64, augment=ALL, mixup=0.2)
    assert batches.steps == 1
    ((x, y, _),) = batches.epoch(0)
    assert len(x) == len(y) == 5


@pytest.mark.parametrize("kind", ["photos", "digits"])
def test_threads_memory_and_the_past_change_nothing(kind, request):
    data = request.getfixturevalue(kind)
    options = {"seed": 3, "augment": ALL, "mixup": 0.3, "label_smoothing": 0.1}

    def make(**more) -> Batches:
        return Batches(data.train, len(data.classes), 20, 24, **options, **more)

    expected = list(make(threads=1, cache_bytes=0).epoch(2))
    for more in ({"threads": 2}, {"threads": 7}, {"cache_bytes": 20_000}, {"threads": 5, "cache_bytes": 0}):
        batches = make(**more)
        assert same(batches.epoch(2), expected)  # epoch 2 first, as after a resume
        assert same(batches.epoch(2), expected)  # and again, from memory
    batches = make()
    list(batches.epoch(0))
    next(batches.epoch(1))
    running = batches.epoch(3)
    next(running)
    assert same(batches.epoch(2), expected)  # while another is under way
    running.close()
    assert not same(batches.epoch(3), expected)
    other = Batches(data.train, len(data.classes), 20, 24, **(options | {"seed": 4}))
    assert not same(other.epoch(2), expected)


def test_neither_epochs_nor_batches_share_their_randomness():
    # One white image over and over: what is left of it shows only the augmentation.
    white = Split(np.full((128, 8, 8, 3), 255, np.uint8), np.zeros(128, np.int64))
    batches = Batches(white, 1, 8, 64, augment=Augment(crop="pad"))
    found = [x.tobytes() for number in range(3) for x, _, _ in batches.epoch(number)]
    assert len(set(found)) == len(found) == 6


def test_from_an_epoch_on_images_are_shifted_no_more_and_nothing_else_changes(digits):
    def epochs(crop: str, **more: int) -> list[list[np.ndarray]]:
        batches = Batches(digits.train, 10, 8, 64, augment=Augment(crop=crop), label_smoothing=0.1, **more)
        return [[array for batch in batches.epoch(number) for array in batch] for number in range(4)]

    shifted, framed, both = epochs("pad"), epochs("none"), epochs("pad", framed_from=2)
    for number, (ever, never, found) in enumerate(zip(shifted, framed, both, strict=True)):
        expected, other = (ever, never) if number < 2 else (never, ever)
        for array, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(array, wanted)
        assert not all(np.array_equal(array, unlike) for array, unlike in zip(found, other, strict=True))
    with pytest.raises(ValueError, match="framed_from"):
        Batches(digits.train, 10, 8, 64, augment=ALL, framed_from=2)


@pytest.mark.parametrize("augment", [None, Augment(crop="pad"), ALL])
def test_label_smoothing(digits, augment):
    for _, y, _ in islice(Batches(digits.train, 10, 8, 50, label_smoothing=0.1, augment=augment).epoch(0), 3):
        assert np.allclose(y.max(axis=1), 0.91)
        assert np.allclose(y.min(axis=1), 0.01)
        assert np.allclose(y.sum(axis=1), 1)


def test_mixup_mixes_pixels_labels_and_weights_alike():
    # Class 0 is black and class 1 white, so a pixel is the share of class 1.
    labels = (np.arange(256) % 2).astype(np.int64)
    images_ = np.repeat(labels[:, None, None, None].astype(np.uint8) * 255, 4, 1).repeat(4, 2).repeat(3, 3)
    weights = np.array([1.0, 3.0])
    batches = Batches(Split(images_, labels), 2, 4, 64, mixup=0.4, class_weights=weights, seed=1)
    shares = []
    for x, y, weight in batches.epoch(0):
        assert x.dtype == np.uint8
        assert np.all(x == x[:, :1, :1, :1])
        assert np.abs(x[:, 0, 0, 0] / 255 - y[:, 1]).max() < 0.003
        assert np.allclose(y.sum(axis=1), 1)
        assert np.allclose(weight, y @ weights, atol=1e-5)
        shares.extend(y[:, 1])
    assert np.mean([0.02 < share < 0.98 for share in shares]) > 0.2
    assert 0.35 < np.mean(shares) < 0.65


def test_mixup_with_label_smoothing_still_sums_to_one(photos):
    batches = Batches(photos.train, 3, 16, 20, augment=ALL, mixup=1.0, label_smoothing=0.2)
    for _, y, _ in batches.epoch(0):
        assert np.allclose(y.sum(axis=1), 1, atol=1e-6)
        assert y.min() > 0


def test_class_weights(digits):
    weights = np.linspace(0.5, 2, 10)
    for _, y, weight in Batches(digits.train, 10, 8, 100, class_weights=weights).epoch(0):
        assert np.allclose(weight, weights[y.argmax(axis=1)])


@pytest.mark.parametrize("kind", ["photos", "digits"])
def test_evaluation_is_in_order_and_unchanged(kind, request):
    data = request.getfixturevalue(kind)
    found = list(evaluation_batches(data.val, 32, 7))
    assert [len(x) for x, _ in found] == [7] * (len(data.val) // 7) + [len(data.val) % 7]
    assert np.array_equal(np.concatenate([labels for _, labels in found]), data.val.labels)
    x = np.concatenate([x for x, _ in found])
    assert x.dtype == np.uint8
    for image, source in zip(x, data.val.images, strict=True):
        pixels = images.decode(source, 32) if isinstance(source, Path) else source
        assert np.array_equal(image, fit(pixels, 32))


def test_evaluation_batches_can_be_gone_through_again(photos, monkeypatch):
    batches = EvaluationBatches(photos.val, 32, 5)
    assert batches.steps == -(-len(photos.val) // 5)
    first = list(batches)
    assert same(evaluation_batches(photos.val, 32, 5), first)
    monkeypatch.setattr(images, "decode", None)  # from memory now
    assert same(batches, first)


def test_memory_is_kept_within_the_budget(photos, monkeypatch):
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda *given: (decoded.append(given), decode(*given))[1])
    count = len(photos.train)
    batches = Batches(photos.train, 3, 16, 8, cache_bytes=10 * 16 * 16 * 3)
    list(batches.epoch(0))
    assert len(decoded) == count
    list(batches.epoch(1))
    assert len(decoded) == 2 * count - 10


@pytest.mark.parametrize("how", ["vanishes", "is cut short"])
def test_a_file_that_goes_bad_is_named(tmp_path, how):
    for index in range(40):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3), np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{index}.jpg"), pixels)
    data = load(tmp_path)
    victim = data.train.images[20]
    victim.unlink() if how == "vanishes" else victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(UserError, match=rf"{victim.name}: (no such file|truncated)"):
        list(Batches(data.train, 2, 16, 8, augment=ALL).epoch(0))
    with pytest.raises(UserError, match=victim.name):
        list(evaluation_batches(data.train, 16, 8))
    assert not workers()


def test_breaking_off_leaves_no_thread_behind(photos):
    batches = Batches(photos.train, 3, 64, 4, augment=ALL, threads=4)
    started = time.monotonic()
    for _ in batches.epoch(0):
        assert workers()
        break
    assert not workers()

    iterator = batches.epoch(0)
    next(iterator)
    iterator.close()
    assert not workers()

    def interrupted():
        for _ in batches.epoch(1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    caught.traceback = None
    del caught
    never_begun = batches.epoch(2)
    del never_begun
    for _ in range(200):
        if not workers():
            break
        time.sleep(0.01)
    assert not workers()
    assert time.monotonic() - started < 10


def test_it_does_not_run_ahead_without_limit(photos, monkeypatch):
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda *given: (decoded.append(given), decode(*given))[1])
    iterator = Batches(photos.train, 3, 16, 4, threads=1, cache_bytes=0).epoch(0)
    next(iterator)
    time.sleep(0.3)
    assert len(decoded) <= 5 * 4
    iterator.close()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"size": 0}, "size"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"mixup": -0.1}, "mixup"),
        ({"threads": 0}, "threads"),
        ({"classes": 9}, "labels"),
        ({"class_weights": np.ones(3)}, "class_weights"),
        ({"split": Split(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64))}, "no image"),
    ],
)
def test_wrong_arguments_are_named(digits, wrong, word):
    arguments = {"split": digits.train, "classes": 10, "size": 8, "batch_size": 4} | wrong
    with pytest.raises(ValueError, match=word):
        Batches(**arguments)


def test_some_images_are_drawn_the_same_every_time_with_their_labels():
    pixels = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1) + np.zeros((1, 2, 2, 3), np.uint8)
    for split in (Split(pixels, np.arange(50)), Split(tuple(Path(f"{n}.png") for n in range(50)), np.arange(50))):
        few = split.some(7)
        assert len(few) == 7
        assert (np.diff(few.labels) > 0).all()
        for image, label in zip(few.images, few.labels, strict=True):
            assert (image.flat[0] if isinstance(image, np.ndarray) else int(image.stem)) == label
        assert few.labels.tolist() == split.some(7).labels.tolist() != split.some(7, seed=1).labels.tolist()
        assert split.some(99).labels.tolist() == list(range(50))
