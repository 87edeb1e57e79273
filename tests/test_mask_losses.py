"""The losses of segmenters, against the rules written out pixel by pixel; and the schedule that DeepLab learns by."""

import numpy as np
import pytest

from mobilenets.data.masks import IGNORE, MaskSplit, pixels_of
from mobilenets.models import keras
from mobilenets.training.mask_losses import class_weights, loss_of
from mobilenets.training.optimizer import make_optimizer
from mobilenets.training.settings import Settings

CLASSES = 4


def made(seed: int = 0, absent: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Masks with some of it ignored, and logits."""
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, CLASSES, (3, 6, 5)).astype(np.uint8)
    masks[masks == absent] = 0
    masks[rng.random(masks.shape) < 0.3] = IGNORE
    return masks, rng.normal(0, 2, (3, 6, 5, CLASSES)).astype(np.float32)


def computed(masks, logits, **options) -> float:
    losses = loss_of(CLASSES, **options)(keras.ops.convert_to_tensor(masks), keras.ops.convert_to_tensor(logits))
    assert tuple(losses.shape) == (len(masks),)
    return float(np.mean(keras.ops.convert_to_numpy(losses)))


def cross_entropy(masks, logits, weights=None) -> float:
    total = counted = 0.0
    for place in np.argwhere(masks != IGNORE):
        label, values = int(masks[tuple(place)]), logits[tuple(place)].astype(np.float64)
        weight = 1.0 if weights is None else float(weights[label])
        total += weight * (np.log(np.exp(values).sum()) - values[label])
        counted += weight
    return total / counted


def dice(masks, logits) -> float:
    said = np.exp(logits.astype(np.float64))
    said /= said.sum(axis=-1, keepdims=True)
    known = masks != IGNORE
    scores = []
    for label in range(CLASSES):
        told = known & (masks == label)
        if told.any():
            scores.append(2 * said[..., label][told].sum() / (said[..., label][known].sum() + told.sum()))
    return 1 - np.mean(scores)


@pytest.mark.backend
def test_cross_entropy_is_the_mean_over_what_is_not_ignored():
    masks, logits = made()
    assert computed(masks, logits) == pytest.approx(cross_entropy(masks, logits), rel=1e-5)


def test_weights_of_classes_weigh_their_pixels():
    masks, logits = made()
    weights = np.float32([0.1, 1, 2, 5])
    assert computed(masks, logits, weights=weights) == pytest.approx(cross_entropy(masks, logits, weights), rel=1e-5)


@pytest.mark.backend
@pytest.mark.parametrize("absent", [None, 2])
def test_dice_is_of_the_classes_that_occur(absent):
    masks, logits = made(absent=absent)
    expected = 0.7 * cross_entropy(masks, logits) + 0.3 * dice(masks, logits)
    assert computed(masks, logits, dice=0.3) == pytest.approx(expected, rel=1e-5)
    assert computed(masks, logits, dice=1.0) == pytest.approx(dice(masks, logits), rel=1e-5)


@pytest.mark.backend
def test_nothing_but_ignored_pixels_costs_nothing():
    masks, logits = made()
    masks[:] = IGNORE
    assert computed(masks, logits, dice=0.5) == pytest.approx(0.5)  # Dice of no class is 0
    assert computed(masks, logits) == 0


@pytest.mark.backend
def test_smaller_logits_are_resized_as_the_model_does_it():
    masks, _ = made()
    small = np.random.default_rng(1).normal(0, 2, (3, 3, 3, CLASSES)).astype(np.float32)
    large = keras.ops.convert_to_numpy(keras.layers.Resizing(6, 5)(small))
    assert computed(masks, small) == pytest.approx(cross_entropy(masks, large), rel=1e-5)


def test_what_is_right_and_sure_costs_next_to_nothing():
    masks, _ = made()
    sure = 50 * np.eye(CLASSES, dtype=np.float32)[np.where(masks == IGNORE, 0, masks)]
    assert computed(masks, sure, dice=0.5) < 1e-6
    assert computed(masks, -sure, dice=0.5) > 1


def test_rare_classes_weigh_more():
    mask = np.zeros((10, 10), np.uint8)
    mask[0, :4], mask[1, :2] = 1, IGNORE
    counts = np.stack([pixels_of(mask, 3)])
    split = MaskSplit(np.zeros((1, 10, 10, 3), np.uint8), np.full((1, 2), 10), mask[None], counts)
    weights = class_weights(split)
    shares = np.array([94, 4, 0]) / 98
    expected = 1 / np.log(1.02 + shares)
    np.testing.assert_allclose(weights, expected / (expected * shares).sum(), rtol=1e-5)
    assert weights[2] > weights[1] > weights[0]
    assert (weights * shares).sum() == pytest.approx(1)


@pytest.mark.backend
def test_the_schedule_poly_falls_as_deeplabs():
    settings = Settings(epochs=10, warmup_epochs=1, learning_rate=0.4, schedule="poly")
    variables = [keras.Variable(np.zeros(3, np.float32), name="kernel")]
    optimizer = make_optimizer(settings, variables, steps=5)
    found = []
    for step in range(51):
        optimizer.iterations.assign(step)
        found.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    expected = [0.4 * min(step / 5, 1) * min(1, (50 - step) / 45) ** 0.9 for step in range(51)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
