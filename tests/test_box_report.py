"""The report of a detector: what a user wants to know, safe against names, and without headings over nothing."""

import copy
import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from mobilenets.evaluation import draw_curves, render
from mobilenets.evaluation.box_pictures import draw_box_confusion, draw_pr, draw_worst
from mobilenets.evaluation.detection import measure_boxes, worst_images
from test_evaluation_box_pictures import NO_BOXES, one, scenes
from test_evaluation_report import HOSTILE, Page

HISTORY = [
    {"epoch": 1, "loss": 6.5, "val_ap": 0.12, "val_ap50": 0.31, "val_f1": 0.2, "learning_rate": 0.1, "seconds": 9},
    {"epoch": 2, "loss": 3.5, "val_ap": 0.456, "val_ap50": 0.7, "val_f1": 0.6, "learning_rate": 0.1, "seconds": 9},
    {"epoch": 3, "loss": 2.5, "val_ap": 0.4, "val_ap50": 0.72, "val_f1": 0.6, "learning_rate": 0.0, "seconds": 9},
]
HEADINGS = [
    *("MobileNet V2", "Files", "What a user sees", "Average precision", "Training", "Confusion matrix"),
    *("Classes, worst first", "Images with the most errors", "Data", "Cost", "Training settings", "Environment"),
    "Use it, or make it again",
]


def card_of(names, metrics):
    artifact = {
        "file": "export/model_int8.tflite",
        "runtime": "litert",
        "precision": "int8",
        "input_dtype": "uint8",
        "bytes": 1_310_112,
        "metrics": {"ap": metrics["ap"] - 0.0123, "ap50": 0.4567, "f1": 0.6543, "images": 16},
        "latency_ms": {"median": 9.63, "p95": 11.5, "threads": 2},
    }
    return {
        "format": 1,
        "tool": "mobilenets 0.1.0",
        "task": "detect",
        "network": "v2",
        "head": "ssdlite",
        "width_multiplier": 0.5,
        "resolution_multiplier": 1.4286,
        "input_shape": [320, 320, 3],
        "classes": names,
        "preprocessing": {"range": [0, 255], "resize": "stretched to 320 x 320 pixels"},
        "command": "mobilenets train photos/ --task detect --net v2 --alpha 0.5",
        "created": "2026-02-03T10:02:13Z",
        "data": {"source": "photos/", "name": "photos", "train": 1437, "val": 16, "skipped": 3, "notes": ["few cats"]},
        "training": {"epochs": 3, "seconds": 131.2, "flip": True},
        "cost": {"macs": 236_083_552, "params": 1_138_256, "peak_activation_bytes": 6_144_000},
        "metrics": metrics,
        "artifacts": [artifact],
        "environment": {"python": "3.11", "processor": "Some CPU"},
    }


def written(directory, card):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "card.json").write_text(json.dumps(card))
    return Page(render(directory))


def make(directory, names, images=16):
    """A directory as training leaves it; returns it, and its card."""
    found, split = scenes(images, len(names))
    metrics = measure_boxes(found, split, names)
    pictures = directory / "pictures"
    draw_curves(HISTORY, pictures / "curves.png")
    draw_box_confusion(metrics, pictures / "confusion.png")
    draw_pr(metrics, pictures / "precision_recall.png")
    worst = worst_images(found, split, metrics["threshold"], 4)
    chosen = split.chosen(np.array(worst))
    boxes = [found[index] for index in worst]
    draw_worst(chosen.images, boxes, chosen, names, metrics["threshold"], pictures / "worst.png")
    with (directory / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY[0])
        writer.writeheader()
        writer.writerows(HISTORY)
    return directory, card_of(names, metrics)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return make(tmp_path_factory.mktemp("base") / "runs" / "photos", ["cat", "dog", "cow", "hen"])


@pytest.fixture
def sample(drawn):
    """A directory, and a card to change."""
    directory, card = drawn
    return directory, copy.deepcopy(card)


def test_a_full_card(sample, monkeypatch):
    directory, card = sample
    base = directory.parents[1]
    monkeypatch.chdir(base)
    card["metrics"] |= {"ap": 0.5432, "ap50": 0.7654, "ap75": 0.6123, "ap_small": None, "ar_100": 0.5987}
    card["metrics"] |= {"threshold": 0.4321, "precision": 0.8123, "recall": 0.7012, "f1": 0.7527}
    card["artifacts"][0]["metrics"]["ap"] = 0.5309
    page = written(directory, card)
    assert page.headings == HEADINGS
    for expected in (
        "Object detector · 2026-02-03",
        "head SSDLite α 0.5 ρ 1.43 320 × 320 pixels 4 classes data set photos",
        "SSDLite moves and resizes boxes",
        "AP, Keras model 54.3 %",
        "AP, model_int8.tflite 53.1 % measured on the file itself; −1.2 points",
        "F1 75.3 % at the best threshold, 0.432",
        "shows the boxes with a score of at least 0.432, the threshold at which F1",
        "Precision 81.2 % of the boxes shown are right Recall 70.1 % of the objects are found F1 75.3 %",
        "AP50 a box needs an overlap of 0.50 76.5",
        "AP75 a box needs an overlap of 0.75 61.2",
        "AP, small objects below 32 × 32 pixels; there are none here –",
        "AR recall with 100 boxes an image, mean over the overlaps 59.9",
        "model.keras the reference Keras float32 – 54.3 % 16 images 76.5 % 75.3 % –",
        "int8, uint8 images 1.31 MB 53.1 % −1.2 points 45.7 % 65.4 % 9.63 ms",
        "Best validation average precision 45.6 %, in epoch 2 of 3.",
        "skipped files and boxes 3",
        "few cats",
        "2 min 11 s",
        "236 083 552",
        "find what is in an image mobilenets predict runs/photos image.jpg",
        "mobilenets train photos/ --task detect --net v2 --alpha 0.5",
        "stretched to 320 x 320 pixels",
    ):
        assert expected in page.text, expected
    assert "accuracy" not in page.text.replace("cost some accuracy", "")
    assert str(base) not in page.source
    assert page.tags.count("img") == 4


def test_what_is_reported_is_what_was_measured(sample):
    directory, card = sample
    metrics, page = card["metrics"], written(directory, card)
    for name, row in zip(card["classes"], metrics["per_class"], strict=True):
        rates = [row[key] for key in ("ap", "ap50", "f1", "precision", "recall")]
        assert " ".join([name, *(f"{100 * rate:.1f}" for rate in rates), str(row["objects"])]) in page.text
    matrix = np.array(metrics["confusion"])
    # The most frequent error is the largest entry off the diagonal.
    np.fill_diagonal(matrix, 0)
    true, found = np.unravel_index(matrix.argmax(), matrix.shape)
    names = [*card["classes"], None]
    first = re.search(r"True Found as Count % (\w+) (\w+) (\d+) ", page.text).groups()
    assert first == (names[true] or "background", names[found] or "missed", str(matrix.max()))


def test_loads_nothing_and_runs_nothing(sample):
    page = written(*sample)
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.source


def test_hostile_and_foreign_names_stay_names(tmp_path):
    names = [*HOSTILE, "猫とねこ고양이", "снег", "x" * 300]
    directory, card = make(tmp_path / "运行", names, images=40)
    card["data"] |= {"source": HOSTILE[1], "name": HOSTILE[0], "notes": [HOSTILE[0]]}
    card["head"] = card["network"] = card["artifacts"][0]["file"] = HOSTILE[1]
    page = written(directory, card)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    for name in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "猫とねこ고양이", "снег", "x" * 23 + "…"):
        assert name in page.text
    assert "x" * 60 not in page.text


@pytest.mark.parametrize(("classes", "folded"), [(2, False), (20, False), (80, True)])
def test_every_class_is_listed_worst_first(tmp_path, classes, folded):
    names = [f"class-{index:03}" for index in range(classes)]
    found, split = scenes(120, classes)
    metrics = measure_boxes(found, split, names)
    page = written(tmp_path, card_of(names, metrics))
    listed = page.text[page.text.index("Classes, worst first") : page.text.index("Data")]
    scores = [float(score.replace("–", "inf")) for score in re.findall(r"class-\d{3} (–|\d+\.\d)", listed)]
    assert len(scores) == classes
    assert scores == sorted(scores)
    assert scores.count(float("inf")) == sum(not row["objects"] for row in metrics["per_class"])
    assert ("details" in page.tags) == folded


def test_poor_classes_are_marked_and_those_without_objects_come_last(tmp_path):
    rows = [
        {
            "class": name,
            "ap": ap,
            "ap50": 0.5,
            "precision": 0.5,
            "recall": 0.5,
            "f1": 0.5,
            "objects": 0 if ap is None else 9,
        }
        for name, ap in (("nobody", None), ("good", 0.45), ("fair", 0.16), ("poor", 0.14))
    ]
    metrics = {"ap": 0.3, "per_class": rows}  # well below it is what has not half of it
    page = written(tmp_path, {"task": "detect", "metrics": metrics})
    assert "poor 14.0 50.0 50.0 50.0 50.0 9 fair 16.0" in page.text
    assert "good 45.0 50.0 50.0 50.0 50.0 9 nobody – – – – – 0" in page.text
    marked = re.findall(r'<tr class="poor"><th scope="row">\s*<bdi>(\w+)', page.source)
    assert marked == ["poor"]


def test_one_class_needs_no_table_of_classes(tmp_path):
    directory, card = make(tmp_path / "run", ["face"])
    page = written(directory, card)
    assert page.headings == [heading for heading in HEADINGS if heading != "Classes, worst first"]
    assert "1 class data set" in page.text
    assert "over the classes" not in page.text


def test_a_detector_that_finds_nothing(tmp_path):
    metrics = measure_boxes([NO_BOXES], one([(10, 10, 40, 40)], [1]), ["a", "b"])
    page = written(tmp_path, card_of(["a", "b"], metrics))
    assert "AP, Keras model 0.0 %" in page.text
    assert "b missed 1 100.0" in page.text
    assert "b 0.0 0.0 0.0 0.0 0.0 1 a – – – – – 0" in page.text
    assert "None" not in page.text


def test_pairs_of_many_classes_are_listed(tmp_path):
    names = [f"c{index}" for index in range(201)]
    found, split = scenes(60, 201)
    metrics = measure_boxes(found, split, names)
    assert "confusion" not in metrics
    page = written(tmp_path, card_of(names, metrics))
    assert "Confusions" in page.headings
    assert len(re.findall(r"c\d+ missed|background c\d+|c\d+ c\d+ \d", page.text)) == 8


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"metrics": None, "artifacts": None, "data": None, "training": None, "cost": None, "environment": None},
        {"metrics": {}, "artifacts": [], "head": "unheard_of"},
        {"metrics": {"ap": None, "ap50": None, "ap_small": None, "threshold": None, "f1": None, "per_class": []}},
        {"artifacts": [{"file": "a.tflite", "metrics": {"ap": None}, "comparison": None, "latency_ms": None}]},
    ],
)
def test_missing_parts_leave_no_headings(tmp_path, card):
    page = written(tmp_path, {"task": "detect"} | card)
    files = ["Files"] if card.get("artifacts") else []
    assert page.headings[1:] == [*files, "Use it, or make it again"]
    assert "img" not in page.tags
    assert "None" not in page.text


def test_each_part_may_be_missing(tmp_path):
    found, split = scenes()
    card = card_of(list("abcd"), measure_boxes(found, split, list("abcd")))
    for part in ("head", "classes", "metrics", "training", "data"):
        rest = {key: value for key, value in card.items() if key != part}
        assert "None" not in written(tmp_path, rest).text
    for part in card["metrics"]:
        rest = {key: value for key, value in card["metrics"].items() if key != part}
        assert "None" not in written(tmp_path, card | {"metrics": rest}).text


def test_curves_of_a_detector_are_loss_and_average_precision(tmp_path):
    def size(history):
        with Image.open(draw_curves(history, tmp_path / "curves.png")) as image:
            return image.size

    wide, high = size(HISTORY)
    alone, same = size([{key: row[key] for key in ("epoch", "val_ap", "val_ap50")} for row in HISTORY])
    assert wide > 1.9 * alone
    assert abs(high - same) < 20
    both = (tmp_path / "curves.png").read_bytes()
    draw_curves([{key: row[key] for key in ("epoch", "val_ap")} for row in HISTORY], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() != both
    assert draw_curves([{"epoch": 1, "val_f1": 0.5}], tmp_path / "curves.png") is None
