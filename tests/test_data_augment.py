"""Augmentation, measured against Pillow where Pillow has the same operation."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mobilenets.data.augment import Augment, apply
from mobilenets.data.randaugment import OPERATIONS, randaugment

SIZE = 24


def pictures(count=8, size=SIZE, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 230, (count, 5, 5, 3), np.uint8)
    return np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in coarse])


def applied(images, augment: Augment, seed=0, size=SIZE) -> np.ndarray:
    out = np.full((len(images), size, size, 3), 77, np.uint8)
    before = [image.copy() for image in images]
    apply(images, augment, np.random.default_rng(seed), out)
    assert all(np.array_equal(image, old) for image, old in zip(images, before, strict=True))
    return out


def test_nothing():
    assert np.array_equal(applied(pictures(), Augment(flip=False)), pictures())


def test_flip_mirrors_about_half():
    images = pictures(400)
    out = applied(images, Augment())
    kept = [np.array_equal(one, image) for one, image in zip(out, images, strict=True)]
    mirrored = [np.array_equal(one, image[:, ::-1]) for one, image in zip(out, images, strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_pad_shifts_by_whole_pixels_and_fills_with_black():
    images = pictures(300)
    out = applied(images, Augment(flip=False, crop="pad", crop_padding=3))
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    found = set()
    for one, image in zip(out, padded, strict=True):
        places = [(y, x) for y in range(7) for x in range(7) if np.array_equal(one, image[y : y + SIZE, x : x + SIZE])]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 49


def test_pad_larger_than_the_image():
    assert applied(pictures(), Augment(crop="pad", crop_padding=1000)).shape == (8, SIZE, SIZE, 3)


def test_resized_takes_images_of_any_shape():
    rng = np.random.default_rng(1)
    shapes = [(30, 40), (40, 30), (5, 200), (1, 1), (24, 24)] * 20
    images = [np.full((*shape, 3), rng.integers(0, 256), np.uint8) for shape in shapes]
    out = applied(images, Augment(crop="resized"))
    assert all(np.all(one == image[0, 0]) for one, image in zip(out, images, strict=True))


def test_resized_keeps_the_share_of_the_area_asked_for():
    # Values rise from left to right and from top to bottom, so their spread tells how much is left.
    ramp = np.linspace(0, 250, 120)
    image = np.stack([*np.meshgrid(ramp, ramp), np.zeros((120, 120))], -1).astype(np.uint8)
    out = applied([image] * 300, Augment(flip=False, crop="resized", crop_scale=(0.25, 0.49))).astype(float)
    width = np.ptp(out[..., 0], axis=(1, 2)) / 250
    height = np.ptp(out[..., 1], axis=(1, 2)) / 250
    area = width * height
    assert 0.2 < area.min() < 0.3
    assert 0.43 < area.max() < 0.5
    assert 0.7 < (width / height).min() < 0.85
    assert 1.18 < (width / height).max() < 1.4
    assert out[:, 0, 0, 0].min() < 5  # corners are reached
    assert out[:, -1, -1, 1].max() > 245


def test_erase():
    images = np.full((400, SIZE, SIZE, 3), 100, np.uint8)
    out = applied(images, Augment(flip=False, erase=0.25))
    share = np.any(out != 100, axis=-1).mean(axis=(1, 2))
    assert 60 < np.count_nonzero(share) < 140
    assert share.max() < 0.25


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "centre"},
        {"crop_padding": -1},
        {"crop_scale": (0, 1)},
        {"crop_scale": (0.8, 0.5)},
        {"randaugment": -1},
        {"magnitude": 11},
        {"erase": 1.5},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augment(**wrong)


def test_randaugment_draws_everything_from_the_generator():
    def run(seed: int) -> np.ndarray:
        images = pictures(200)
        randaugment(images, 2, 9, np.random.default_rng(seed))
        return images

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))
    changed = np.any(run(1) != pictures(200), axis=(1, 2, 3)).mean()
    assert changed > 0.9


def test_there_are_the_fourteen_operations_of_the_paper():
    assert len(OPERATIONS) == 14
    for name, operation in OPERATIONS.items():
        for image in (pictures(1)[0], np.zeros((1, 1, 3), np.uint8), np.full((7, 3, 3), 200, np.uint8)):
            before = image.copy()
            for strength in (0.0, 0.5, 1.0):
                for sign in (-1, 1):
                    result = operation(image, strength, sign)
                    assert result.shape == image.shape, name
                    assert result.dtype == np.uint8, name
            assert np.array_equal(image, before), name


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"autocontrast", "equalize"}))
def test_no_strength_changes_nothing(name):
    image = pictures(1)[0]
    assert np.abs(OPERATIONS[name](image, 0.0, 1).astype(int) - image).max() <= 1


FACTOR = {sign: 1 + 0.9 * 0.6 * sign for sign in (-1, 1)}
PILLOW = {
    "autocontrast": lambda image, sign: ImageOps.autocontrast(image),
    "equalize": lambda image, sign: ImageOps.equalize(image),
    "solarize": lambda image, sign: ImageOps.solarize(image, 103),  # 256 - 0.6 * 256 = 102.4
    "posterize": lambda image, sign: ImageOps.posterize(image, 6),  # 8 - round(0.6 * 4)
    "color": lambda image, sign: ImageEnhance.Color(image).enhance(FACTOR[sign]),
    "contrast": lambda image, sign: ImageEnhance.Contrast(image).enhance(FACTOR[sign]),
    "brightness": lambda image, sign: ImageEnhance.Brightness(image).enhance(FACTOR[sign]),
    "sharpness": lambda image, sign: ImageEnhance.Sharpness(image).enhance(FACTOR[sign]),
}


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_agree_with_pillow(name, sign):
    for image in pictures(4, 40):
        ours = OPERATIONS[name](image, 0.6, sign).astype(int)
        theirs = np.asarray(PILLOW[name](Image.fromarray(image), sign)).astype(int)
        inner = np.s_[1:-1, 1:-1]  # Pillow leaves the border unsharpened
        assert np.abs(ours[inner] - theirs[inner]).max() <= 2


@pytest.mark.parametrize("sign", [-1, 1])
def test_translations_move_whole_pixels(sign):
    image = pictures(1, 20)[0]
    right = OPERATIONS["translate_x"](image, 0.5, sign)  # 0.15 of 20 pixels
    expected = np.full_like(image, 128)
    if sign > 0:
        expected[:, 3:] = image[:, :-3]
    else:
        expected[:, :-3] = image[:, 3:]
    assert np.array_equal(right, expected)
    turned = OPERATIONS["translate_y"](image.swapaxes(0, 1).copy(), 0.5, sign)
    assert np.array_equal(turned.swapaxes(0, 1), expected)


def test_rotation_and_shear_keep_the_centre():
    image = np.full((41, 41, 3), 50, np.uint8)
    image[18:23, 18:23] = 200
    for name in ("rotate", "shear_x", "shear_y"):
        for sign in (-1, 1):
            moved = OPERATIONS[name](image, 1.0, sign)
            assert (moved[20, 20] == 200).all(), name
            assert (moved[0, 0] == 128).all() or (moved[0, -1] == 128).all(), name
    theirs = np.asarray(Image.fromarray(image).rotate(-30, Image.Resampling.BILINEAR, fillcolor=(128,) * 3), int)
    assert np.abs(OPERATIONS["rotate"](image, 1.0, 1).astype(int) - theirs).mean() < 2
