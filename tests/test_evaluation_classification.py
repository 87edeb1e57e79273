"""Metrics against hand-counted cases and against scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from mobilenets.data import ImageData, Split
from mobilenets.evaluation import confident_mistakes, confusions, interval, measure, rows
from mobilenets.evaluation.evaluate import with_classes


def random_case(images=300, classes=7, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images)
    logits = draw.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels


def one_hot(predicted, classes):
    return np.eye(classes)[predicted]


def test_a_case_counted_by_hand():
    #           true: a a a b b c      predicted: a a b b b a
    found = measure(one_hot([0, 0, 1, 1, 1, 0], 3), np.array([0, 0, 0, 1, 1, 2]), ["a", "b", "c"])
    assert found["images"] == 6
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["top5_accuracy"] is None
    assert found["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    a, b, c = found["per_class"]
    assert a == {"class": "a", "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3), "support": 3}
    assert b == {"class": "b", "precision": 2 / 3, "recall": 1.0, "f1": pytest.approx(0.8), "support": 2}
    assert c == {"class": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["macro"]["f1"] == pytest.approx((2 / 3 + 0.8) / 3)
    assert found["weighted"]["f1"] == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)


def test_equals_scikit_learn():
    probabilities, labels = random_case()
    predicted = probabilities.argmax(axis=1)
    found = measure(probabilities, labels, [str(index) for index in range(7)])
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["top5_accuracy"] == pytest.approx(reference.top_k_accuracy_score(labels, probabilities, k=5))
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, probabilities), rel=1e-5)
    assert found["confusion"] == reference.confusion_matrix(labels, predicted).tolist()
    for average in ("macro", "weighted"):
        scores = reference.precision_recall_fscore_support(labels, predicted, average=average)[:3]
        assert list(found[average].values()) == pytest.approx(scores)


def test_is_plain_json():
    probabilities, labels = random_case()
    found = measure(probabilities, labels, list("abcdefg"))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_top5_counts_the_true_class_among_the_first_five():
    probabilities = np.tile(np.array([0.3, 0.25, 0.2, 0.15, 0.08, 0.02]), (4, 1))
    found = measure(probabilities, np.array([0, 4, 5, 5]), list("abcdef"))
    assert found["accuracy"] == 0.25
    assert found["top5_accuracy"] == 0.5


def test_a_class_without_images_leaves_the_macro_average_alone():
    labels = np.array([0, 0, 1, 1])
    found = measure(one_hot([0, 0, 1, 2], 3), labels, ["a", "b", "missing"])
    assert found["per_class"][2] == {
        "class": "missing",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }
    assert found["macro"]["recall"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["macro"]["precision"] == 1.0
    assert found["confusion"][1] == [0, 1, 1]
    assert np.isfinite(found["log_loss"])


def test_a_single_class_in_the_labels():
    assert measure(one_hot([1, 1], 2), np.array([1, 1]), ["a", "b"])["macro"]["f1"] == 1.0


def test_quantized_probabilities_need_not_add_up_to_one():
    rough = np.array([[0.5, 0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.996, 0.0]], np.float32)
    found = measure(rough, np.array([0, 1, 2]), ["a", "b", "c"])
    expected = (-np.log(2 / 3) - np.log(1 / 3) - np.log(np.finfo(np.float32).eps / 0.996)) / 3
    assert found["log_loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("probabilities", "labels", "classes", "message"),
    [
        (np.ones(4), np.zeros(4, int), "ab", r"images, 2 or more classes"),
        (np.ones((4, 1)), np.zeros(4, int), "a", r"images, 2 or more classes"),
        (np.ones((4, 2)), np.zeros(3, int), "ab", r"labels must be \(4,\)"),
        (np.ones((4, 2)), np.zeros((4, 1), int), "ab", r"labels must be \(4,\)"),
        (np.ones((4, 2)), np.zeros(4, int), "abc", "2 columns but there are 3 class names"),
        (np.ones((0, 2)), np.zeros(0, int), "ab", "no images"),
        (np.ones((4, 2)), np.zeros(4), "ab", "integers"),
        (np.ones((4, 2)), np.full(4, 2), "ab", r"labels must be 0\.\.1"),
        (np.ones((4, 2)), np.full(4, -1), "ab", r"labels must be 0\.\.1"),
        (np.full((4, 2), 3.5), np.zeros(4, int), "ab", "logits"),
        (np.full((4, 2), -1.0), np.zeros(4, int), "ab", "logits"),
        (np.full((4, 2), np.nan), np.zeros(4, int), "ab", "probabilities must be"),
    ],
)
def test_refuses_what_does_not_fit(probabilities, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        measure(probabilities, labels, list(classes))


def test_mistakes_come_surest_first():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3], [0.2, 0.8], [0.9, 0.1]])
    labels = np.array([1, 0, 0, 0, 1])  # images 0, 1, 3, 4 are wrong; 1 and 4 are equally sure
    assert confident_mistakes(probabilities, labels).tolist() == [1, 4, 3, 0]
    assert confident_mistakes(probabilities, labels, count=2).tolist() == [1, 4]
    assert confident_mistakes(probabilities, probabilities.argmax(axis=1)).tolist() == []


def test_confusions_are_the_largest_counts_off_the_diagonal():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    found = measure(one_hot([1, 1, 0, 0, 1, 2, 2, 2, 1], 3), labels, ["a", "b", "c"])
    assert confusions(found) == [
        {"true": "a", "predicted": "b", "images": 2, "share": pytest.approx(2 / 3)},
        {"true": "b", "predicted": "a", "images": 1, "share": 0.5},
        {"true": "c", "predicted": "b", "images": 1, "share": 0.25},
    ]
    assert len(confusions(found, count=1)) == 1


def test_interval_is_wilsons():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert interval(1.0, 10)[1] == 1.0


def test_rows_are_texts_for_a_table():
    probabilities, labels = random_case()
    table = dict(rows(measure(probabilities, labels, list("abcdefg"))))
    assert table["images"] == "300"
    assert table["accuracy"].endswith("%")
    assert "top-5 accuracy" in table
    few = measure(probabilities[:, :2], np.zeros(300, int), ["a", "b"])
    assert "top-5 accuracy" not in dict(rows(few))


def test_a_thousand_classes_keep_the_confusions_that_occur():
    labels = np.array([7, 7, 7, 400, 999])
    predicted = np.array([7, 8, 8, 400, 7])
    probabilities = np.full((5, 1000), 1e-6)
    probabilities[np.arange(5), predicted] = 1 - 1e-3
    metrics = measure(probabilities, labels, [f"class {index}" for index in range(1000)])
    assert "confusion" not in metrics
    assert metrics["confusion_pairs"] == [[7, 7, 1], [7, 8, 2], [400, 400, 1], [999, 7, 1]]
    assert [(each["true"], each["predicted"], each["images"]) for each in confusions(metrics)] == [
        ("class 7", "class 8", 2),
        ("class 999", "class 7", 1),
    ]


def test_all_labels_are_counted_in_the_model_s_classes():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    train, val = Split(images, np.array([0, 1, 1])), Split(images, np.array([1, 0, 1]))
    data = ImageData("some", "some", ("dog", "cat"), train, val, 8, False, "0" * 64)
    found = with_classes(data, ["bird", "cat", "dog"])
    assert found.classes == ("bird", "cat", "dog")
    assert [part.labels.tolist() for part in (found.train, found.val)] == [[2, 1, 1], [1, 2, 1]]
