"""The report of a segmenter: what a user wants to know, safe against names, and without headings over nothing."""

import copy
import csv
import json
import re

import numpy as np
import pytest

from mobilenets.architectures import SEGMENTATION_HEADS
from mobilenets.data.masks import IGNORE
from mobilenets.evaluation import draw_curves, render
from mobilenets.evaluation.mask_pictures import draw_mask_confusion, draw_worst_masks
from mobilenets.evaluation.mask_report import NOTES
from mobilenets.evaluation.segmentation import Tally, worst_images
from test_evaluation_mask_pictures import HISTORY, scenes, tallied
from test_evaluation_report import HOSTILE, Page

HEADINGS = [
    *("MobileNet V3 Large", "Files", "What a user sees", "Training", "Confusion matrix", "Classes, worst first"),
    *("Images that went worst", "What it learned from", "Data", "Cost", "Training settings", "Environment"),
    "Use it, or make it again",
]


def card_of(names, metrics):
    artifact = {
        "file": "export/model_int8.tflite",
        "runtime": "litert",
        "precision": "int8",
        "input_dtype": "uint8",
        "bytes": 1_310_112,
        "metrics": {"miou": (metrics["miou"] or 0) - 0.0123, "pixel_accuracy": 0.8767, "f1": 0.6543, "images": 16},
        "latency_ms": {"median": 9.63, "p95": 11.5, "threads": 2},
    }
    return {
        "format": 1,
        "tool": "mobilenets 0.1.0",
        "task": "segment",
        "network": "v3_large",
        "head": "lraspp",
        "width_multiplier": 0.5,
        "resolution_multiplier": 1.1429,
        "input_shape": [256, 256, 3],
        "classes": names,
        "preprocessing": {"range": [0, 255], "resize": "stretched to 256 x 256 pixels"},
        "command": "mobilenets train photos/ --task segment --net v3_large --alpha 0.5",
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


def make(directory, names):
    """A directory as training leaves it; returns it, and its card."""
    images, truths, founds = scenes(8, len(names))
    tally = tallied(truths, founds, names)
    metrics = tally.metrics()
    pictures = directory / "pictures"
    draw_curves(HISTORY, pictures / "curves.png")
    draw_mask_confusion(metrics, pictures / "confusion.png")
    chosen = [[values[index] for index in worst_images(tally, 2)] for values in (images, truths, founds)]
    for name in ("worst", "augmented"):
        draw_worst_masks(*chosen, names, pictures / f"{name}.png")
    with (directory / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY[0])
        writer.writeheader()
        writer.writerows(HISTORY)
    return directory, card_of(names, metrics)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return make(tmp_path_factory.mktemp("base") / "runs" / "photos", ["background", "cat", "dog", "hen"])


@pytest.fixture
def sample(drawn):
    """A directory, and a card to change."""
    directory, card = drawn
    return directory, copy.deepcopy(card)


def test_a_full_card(sample, monkeypatch):
    directory, card = sample
    base = directory.parents[1]
    monkeypatch.chdir(base)
    card["metrics"] |= {"miou": 0.5432, "pixel_accuracy": 0.9123, "precision": 0.8123, "recall": 0.7012}
    card["metrics"] |= {"f1": 0.7527, "boundary_f": 0.6321, "pixels": 1_234_567, "ignored": 0.0456, "images": 16}
    card["artifacts"][0]["metrics"]["miou"] = 0.5309
    page = written(directory, card)
    assert page.headings == HEADINGS
    for expected in (
        "Segmenter · 2026-02-03",
        "head LR-ASPP α 0.5 ρ 1.14 256 × 256 pixels 4 classes data set photos",
        "LR-ASPP weighs a coarse map",
        "mIoU, Keras model 54.3 % intersection over union, mean over the classes; 16 images",
        "mIoU, model_int8.tflite 53.1 % measured on the file itself; −1.2 points",
        "Pixel accuracy 91.2 % of the pixels are right",
        "F1 = Dice 75.3 %",
        "Boundary F 63.2 %",
        "4.6 % of the pixels are marked to be ignored",
        "Pixel accuracy 91.2 % of 1.23 M pixels have the right class Precision 81.2 %",
        "Recall 70.1 %",
        "model.keras the reference Keras float32 – 54.3 % 16 images 91.2 % 75.3 % –",
        "int8, uint8 images 1.31 MB 53.1 % −1.2 points 87.7 % 65.4 % 9.63 ms",
        "Best validation mean IoU 45.7 %, in epoch 2 of 3.",
        "skipped files and masks 3",
        "few cats",
        "2 min 11 s",
        "236 083 552",
        "tell what each pixel of an image shows mobilenets predict runs/photos image.jpg",
        "mobilenets train photos/ --task segment --net v3_large --alpha 0.5",
        "stretched to 256 x 256 pixels",
    ):
        assert expected in page.text, expected
    assert str(base) not in page.source
    assert page.tags.count("img") == 4


def test_what_is_reported_is_what_was_measured(sample):
    directory, card = sample
    metrics, page = card["metrics"], written(directory, card)
    for name, row in zip(card["classes"], metrics["per_class"], strict=True):
        rates = [row[key] for key in ("iou", "precision", "recall", "f1", "boundary_f", "share")]
        assert " ".join([name, *(f"{100 * rate:.1f}" for rate in rates)]) in page.text
    # The most frequent confusion is the largest share of a row, off the diagonal.
    matrix = np.array(metrics["confusion"])
    shares = matrix / matrix.sum(axis=1, keepdims=True)
    np.fill_diagonal(shares, 0)
    true, found = np.unravel_index(shares.argmax(), shares.shape)
    first = re.search(r"True Found as Pixels % (\w+) (\w+) (\d+) (\d+\.\d) ", page.text).groups()
    names = card["classes"]
    assert first == (names[true], names[found], str(matrix[true, found]), f"{100 * shares[true, found]:.1f}")


def test_every_head_is_explained(tmp_path):
    assert set(NOTES) == set(SEGMENTATION_HEADS)
    for name, head in SEGMENTATION_HEADS.items():
        page = written(tmp_path, {"task": "segment", "head": name, "width_multiplier": 1.0})
        assert f"head {head.title} α 1" in page.text
        assert NOTES[name] in page.text


def test_loads_nothing_and_runs_nothing(sample):
    page = written(*sample)
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.source


def test_hostile_and_foreign_names_stay_names(tmp_path):
    names = [*HOSTILE, "猫とねこ고양이", "снег", "x" * 300]
    directory, card = make(tmp_path / "运行", names)
    card["data"] |= {"source": HOSTILE[1], "name": HOSTILE[0], "notes": [HOSTILE[0]]}
    card["head"] = card["network"] = card["artifacts"][0]["file"] = HOSTILE[1]
    page = written(directory, card)
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    for name in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "猫とねこ고양이", "снег", "x" * 23 + "…"):
        assert name in page.text
    assert "x" * 60 not in page.text


@pytest.mark.parametrize(("classes", "folded"), [(2, False), (20, False), (21, True), (150, True)])
def test_every_class_is_listed_worst_first(tmp_path, classes, folded):
    names = [f"class-{index:03}" for index in range(classes)]
    metrics = tallied(*scenes(40, classes)[1:], names).metrics()
    assert all(row["pixels"] for row in metrics["per_class"][: min(classes, 40)])
    page = written(tmp_path, card_of(names, metrics))
    listed = page.text[page.text.index("Classes, worst first") : page.text.index("Data")]
    scores = [float(score) for score in re.findall(r"class-\d{3} (\d+\.\d)", listed)][: min(classes, 40)]
    assert len(scores) == min(classes, 40)
    assert scores == sorted(scores)
    assert len(re.findall(r"class-\d{3}", listed)) == classes
    assert ("details" in page.tags) == folded
    assert ("The other class Class" in page.text) == (classes == 21)
    assert ("The other 130 classes" in page.text) == (classes == 150)


def test_poor_classes_are_marked_and_those_that_are_nowhere_come_last(tmp_path):
    rest = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "boundary_f": None, "share": 0.25}
    rows = [
        {"class": name, "iou": iou, "pixels": 0 if iou is None else 9} | rest
        for name, iou in (("nobody", None), ("good", 0.45), ("fair", 0.16), ("poor", 0.14))
    ]
    metrics = {"miou": 0.3, "per_class": rows}  # well below it is what has not half of it
    page = written(tmp_path, {"task": "segment", "metrics": metrics})
    assert "poor 14.0 50.0 50.0 50.0 – 25.0 fair 16.0" in page.text
    assert "good 45.0 50.0 50.0 50.0 – 25.0 nobody – – – – – 25.0" in page.text
    assert re.findall(r'<tr class="poor"><th scope="row">\s*<bdi>(\w+)', page.source) == ["poor"]


def test_one_class_needs_no_table_of_classes(tmp_path):
    directory, card = make(tmp_path / "run", ["ground"])
    page = written(directory, card)
    assert "Classes, worst first" not in page.headings
    assert "1 class data set" in page.text


@pytest.mark.parametrize("found", [1, 2])
def test_a_segmenter_that_is_always_wrong(tmp_path, found):
    tally = Tally(["a", "b", "c"])
    tally.add(np.zeros((4, 4), np.uint8), np.full((4, 4), found, np.uint8))
    page = written(tmp_path, card_of(["a", "b", "c"], tally.metrics()))
    assert "mIoU, Keras model 0.0 %" in page.text
    assert f"a {'abc'[found]} 16 100" in page.text
    assert "a 0.0 0.0 0.0 0.0 – 100" in page.text
    assert "None" not in page.text


def test_images_that_are_all_ignored(tmp_path):
    tally = Tally(["a", "b"])
    tally.add(np.full((4, 4), IGNORE, np.uint8), np.zeros((4, 4), np.uint8))
    page = written(tmp_path, card_of(["a", "b"], tally.metrics()))
    assert "None" not in page.text
    assert "What a user sees" not in page.headings


def test_pairs_of_many_classes_are_listed(tmp_path):
    names = [f"c{index}" for index in range(201)]
    metrics = tallied(*scenes(60, 201)[1:], names).metrics()
    assert "confusion" not in metrics
    page = written(tmp_path, card_of(names, metrics))
    assert "Confusions" in page.headings
    assert len(re.findall(r"c\d+ c\d+ \d", page.text)) == 8


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"metrics": None, "artifacts": None, "data": None, "training": None, "cost": None, "environment": None},
        {"metrics": {}, "artifacts": [], "head": "unheard_of"},
        {"metrics": {"miou": None, "pixel_accuracy": None, "precision": None, "f1": None, "per_class": []}},
        {"artifacts": [{"file": "a.tflite", "metrics": {"miou": None}, "comparison": None, "latency_ms": None}]},
    ],
)
def test_missing_parts_leave_no_headings(tmp_path, card):
    page = written(tmp_path, {"task": "segment"} | card)
    files = ["Files"] if card.get("artifacts") else []
    assert page.headings[1:] == [*files, "Use it, or make it again"]
    assert "img" not in page.tags
    assert "None" not in page.text


def test_each_part_may_be_missing(tmp_path):
    names = list("abcd")
    card = card_of(names, tallied(*scenes()[1:], names).metrics())
    for part in ("head", "classes", "metrics", "training", "data"):
        rest = {key: value for key, value in card.items() if key != part}
        assert "None" not in written(tmp_path, rest).text
    for part in card["metrics"]:
        rest = {key: value for key, value in card["metrics"].items() if key != part}
        assert "None" not in written(tmp_path, card | {"metrics": rest}).text
