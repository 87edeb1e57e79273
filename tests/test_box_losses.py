"""What detectors learn from, against the papers' rules written out object by object."""

import numpy as np
import pytest

from mobilenets.architectures import head, network
from mobilenets.models import keras
from mobilenets.models.boxes import anchors_of, decode
from mobilenets.models.detector import detector, raw_model
from mobilenets.training.box_losses import iou, loss_of, multibox, task_aligned

pytestmark = pytest.mark.backend

CLASSES = 3
LEVELS = [(8, 8, [(0.2, 0.2), (0.35, 0.2)]), (4, 4, [(0.5, 0.5), (0.3, 0.6)])]
SQUARES = [(32, 32, [(1 / 32, 1 / 32)]), (16, 16, [(1 / 16, 1 / 16)]), (8, 8, [(1 / 8, 1 / 8)])]


def numpy(values) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), np.float64)


def tensor(values):
    return keras.ops.convert_to_tensor(np.float32(values))


def objects(seed: int, counts=(3, 1, 0, 6)) -> np.ndarray:
    """(images, 8, 5), as batches have them."""
    rng = np.random.default_rng(seed)
    made = np.zeros((len(counts), 8, 5), np.float32)
    made[..., 4] = -1
    for image, count in zip(made, counts, strict=True):
        first, sides = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.1, 0.4, (count, 2))
        image[:count, :4] = np.concatenate([first, first + sides], axis=1)
        image[:count, 4] = rng.integers(0, CLASSES, count)
    return made


def raw(anchors: np.ndarray, images: int, units: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (images, len(anchors), 4 + units)).astype(np.float32)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return common / (sum(areas) - common)


def corners(anchor: np.ndarray) -> np.ndarray:
    return np.concatenate([anchor[:2] - anchor[2:] / 2, anchor[:2] + anchor[2:] / 2])


def test_overlaps_are_those_of_the_definition():
    boxes = objects(0)[3, :6, :4]
    found = numpy(iou(tensor(boxes[:, None]), tensor(boxes[None])))
    expected = [[overlap(a, b) for b in boxes] for a in boxes]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_generalized_overlap_falls_with_the_distance():
    # arXiv 1902.09630, algorithm 1: two unit boxes, one apart, in a hull of three: 0 - (3 - 2) / 3.
    plain, generalized = iou(tensor([0, 0, 1, 1]), tensor([2, 0, 3, 1]), generalized=True)
    assert float(plain) == 0
    assert float(generalized) == pytest.approx(-1 / 3)


def by_hand_multibox(objects: np.ndarray, raw: np.ndarray, anchors: np.ndarray) -> float:
    """SSD, section 2.2: matching, smooth L1, cross-entropy with three negatives for each positive."""
    total, matches = 0.0, 0
    for boxes, said in zip(objects.astype(np.float64), raw.astype(np.float64), strict=True):
        real = boxes[boxes[:, 4] >= 0]
        table = np.array([[overlap(box, corners(anchor)) for anchor in anchors] for box in real])
        owner = np.full(len(anchors), -1)
        if len(real):
            best = table.argmax(axis=0)
            owner = np.where(table.max(axis=0) >= 0.5, best, -1)
            for index in reversed(range(len(real))):
                owner[table[index].argmax()] = index
        shares = np.exp(said[:, 4:]) / np.exp(said[:, 4:]).sum(axis=1, keepdims=True)
        surprise = []
        for anchor, one, share, numbers in zip(anchors, owner, shares, said[:, :4], strict=True):
            surprise.append(-np.log(share[0 if one < 0 else int(real[one, 4]) + 1]))
            if one < 0:
                continue
            left, top, right, bottom = real[one, :4]
            wanted = np.array(
                [
                    ((left + right) / 2 - anchor[0]) / anchor[2] / 0.1,
                    ((top + bottom) / 2 - anchor[1]) / anchor[3] / 0.1,
                    np.log((right - left) / anchor[2]) / 0.2,
                    np.log((bottom - top) / anchor[3]) / 0.2,
                ]
            )
            off = np.abs(numbers - wanted)
            total += np.where(off < 1, off**2 / 2, off - 0.5).sum()
        surprise = np.array(surprise)
        positive = owner >= 0
        matches += positive.sum()
        total += surprise[positive].sum()
        total += np.sort(surprise[~positive])[::-1][: max(3, 3 * positive.sum())].sum()
    return total / matches


def test_the_loss_of_ssd_is_that_of_the_paper():
    anchors = anchors_of(LEVELS)
    told, said = objects(0), raw(anchors, 4, CLASSES + 1)
    found = numpy(multibox(tensor(told), tensor(said), anchors))
    assert found.shape == (4,)
    assert found.mean() == pytest.approx(by_hand_multibox(told, said, anchors), rel=1e-4)


def by_hand_task_aligned(objects: np.ndarray, raw: np.ndarray, anchors: np.ndarray) -> float:
    """TOOD, section 3.2: the best aligned locations inside an object learn it; cross-entropy and GIoU."""
    total, weight = 0.0, 0.0
    for boxes, said in zip(objects.astype(np.float64), raw, strict=True):
        predicted = np.asarray(
            keras.ops.convert_to_numpy(decode("distances", tensor(said[:, :4]), tensor(anchors))), np.float64
        )
        logits = said[:, 4:].astype(np.float64)
        scores = 1 / (1 + np.exp(-logits))
        real = boxes[boxes[:, 4] >= 0]
        fits = np.array([[overlap(box, found) for found in predicted] for box in real]).reshape(len(real), len(anchors))
        steps = anchors[:, 2:]
        aligned = np.zeros_like(fits)
        for index, box in enumerate(real):
            sides = box[2:4] - box[:2]
            inside = (np.abs((box[:2] + box[2:4]) / 2 - anchors[:, :2]) <= np.maximum(sides, steps) / 2).all(axis=1)
            longer = (sides / steps).max(axis=1)
            inside &= ((longer >= 4) | (steps == steps.min()).all(axis=1)) & (
                (longer <= 8) | (steps == steps.max()).all(axis=1)
            )
            metric = scores[:, int(box[4])] ** 0.5 * fits[index] ** 4 * inside
            chosen = np.argsort(-metric)[:10]
            aligned[index, chosen] = metric[chosen]
        told = np.zeros_like(scores)
        for place in range(len(anchors)):
            taken = np.flatnonzero(aligned[:, place] > 0)
            for index in taken:
                if index != taken[np.argmax(fits[taken, place])]:
                    aligned[index, place] = 0
        for index, box in enumerate(real):
            places = np.flatnonzero(aligned[index] > 0)
            if not len(places):
                continue
            quality = aligned[index, places] / aligned[index, places].max() * fits[index, places].max()
            for place, good in zip(places, quality, strict=True):
                told[place, int(box[4])] = good
                weight += good
                first, second = box[:4], predicted[place]
                low, high = np.minimum(first, second), np.maximum(first, second)
                hull = (high[2] - low[0]) * (high[3] - low[1])
                areas = [(one[2] - one[0]) * (one[3] - one[1]) for one in (first, second)]
                union = sum(areas) / (1 + fits[index, place])
                total += 2 * good * (1 - fits[index, place] + (hull - union) / hull)
        entropy = -told * np.log(scores) - (1 - told) * np.log(1 - scores)
        total += entropy.sum()
    return total / max(weight, 1)


def test_the_loss_of_an_anchor_free_head_is_that_of_the_paper():
    anchors = anchors_of(SQUARES)
    told, said = objects(2), raw(anchors, 4, CLASSES)
    found = numpy(task_aligned(tensor(told), tensor(said), anchors))
    assert found.shape == (4,)
    assert found.mean() == pytest.approx(by_hand_task_aligned(told, said, anchors), rel=1e-3)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0.5, 0.5, 0.51, 0.51), 0),  # smaller than a step of the finest map
        ((0.3, 0.3, 0.54, 0.4), 0),
        ((0.3, 0.3, 0.56, 0.4), 1),
        ((0.3, 0.3, 0.301, 0.7), 1),  # so narrow that no location's centre lies in it
        ((0.1, 0.1, 0.8, 0.8), 2),
        ((0.0, 0.0, 1.0, 1.0), 2),
    ],
)
def test_an_object_is_learned_on_the_map_for_its_size(box, place):
    # Left to choose among all maps, the finest soon had every object.
    anchors = anchors_of(SQUARES)
    told = np.float32([[[*box, 1]]])
    said = raw(anchors, 1, CLASSES)
    loss = numpy(task_aligned(tensor(told), tensor(said), anchors))
    sizes = [height * width for height, width, _ in SQUARES]
    learned = []
    for start, count in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        moved = said.copy()
        moved[0, start : start + count, :4] -= 0.05  # where those of one map say that it is
        learned.append(float(abs(numpy(task_aligned(tensor(told), tensor(moved), anchors)) - loss)[0]) > 1e-6)
    assert learned == [index == place for index in range(len(SQUARES))]


@pytest.mark.parametrize("loss", [multibox, task_aligned])
def test_what_is_ignored_is_neither_object_nor_background(loss):
    anchors = anchors_of(LEVELS)
    told, said = objects(0, counts=(1,)), raw(anchors, 1, CLASSES + (loss is multibox))
    inside = (np.abs(anchors[:, :2] - 0.75) < 0.2).all(axis=1) & (anchors[:, 2:].max(axis=1) < 0.3)
    told[0, 0, :4] = 0.05, 0.05, 0.35, 0.35
    assert inside.sum() > 3

    def difference(rows: np.ndarray) -> float:
        changed = said.copy()
        changed[0, inside, 4:] += np.random.default_rng(0).normal(0, 3, changed[0, inside, 4:].shape)
        losses = [numpy(loss(tensor(rows), tensor(values), anchors)) for values in (said, changed)]
        return float(abs(losses[0] - losses[1])[0])

    assert difference(told) > 1e-3
    told[0, 1] = 0.5, 0.5, 1.0, 1.0, -2
    assert difference(told) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("loss", [multibox, task_aligned])
def test_rows_that_are_not_used_change_nothing(loss):
    anchors = anchors_of(LEVELS)
    told, said = objects(3), raw(anchors, 4, CLASSES + (loss is multibox))
    longer = np.concatenate([told, np.tile(np.float32([0, 0, 0, 0, -1]), (4, 8, 1))], axis=1)
    found = [numpy(loss(tensor(rows), tensor(said), anchors)) for rows in (told, longer)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["ssdlite", "anchor-free"])
def test_a_batch_without_any_object_has_a_loss_and_gradients(name):
    model = detector(network("v1"), head(name), (32, 32, 3), 2, 0.125)
    networks = raw_model(model)
    networks.compile(
        optimizer=keras.optimizers.SGD(1e-3), loss=loss_of(model), jit_compile=keras.backend.backend() == "jax"
    )
    nothing = np.tile(np.float32([0, 0, 0, 0, -1]), (2, 8, 1))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    before = [weight.copy() for weight in model.get_weights()]
    assert np.isfinite(networks.train_on_batch(images, nothing)).all()
    after = model.get_weights()
    assert all(np.isfinite(values).all() for values in after)
    assert any((first != second).any() for first, second in zip(before, after, strict=True))
