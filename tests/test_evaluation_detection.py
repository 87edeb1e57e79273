"""Metrics of detectors against hand-counted cases, pycocotools read from files, and scikit-learn."""

import json
import sys

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from mobilenets.data.boxes import BoxSplit
from mobilenets.errors import UserError
from mobilenets.evaluation.detection import measure_boxes, rows_boxes, worst_images

NO_BOXES = np.zeros((0, 6), np.float32)


def split_of(*images, ignored=None):
    """Each image is a list of (left, top, right, bottom, class)."""
    rows = [np.array(image, np.float32).reshape(-1, 5) for image in images]
    ignored = ignored or [[False] * len(each) for each in rows]
    return BoxSplit(
        images=np.zeros((len(rows), 1, 1, 3), np.uint8),
        sizes=np.full((len(rows), 2), 640),
        boxes=tuple(each[:, :4] for each in rows),
        labels=tuple(each[:, 4].astype(np.int64) for each in rows),
        ignored=tuple(np.array(each, bool) for each in ignored),
    )


def boxes(*rows):
    """Each row is (left, top, right, bottom, score, class)."""
    return np.array(rows, np.float32).reshape(-1, 6)


def random_case(images=24, classes=5, seed=0, crowds=True, levels=None, most=60):
    """Objects of all sizes, boxes near them and elsewhere; class 3 has boxes but no objects, 4 only ignored ones."""
    draw = np.random.default_rng(seed)
    truth, found, ignored = [], [], []
    for _ in range(images):
        count = draw.integers(0, 9)
        centres, halves = draw.uniform(0, 640, (count, 2)), np.exp(draw.uniform(1, 5, (count, 2)))
        corners = np.hstack([centres - halves, centres + halves]).clip(0, 640)
        labels = draw.choice([0, 1, 2, 4], count, p=[0.5, 0.2, 0.2, 0.1])
        truth.append(np.column_stack([corners, labels]))
        ignored.append((labels == 4) | ((draw.random(count) < 0.2) & crowds))
        near = draw.integers(0, count, draw.integers(0, most)) if count else np.zeros(0, int)
        moved = corners[near] + draw.normal(0, 0.08, (len(near), 4)) * np.tile(2 * halves[near], 2)
        own = np.where(draw.random(len(near)) < 0.7, labels[near], draw.integers(0, classes, len(near)))
        lone = draw.uniform(0, 600, (draw.integers(0, 6), 4))
        lone[:, 2:] = lone[:, :2] + draw.uniform(5, 300, (len(lone), 2))
        every = np.vstack([moved, lone])
        scores = draw.random(len(every)) ** 2
        if levels:
            scores = np.round(scores * levels) / levels
        others = draw.integers(0, classes, len(lone))
        found.append(np.column_stack([every, scores, np.append(own, others)]).astype(np.float32))
    return found, split_of(*truth, ignored=ignored)


def from_files(found, split, classes, directory):
    """The standard way: annotations and results as JSON files, then the twelve figures of COCO."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(image, corners):
        for left, top, right, bottom in corners[:, :4].astype(np.float64).tolist():
            yield {"image_id": image + 1, "bbox": [left, top, right - left, bottom - top]}

    annotations, results = [], []
    for image, corners in enumerate(split.boxes):
        extra = zip(split.labels[image].tolist(), split.ignored[image].tolist(), strict=True)
        for row, (label, crowd) in zip(rows(image, corners), extra, strict=True):
            area = row["bbox"][2] * row["bbox"][3]
            about = {"id": len(annotations) + 1, "category_id": label + 1, "iscrowd": int(crowd), "area": area}
            annotations.append(row | about)
        for row, (score, label) in zip(rows(image, found[image]), found[image][:, 4:].tolist(), strict=True):
            results.append(row | {"category_id": int(label) + 1, "score": score})
    data = {
        "images": [{"id": index + 1} for index in range(len(split))],
        "categories": [{"id": index + 1, "name": str(index)} for index in range(classes)],
        "annotations": annotations,
    }
    (directory / "truth.json").write_text(json.dumps(data))
    (directory / "found.json").write_text(json.dumps(results))
    truth = COCO(directory / "truth.json")
    evaluation = COCOeval(truth, truth.loadRes(str(directory / "found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


CASES = [
    {"seed": 0},
    {"seed": 1, "crowds": False},
    {"seed": 2, "levels": 8},  # many equal scores
    {"seed": 3, "images": 12, "most": 90},
]


@pytest.mark.parametrize("case", CASES)
def test_equals_pycocotools_from_files(tmp_path, case):
    found, split = random_case(**case)
    metrics = measure_boxes(found, split, list("abcde"))
    evaluation = from_files(found, split, 5, tmp_path)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    ours = [metrics[name] for name in names] + [metrics["ar_100"]]
    assert all(0.05 < value < 0.95 for value in ours)  # a case that says something
    np.testing.assert_allclose(ours, [*evaluation.stats[:6], evaluation.stats[8]], rtol=0, atol=1e-12)
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    for index, row in enumerate(metrics["per_class"][:3]):
        np.testing.assert_allclose(row["ap"], precision[:, :, index].mean(), rtol=0, atol=1e-12)
        np.testing.assert_allclose(row["ap50"], precision[0, :, index].mean(), rtol=0, atol=1e-12)
    assert [row["ap"] for row in metrics["per_class"][3:]] == [None, None]
    np.testing.assert_allclose(metrics["pr_curve"]["precision"], precision[0, :, :3].mean(axis=1), atol=6e-6)
    np.testing.assert_allclose(metrics["pr_curve"]["per_class"][1], precision[0, :, 1], atol=6e-6)


def test_perfect_boxes():
    split = split_of([(10, 10, 20, 20, 0), (100, 100, 150, 150, 1)], [], [(0, 0, 200, 200, 0)])
    found = [
        boxes((100, 100, 150, 150, 0.8, 1), (10, 10, 20, 20, 0.9, 0)),
        NO_BOXES,
        boxes((0, 0, 200, 200, 0.6, 0)),
    ]
    metrics = measure_boxes(found, split, ["a", "b"])
    for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar_100", "precision", "recall", "f1"):
        assert metrics[name] == pytest.approx(1), name
    assert metrics["threshold"] == pytest.approx(0.3)  # halfway to nothing
    assert (metrics["images"], metrics["objects"]) == (3, 3)
    assert metrics["confusion"] == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert [row["objects"] for row in metrics["per_class"]] == [2, 1]


def test_a_case_counted_by_hand():
    # Class a: found surely; missed. Class b: found as a; found. And a false a in an empty image.
    split = split_of([(0, 0, 10, 10, 0), (50, 50, 60, 60, 0), (100, 100, 120, 120, 1)], [(0, 0, 40, 40, 1)], [])
    found = [
        boxes((0, 0, 10, 10, 0.9, 0), (100, 100, 120, 120, 0.8, 0)),
        boxes((0, 0, 40, 38, 0.7, 1)),
        boxes((5, 5, 9, 9, 0.1, 0)),
    ]
    metrics = measure_boxes(found, split, ["a", "b"])
    # By falling score: right (F1 2/5), wrong class (2/6), right (4/7), false (4/8).
    assert metrics["threshold"] == pytest.approx(0.4)
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["recall"] == pytest.approx(2 / 4)
    assert metrics["f1"] == pytest.approx(4 / 7)
    a, b = metrics["per_class"]
    # One of two found before anything else: precision 1 up to recall 0.5, which is 51 of 101 points.
    assert a == {
        "class": "a",
        "ap": pytest.approx(51 / 101),
        "ap50": pytest.approx(51 / 101),
        "precision": pytest.approx(1 / 2),
        "recall": pytest.approx(1 / 2),
        "f1": pytest.approx(1 / 2),
        "objects": 2,
    }
    # An overlap of 0.95 passes all ten thresholds.
    assert (b["ap"], b["precision"], b["recall"]) == pytest.approx((51 / 101, 1, 1 / 2))
    assert metrics["macro"] == pytest.approx({"precision": 3 / 4, "recall": 1 / 2, "f1": (1 / 2 + 2 / 3) / 2})
    assert metrics["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert metrics["ap_large"] is None
    assert metrics["ap_small"] is not None
    assert worst_images(found, split, metrics["threshold"]) == [0]
    assert worst_images(found, split, 0.05) == [0, 2]
    assert worst_images(found, split, 0.05, count=1) == [0]


def test_overlap_of_exactly_half_is_found():
    split = split_of([(0, 0, 20, 10, 0)])
    assert measure_boxes([boxes((0, 0, 10, 10, 0.5, 0))], split, ["a"])["f1"] == 1
    assert measure_boxes([boxes((0, 0, 10, 10, 0.5, 0))], split, ["a"])["confusion"] == [[1, 0], [0, 0]]
    assert measure_boxes([boxes((0, 0, 10, 10, 0.5, 0))], split, ["a"])["ap50"] == pytest.approx(1)
    assert measure_boxes([boxes((0, 0, 9.9, 10, 0.5, 0))], split, ["a"])["ap50"] == 0


def test_a_second_box_on_an_object_is_false():
    split = split_of([(0, 0, 20, 20, 0)])
    metrics = measure_boxes([boxes((0, 0, 20, 20, 0.9, 0), (0, 0, 20, 20, 0.8, 0))], split, ["a"])
    assert metrics["threshold"] == pytest.approx(0.85)
    assert worst_images([boxes((0, 0, 20, 20, 0.9, 0), (0, 0, 20, 20, 0.8, 0))], split, 0.5) == [0]
    assert worst_images([boxes((0, 0, 20, 20, 0.9, 0), (0, 0, 20, 20, 0.8, 0))], split, 0.85) == []


def test_ignored_objects_are_neither_missed_nor_background():
    split = split_of([(0, 0, 20, 20, 0), (100, 100, 300, 300, 0)], ignored=[[False, True]])
    inside = boxes((0, 0, 20, 20, 0.3, 0), (110, 110, 150, 150, 0.9, 0), (200, 200, 240, 240, 0.8, 0))
    metrics = measure_boxes([inside], split, ["a", "b"])
    assert (metrics["ap"], metrics["precision"], metrics["recall"]) == pytest.approx((1, 1, 1))
    assert metrics["objects"] == 1
    assert metrics["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert worst_images([inside], split, 0.1) == []
    # Of another class it is no such thing, but no background either.
    inside[1, 5] = 1
    other = measure_boxes([inside], split, ["a", "b"])
    assert other["precision"] == pytest.approx(1 / 2)
    assert other["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert worst_images([inside], split, 0.1) == [0]


def test_false_boxes_of_a_class_without_objects_count():
    split = split_of([(0, 0, 20, 20, 0)])
    metrics = measure_boxes([boxes((0, 0, 20, 20, 0.5, 0), (50, 50, 90, 90, 0.9, 1))], split, ["a", "b"])
    assert metrics["precision"] == pytest.approx(1 / 2)
    assert (metrics["ap"], metrics["macro"]["recall"]) == pytest.approx((1, 1))  # over the classes with objects
    assert metrics["per_class"][1]["ap"] is None
    assert metrics["pr_curve"]["per_class"][1] is None


def test_nothing_found_is_zero():
    split = split_of([(0, 0, 20, 20, 0)], [])
    metrics = measure_boxes([NO_BOXES, NO_BOXES], split, ["a", "b"])
    for name in ("ap", "ap50", "ap75", "ap_small", "ar_100", "precision", "recall", "f1"):
        assert metrics[name] == 0, name
    assert metrics["threshold"] == 0.5
    assert metrics["confusion"] == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert not any(metrics["pr_curve"]["precision"])
    assert measure_boxes([boxes((50, 50, 60, 60, 0.9, 0)), NO_BOXES], split, ["a"])["threshold"] == 0.5


@pytest.mark.parametrize("case", CASES)
def test_threshold_has_the_highest_f1_of_all(case):
    found, split = random_case(**case)
    metrics = measure_boxes(found, split, list("abcde"))

    def errors(threshold):
        """Missed objects and false boxes, counted image by image."""
        every = [split.chosen(np.array([index])) for index in range(len(split))]
        return [_errors(found[index], every[index], threshold) for index in range(len(split))]

    best = 0
    for threshold in np.unique(np.concatenate(found)[:, 4])[::23]:
        missed, false = np.sum(errors(threshold), axis=0)
        hits = metrics["objects"] - missed
        best = max(best, 2 * hits / (2 * hits + missed + false))
    missed, false = np.sum(errors(metrics["threshold"]), axis=0)
    hits = metrics["objects"] - missed
    assert metrics["f1"] == pytest.approx(2 * hits / (2 * hits + missed + false))
    assert metrics["precision"] == pytest.approx(hits / (hits + false))
    assert metrics["recall"] == pytest.approx(hits / metrics["objects"])
    assert best <= metrics["f1"]


def _errors(found, one, threshold):
    """Greedy matching written out: (missed, false) in one image."""
    found = found[found[:, 4] >= threshold].astype(np.float64)
    left, false = {int(index) for index in np.flatnonzero(~one.ignored[0])}, 0
    for left_, top, right, bottom, _, label in found[np.argsort(-found[:, 4], kind="stable")]:
        shares = {}
        for index, (x, y, far, low) in enumerate(one.boxes[0].astype(np.float64)):
            both = max(0, min(right, far) - max(left_, x)) * max(0, min(bottom, low) - max(top, y))
            own, other = (right - left_) * (bottom - top), (far - x) * (low - y)
            shares[index] = both / (own if one.ignored[0][index] else own + other - both)
        near = [index for index in shares if one.labels[0][index] == label and shares[index] >= 0.5]
        free = [index for index in near if index in left]
        if free:
            left.remove(max(free, key=shares.get))
        elif not any(one.ignored[0][index] for index in near):
            false += 1
    return len(left), false


def test_boxes_on_every_object_make_it_a_classifier():
    # One box on each object, far apart: precision, recall and F1 are those of a classifier, if all is reported.
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 60)
    guesses = np.where(draw.random(60) < 0.9, labels, draw.integers(0, 4, 60))
    corners = np.array([(100 * x, 100 * y, 100 * x + 30, 100 * y + 50) for x in range(10) for y in range(6)])
    split = split_of(np.column_stack([corners, labels]))
    metrics = measure_boxes([boxes(*np.column_stack([corners, np.full(60, 0.7), guesses]))], split, list("abcd"))
    each = precision_recall_fscore_support(labels, guesses)
    for position, name in enumerate(("precision", "recall", "f1")):
        assert [row[name] for row in metrics["per_class"]] == pytest.approx(each[position].tolist())
    macro = precision_recall_fscore_support(labels, guesses, average="macro")[:3]
    assert list(metrics["macro"].values()) == pytest.approx(macro)
    assert metrics["f1"] == pytest.approx((labels == guesses).mean())
    matrix = np.zeros((5, 5), int)
    np.add.at(matrix, (labels, guesses), 1)
    assert metrics["confusion"] == matrix.tolist()


def test_confusion_adds_up():
    found, split = random_case(seed=4)
    metrics = measure_boxes(found, split, list("abcde"))
    matrix = np.array(metrics["confusion"])
    wanted = np.concatenate(split.labels)[~np.concatenate(split.ignored)]
    assert matrix[:-1].sum(axis=1).tolist() == np.bincount(wanted, minlength=5).tolist()
    assert matrix[-1, -1] == 0
    assert matrix[0, 1] > 0  # a wrong class is no background


def test_equal_scores_are_reported_together():
    split = split_of([(0, 0, 20, 20, 0), (50, 50, 90, 90, 0)])
    false = [(100 * index, 200, 100 * index + 50, 250, 0.5, 0) for index in range(3)]
    metrics = measure_boxes([boxes((0, 0, 20, 20, 0.9, 0), (50, 50, 90, 90, 0.5, 0), *false)], split, ["a"])
    # The first of those at 0.5 is right, but comes with three false ones: F1 4/7 instead of 2/3.
    assert metrics["threshold"] == pytest.approx(0.7)
    assert metrics["f1"] == pytest.approx(2 / 3)


def test_of_equal_overlaps_a_box_takes_its_own_class():
    split = split_of([(0, 0, 20, 20, 0), (0, 0, 20, 20, 1)])
    for first in (0, 1):
        found = [boxes((0, 0, 20, 20, 0.9, first), (0, 0, 20, 20, 0.8, 1 - first))]
        assert measure_boxes(found, split, ["a", "b"])["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_a_hundred_boxes_of_an_image_count():
    split = split_of([(0, 0, 20, 20, 0)])
    false = [(100, 100, 120, 120, 0.9, index % 2) for index in range(100)]
    last = (0, 0, 20, 20, 0.8, 0)
    assert measure_boxes([boxes(last, *false)], split, ["a", "b"])["ap"] == 0
    assert measure_boxes([boxes(last, *false[1:])], split, ["a", "b"])["ap"] > 0


def test_order_does_not_matter():
    found, split = random_case(seed=5)
    turned = [each[::-1] for each in found]
    assert measure_boxes(turned, split, list("abcde")) == measure_boxes(found, split, list("abcde"))


def test_is_plain_json_and_prints_nothing(capsys):
    found, split = random_case(images=8)
    metrics = measure_boxes(found, split, np.array(list("abcde")))
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert capsys.readouterr() == ("", "")


def test_many_classes_keep_the_pairs_that_occur():
    split = split_of([(0, 0, 20, 20, 7), (50, 50, 80, 80, 300)])
    found = [boxes((0, 0, 20, 20, 0.9, 8), (50, 50, 80, 80, 0.8, 300), (200, 200, 220, 220, 0.85, 8))]
    metrics = measure_boxes(found, split, [str(index) for index in range(301)])
    assert "confusion" not in metrics
    assert metrics["confusion_pairs"] == [[7, 8, 1], [300, 300, 1], [301, 8, 1]]
    assert "per_class" not in metrics["pr_curve"]


def test_worst_images_have_most_errors_then_surest():
    split = split_of([(0, 0, 20, 20, 0)], [], [], [(0, 0, 20, 20, 0), (50, 50, 90, 90, 0)], [(0, 0, 20, 20, 0)])
    found = [
        NO_BOXES,  # one missed
        boxes((0, 0, 9, 9, 0.6, 0)),
        boxes((0, 0, 9, 9, 0.7, 0), (0, 0, 9, 9, 0.1, 0)),
        boxes((200, 200, 220, 220, 0.55, 0)),  # two missed, one false
        boxes((0, 0, 20, 20, 0.9, 0)),
    ]
    assert worst_images(found, split, 0.5) == [3, 2, 1, 0]
    assert worst_images(found, split, 0.65, count=2) == [3, 2]


def test_rows_are_texts_for_a_table():
    split = split_of([(0, 0, 20, 20, 0)])
    table = dict(rows_boxes(measure_boxes([boxes((0, 0, 20, 20, 0.9, 0))], split, ["a"])))
    assert table["objects"] == "1"
    assert table["AP"] == table["AP, small objects"] == "100.0 %".replace(" ", "\N{NARROW NO-BREAK SPACE}")
    assert "AP, large objects" not in table
    assert table["best threshold"] == "0.45"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "0 images, but 1"),
        ([np.zeros((2, 5))], r"\(boxes, 6\)"),
        ([np.zeros(6)], r"\(boxes, 6\)"),
        ([boxes((0, 0, 1, 1, 0.5, 2))], r"0\.\.1"),
        ([boxes((0, 0, 1, 1, 0.5, -1))], r"0\.\.1"),
        ([boxes((0, 0, 1, 1, 0.5, 0.5))], r"0\.\.1"),
        ([boxes((0, 0, 1, 1, 7, 0))], "scores must be"),
        ([boxes((0, 0, np.nan, 1, 0.5, 0))], "finite"),
    ],
)
def test_refuses_what_does_not_fit(found, message):
    with pytest.raises(ValueError, match=message):
        measure_boxes(found, split_of([(0, 0, 20, 20, 0)]), ["a", "b"])


def test_refuses_to_measure_on_nothing():
    with pytest.raises(ValueError, match="no objects"):
        measure_boxes([NO_BOXES], split_of([(0, 0, 20, 20, 0)], ignored=[[True]]), ["a"])


def test_says_how_to_install_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(UserError, match=r"pip install 'mobilenets\[detect\]'"):
        measure_boxes([NO_BOXES], split_of([(0, 0, 20, 20, 0)]), ["a"])
