"""Metrics of segmenters against hand-counted cases, brute force, scikit-learn and torchmetrics."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, precision_recall_fscore_support

from mobilenets.data.masks import IGNORE
from mobilenets.evaluation.formats import SPACE
from mobilenets.evaluation.segmentation import TOLERANCE, Tally, boundary_f, rows_masks, worst_images

RATES = ("miou", "precision", "recall", "f1")


def maps(images=6, classes=5, seed=0, ignored=0.1, shape=None):
    """Random maps of several sizes; the last class is nowhere, the one before only found."""
    draw = np.random.default_rng(seed)
    truths, founds = [], []
    for _ in range(images):
        size = shape or tuple(draw.integers(3, 40, 2))
        truth = draw.integers(0, classes - 2, size).astype(np.uint8)
        found = np.where(draw.random(size) < 0.6, truth, draw.integers(0, classes - 1, size)).astype(np.uint8)
        truth[draw.random(size) < ignored] = IGNORE
        truths.append(truth)
        founds.append(found)
    return truths, founds


def tallied(truths, founds, classes):
    tally = Tally([f"class {index}" for index in range(classes)])
    for truth, found in zip(truths, founds, strict=True):
        tally.add(truth, found)
    return tally


def measured(truth, found, classes):
    """The metrics of one image, given as a list of rows or an array."""
    return tallied([np.array(truth, np.uint8)], [np.array(found, np.uint8)], classes).metrics()


def flat(truths, founds):
    """All pixels that count, in two rows."""
    true, found = (np.concatenate([each.ravel() for each in every]) for every in (truths, founds))
    return true[true != IGNORE], found[true != IGNORE]


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn(seed):
    truths, founds = maps(seed=seed)
    metrics = tallied(truths, founds, 5).metrics()
    true, found = flat(truths, founds)
    present = np.unique([true, found])
    assert present.tolist() == [0, 1, 2, 3]
    expected = precision_recall_fscore_support(true, found, labels=present, average="macro", zero_division=0)[:3]
    expected = (jaccard_score(true, found, labels=present, average="macro", zero_division=0), *expected)
    np.testing.assert_allclose([metrics[name] for name in RATES], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics["pixel_accuracy"], accuracy_score(true, found), rtol=0, atol=1e-12)
    each = precision_recall_fscore_support(true, found, labels=present, zero_division=0)
    each = [jaccard_score(true, found, labels=present, average=None, zero_division=0), *each]
    for rates, name in zip(each, ("iou", "precision", "recall", "f1", "pixels"), strict=True):
        np.testing.assert_allclose([row[name] for row in metrics["per_class"][:4]], rates, rtol=0, atol=1e-12)
    assert metrics["confusion"] == confusion_matrix(true, found, labels=range(5)).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_numpy(seed):
    truths, founds = maps(seed=seed, ignored=0.3)
    metrics = tallied(truths, founds, 5).metrics()
    true, found = flat(truths, founds)
    assert metrics["images"] == 6
    assert metrics["pixels"] == len(true)
    assert metrics["ignored"] == pytest.approx(1 - len(true) / sum(each.size for each in truths))
    ious = []
    for index, row in enumerate(metrics["per_class"]):
        either = ((true == index) | (found == index)).sum()
        if either:
            ious.append(((true == index) & (found == index)).sum() / either)
            assert row["iou"] == pytest.approx(ious[-1])
        assert row["share"] == pytest.approx((true == index).mean())
        assert row["found_share"] == pytest.approx((found == index).mean())
    assert len(ious) == 4
    assert metrics["miou"] == pytest.approx(np.mean(ious))


@pytest.mark.peers
def test_equals_torchmetrics():
    classification = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    truths, founds = maps()
    true, found = (torch.from_numpy(each.astype(np.int64)) for each in flat(truths, founds))
    metrics = tallied(truths, founds, 4).metrics()
    about = {"num_classes": 4, "average": "macro"}
    for name, measure in (
        ("miou", classification.multiclass_jaccard_index),
        ("precision", classification.multiclass_precision),
        ("recall", classification.multiclass_recall),
        ("f1", classification.multiclass_f1_score),
    ):
        assert metrics[name] == pytest.approx(float(measure(found, true, **about)), abs=1e-6)


def test_boundaries_may_be_left_out():
    truths, founds = maps()
    whole, quick = tallied(truths, founds, 5).metrics(), Tally([f"class {index}" for index in range(5)], False)
    for truth, found in zip(truths, founds, strict=True):
        quick.add(truth, found)
    metrics = quick.metrics()
    assert [rates.pop("boundary_f") for rates in (metrics, *metrics["per_class"])] == [None] * 6
    assert None not in [rates.pop("boundary_f") for rates in (whole, *whole["per_class"][:4])]
    del whole["per_class"][4]["boundary_f"]
    assert metrics == whole


def test_a_case_counted_by_hand():
    truth = [[0, 0, 0, 1], [0, 0, 1, 1], [2, 2, 255, 255]]
    found = [[0, 0, 1, 1], [0, 0, 1, 0], [2, 0, 1, 2]]
    metrics = measured(truth, found, 4)
    assert metrics["confusion"] == [[4, 1, 0, 0], [1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert metrics["pixels"] == 10
    assert metrics["ignored"] == pytest.approx(2 / 12)
    assert metrics["pixel_accuracy"] == 0.7
    assert metrics["miou"] == pytest.approx((4 / 7 + 2 / 4 + 1 / 2) / 3)
    assert metrics["precision"] == pytest.approx((4 / 6 + 2 / 3 + 1) / 3)
    assert metrics["recall"] == pytest.approx((4 / 5 + 2 / 3 + 1 / 2) / 3)
    assert metrics["f1"] == pytest.approx((8 / 11 + 4 / 6 + 2 / 3) / 3)
    assert metrics["per_class"][3] == {
        **{"class": "class 3", "iou": None, "precision": None, "recall": None, "f1": None, "boundary_f": None},
        **{"pixels": 0, "share": 0.0, "found_share": 0.0},
    }


def test_perfect_and_all_wrong():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    metrics = measured(truth, truth, 2)
    assert [metrics[name] for name in (*RATES, "pixel_accuracy", "boundary_f")] == [1.0] * 6
    metrics = measured(truth, 1 - truth, 2)
    assert [metrics[name] for name in (*RATES, "pixel_accuracy")] == [0.0] * 5
    # The line between the two classes is the same, and that of each class a pixel beside the other's.
    assert metrics["boundary_f"] == 1.0
    metrics = measured(truth, np.full_like(truth, 2), 3)
    assert metrics["boundary_f"] == metrics["per_class"][1]["boundary_f"] == 0.0
    assert metrics["per_class"][2]["boundary_f"] is None  # all of the image, and so without a boundary


def test_a_class_that_is_nowhere_but_found_counts_as_0():
    metrics = measured([[0, 0, 0, 0]], [[0, 0, 0, 1]], 3)
    assert metrics["miou"] == pytest.approx((3 / 4 + 0) / 2)
    assert metrics["recall"] == pytest.approx((3 / 4 + 0) / 2)
    assert [row["iou"] for row in metrics["per_class"]] == [0.75, 0.0, None]


def test_what_is_found_where_all_is_ignored_does_not_count():
    metrics = measured([[0, 0, 255, 255]], [[0, 0, 1, 1]], 2)
    assert metrics["miou"] == metrics["pixel_accuracy"] == 1.0
    assert metrics["per_class"][1]["iou"] is None


@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_only_ignored_pixels(shape):
    tally = Tally(["a", "b"])
    tally.add(np.full(shape, IGNORE, np.uint8), np.zeros(shape, np.uint8))
    metrics = tally.metrics()
    assert metrics["ignored"] == 1.0
    assert metrics["pixels"] == 0
    assert {metrics[name] for name in (*RATES, "pixel_accuracy", "boundary_f")} == {None}
    assert worst_images(tally) == []
    assert dict(rows_masks(metrics))["mIoU"] == "–"
    json.dumps(metrics, allow_nan=False)


def test_one_pixel_and_one_class():
    for found, score in ((0, 1.0), (1, 0.0)):
        metrics = measured([[0]], [[found]], 2)
        assert metrics["miou"] == metrics["pixel_accuracy"] == score
        assert metrics["boundary_f"] is None
    metrics = measured(np.zeros((9, 9)), np.zeros((9, 9)), 1)
    assert metrics["miou"] == metrics["f1"] == 1.0
    assert metrics["boundary_f"] is None


def test_no_images():
    with pytest.raises(ValueError, match="no images"):
        Tally(["a"]).metrics()


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), "one size"),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.int64), "found must be uint8"),
        (np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), np.uint8), "truth must be uint8"),
        (np.zeros((0, 2), np.uint8), np.zeros((0, 2), np.uint8), "truth must be uint8"),
        (np.full((2, 2), 3, np.uint8), np.zeros((2, 2), np.uint8), "classes must be 0..1; truth has up to 3"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), IGNORE, np.uint8), "found up to 255"),
        (np.full((2, 2), IGNORE, np.uint8), np.full((2, 2), 2, np.uint8), "found up to 2"),
    ],
)
def test_what_is_no_map_is_told(truth, found, message):
    tally = Tally(["a", "b"])
    with pytest.raises(ValueError, match=message):
        tally.add(truth, found)
    assert tally.scores == []  # nothing was counted


def test_classes_must_fit_8_bits():
    for count in (0, 256):
        with pytest.raises(ValueError, match="1 to 255"):
            Tally(["x"] * count)


def test_all_255_classes():
    truth = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = truth.copy()
    found[15, 15] = 254  # where it is ignored
    metrics = tallied([truth], [found], 255).metrics()
    assert metrics["miou"] == metrics["boundary_f"] == 1.0
    assert "confusion" not in metrics
    assert metrics["confusion_pairs"] == [[index, index, 1] for index in range(255)]


def test_metrics_are_plain_numbers():
    truths, founds = maps()
    metrics = tallied(truths, founds, 5).metrics()
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def distances(own, other):
    """From each pixel of one set of (row, column) to the nearest of another."""
    if not len(other):
        return np.full(len(own), np.inf)
    return np.sqrt(((own[:, None] - other[None]) ** 2).sum(axis=-1)).min(axis=1)


def outline(map_, label):
    """Pixels of a class next to another one that is known, by looking at every pixel."""
    height, width = map_.shape
    found = []
    for row, column in np.argwhere(map_ == label):
        for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= y < height and 0 <= x < width and map_[y, x] not in (label, IGNORE):
                found.append((row, column))
                break
    return np.array(found).reshape(-1, 2)


def by_brute_force(truth, found, classes):
    """F of each class, NaN without a boundary."""
    reach = max(1, TOLERANCE * np.hypot(*truth.shape))
    found = np.where(truth == IGNORE, IGNORE, found)
    scores = []
    for label in range(classes):
        true, seen = outline(truth, label), outline(found, label)
        if not len(true) + len(seen):
            scores.append(np.nan)
        elif not len(true) or not len(seen):
            scores.append(0)
        else:
            recall, precision = (distances(true, seen) <= reach).mean(), (distances(seen, true) <= reach).mean()
            scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    return np.array(scores)


def blobs(shape, classes, seed, coarse=8):
    draw = np.random.default_rng(seed)
    small = draw.integers(0, classes, [side // coarse + 1 for side in shape])
    return np.kron(small, np.ones((coarse, coarse), int))[: shape[0], : shape[1]].astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "classes", "shift"),
    [((40, 40), 3, 1), ((40, 60), 12, 2), ((1, 50), 3, 1), ((170, 330), 20, 3), ((100, 300), 4, 3)],
)
def test_boundaries_equal_all_pairs_of_pixels(shape, classes, shift):
    truth = blobs(shape, classes, 0, 20 if shape[0] >= 100 else 8)
    found = np.roll(truth, (shift if shape[0] > 1 else 0, shift), (0, 1))
    scattered = np.random.default_rng(1).random(shape) < 0.01
    found[scattered] = np.random.default_rng(2).integers(0, classes + 1, scattered.sum())
    score, known = boundary_f(truth, found, classes + 1)
    expected = by_brute_force(truth, found, classes + 1)
    np.testing.assert_array_equal(known, ~np.isnan(expected))
    np.testing.assert_allclose(score, np.nan_to_num(expected), rtol=0, atol=1e-12)
    assert len(np.unique(score.round(3))) > 1  # a case that says something


def test_boundaries_of_noise_equal_all_pairs_of_pixels():
    draw = np.random.default_rng(0)
    for _ in range(20):
        shape = draw.integers(1, 12, 2)
        truth, found = draw.integers(0, 4, (2, *shape)).astype(np.uint8)
        score, known = boundary_f(truth, found, 5)
        expected = by_brute_force(truth, found, 5)
        np.testing.assert_array_equal(known, ~np.isnan(expected))
        np.testing.assert_allclose(score, np.nan_to_num(expected), rtol=0, atol=1e-12)


def square(size=200, at=60, side=80):
    found = np.zeros((size, size), np.uint8)
    found[at : at + side, at : at + side] = 1
    return found


def test_boundary_of_a_shifted_square():
    truth = square()  # the tolerance is 2.12 pixels
    assert boundary_f(truth, square(at=61), 2)[0].tolist() == [1, 1]
    assert boundary_f(truth, square(at=62), 2)[0].tolist() == pytest.approx([1, 1], abs=0.03)  # but for the corners
    score = boundary_f(truth, square(at=65), 2)[0]
    # Two sides of each lie along the other's, but for 5 pixels; what is near where they cross counts as well.
    np.testing.assert_allclose(score, by_brute_force(truth, square(at=65), 2), rtol=0, atol=1e-12)
    assert (score < 0.1).all()
    assert measured(truth, square(at=61), 2)["miou"] < 1
    # In an image of more pixels, 5 of them are within the tolerance.
    assert boundary_f(square(1000), square(1000, at=65), 2)[0].tolist() == [1, 1]


def test_the_border_of_an_image_is_no_boundary():
    truth = np.zeros((20, 20), np.uint8)
    assert boundary_f(truth, truth, 1)[1].tolist() == [False]
    found = truth.copy()
    found[:, 10:] = 1
    score, known = boundary_f(truth, found, 2)
    assert known.tolist() == [True, True]
    assert score.tolist() == [0, 0]


def test_boundary_in_what_is_ignored_does_not_count():
    truth, found = np.zeros((2, 100, 100), np.uint8)
    truth[:, :40] = found[:, :40] = 1
    truth[20:80, 60:] = IGNORE
    found[35:65, 75:] = 1
    assert boundary_f(truth, found, 2)[0].tolist() == [1, 1]
    truth[20:80, 60:] = 0
    assert (boundary_f(truth, found, 2)[0] < 0.8).all()


def test_boundary_beside_ignored_pixels_equals_brute_force():
    """Where ignored areas are too wide to close, and nothing changes at their rims."""
    draw = np.random.default_rng(3)
    truth = blobs((60, 60), 3, 4, coarse=20)
    truth[25:35, 25:35] = IGNORE  # 1 pixel is all that grows in
    found = np.where(draw.random(truth.shape) < 0.03, draw.integers(0, 3, truth.shape), truth).astype(np.uint8)
    found[truth == IGNORE] = 2
    grown = truth.copy()
    grown[25:35, 25:35] = truth[24, 24]
    grown[26:34, 26:34] = IGNORE
    assert len({truth[24, 24], truth[24, 35], truth[35, 24], truth[35, 35]}) == 1
    np.testing.assert_allclose(
        boundary_f(truth, found, 3)[0], np.nan_to_num(by_brute_force(grown, found, 3)), atol=1e-12
    )


def test_an_ignored_rim_hides_the_boundary_within():
    """VOC ignores 5 pixels around its objects: nothing would be left to measure."""
    truth = square(400, at=100, side=200)  # the tolerance is 4.2 pixels
    perfect, ring = truth.copy(), truth.copy()
    ring[97:303, 97:303] = IGNORE
    ring[102:298, 102:298] = 1
    score, known = boundary_f(ring, perfect, 2)
    assert known.all()
    assert (score > 0.99).all()
    assert (boundary_f(ring, square(400, at=112, side=200), 2)[0] < 0.2).all()
    assert (boundary_f(ring, np.zeros_like(truth), 2)[0] == 0).all()


def test_boundaries_are_averaged_over_the_images_that_have_some():
    tally = Tally(["ground", "square", "nowhere"])
    empty = np.zeros((200, 200), np.uint8)
    for truth, found in ((square(), square()), (square(), empty), (empty, square()), (empty, empty)):
        tally.add(truth, found)
    metrics = tally.metrics()
    rows = metrics["per_class"]
    assert [row["boundary_f"] for row in rows] == [pytest.approx(1 / 3), pytest.approx(1 / 3), None]
    assert metrics["boundary_f"] == pytest.approx(1 / 3)


def test_worst_images():
    tally = Tally(["ground", "square"])
    empty = np.zeros((200, 200), np.uint8)
    speck = empty.copy()
    speck[:2, :2] = 1
    pairs = [(square(), square()), (square(), empty), (square(), square(at=65)), (empty, speck)]
    for truth, found in [*pairs, (np.full_like(empty, IGNORE), empty), pairs[1]]:
        tally.add(truth, found)
    assert tally.scores[0] == 1
    assert tally.scores[1] == pytest.approx((1 - 80**2 / 200**2 + 0) / 2)
    assert tally.scores[3] == pytest.approx(1 - 4 / 200**2)
    assert worst_images(tally) == [1, 5, 2, 3]  # neither what is right nor what is ignored
    assert worst_images(tally, 1) == [1]
    assert worst_images(tally, -1) == []


def test_rows_for_the_terminal():
    metrics = measured([[0, 0, 0, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [0, 0, 1, 0]], 2)
    assert [(name, text.replace(SPACE, " ")) for name, text in rows_masks(metrics)] == [
        ("images", "1"),
        ("pixels", "8"),
        ("mIoU", "58.3 %"),
        ("pixel accuracy", "75.0 %"),
        ("precision", "73.3 %"),
        ("recall", "73.3 %"),
        ("F1 (Dice)", "73.3 %"),
        ("boundary F", "90.0 %"),
    ]
    assert dict(rows_masks(measured([[0, 0, 0, 255]], [[0, 0, 0, 0]], 2)))["ignored pixels"] == f"25.0{SPACE}%"
