"""The report: complete in itself, safe against names, and without headings over nothing."""

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mobilenets.errors import UserError
from mobilenets.evaluation import (
    confident_mistakes,
    draw_confusion,
    draw_curves,
    draw_mistakes,
    measure,
    render,
)

HISTORY = [
    {"epoch": 1, "loss": 2.0, "accuracy": 0.3, "val_loss": 1.8, "val_accuracy": 0.4},
    {"epoch": 2, "loss": 0.5, "accuracy": 0.8, "val_loss": 0.9, "val_accuracy": 0.725},
]
HOSTILE = ["<script>alert(1)</script>", "\"><img src=x onerror='alert(2)'>", "{{ 7 * 7 }}", "$x$ & \udce9\n"]


class Page(HTMLParser):
    """Collects what a test wants to know of a page."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.words, self.sources = [], [], [], []
        self.headings = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join(" ".join(self.words).replace("\u202f", " ").split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in ("src", "href", "srcset"):
                self.sources.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)


def full_card(names, images=200, metrics=None):
    classes = len(names)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, classes, images)
    probabilities = draw.dirichlet(np.full(classes, 0.3), images)
    metrics = metrics or measure(probabilities, labels, names)
    artifact = {
        "file": "export/model.tflite",
        "runtime": "litert",
        "precision": "float32",
        "input_dtype": "uint8",
        "files": {"export/model.tflite": "0123456789abcdef" * 4},
        "bytes": 3_381_112,
        "comparison": {
            "images": images,
            "max_difference": 1.2e-6,
            "mean_difference": 1e-8,
            "top1_agreement": 0.995,
        },
        "metrics": metrics | {"accuracy": metrics["accuracy"] - 0.01},
        "latency_ms": {"median": 2.054, "p50": 2.05, "p95": 2.3, "p99": 2.6, "threads": 2, "rounds": 5, "batch": 4},
        "load_ms": 12.5,
        "memory": {"before": 100 * 2**20, "peak": 112 * 2**20},
        "measured": "2026-02-03T10:12:13Z",
    }
    card = {
        "format": 1,
        "tool": "mobilenets 0.1.0",
        "task": "classify",
        "network": "v1",
        "width_multiplier": 0.5,
        "resolution_multiplier": 0.714,
        "input_shape": [224, 224, 3],
        "classes": names,
        "preprocessing": {"range": [0, 255], "resize": "shorter side to 224 pixels, centre crop"},
        "command": "mobilenets train photos/ --net v1 --alpha 0.5",
        "created": "2026-02-03T10:02:13Z",
        "data": {
            "source": "photos/",
            "name": "photos",
            "fingerprint": "f" * 64,
            "train": 1437,
            "val": images,
            "skipped": 3,
            "seed": 0,
            "notes": ["class 'cat' has no image in val/"],
        },
        "training": {
            "epochs": 30,
            "seconds": 131.2,
            "images_per_second": 812.3,
            "freeze": False,
            "ema": None,
        },
        "cost": {"macs": 149_496_000, "params": 833_640, "peak_activation_bytes": 1_605_632},
        "metrics": metrics,
        "artifacts": [artifact],
        "environment": {"python": "3.11", "processor": "Some CPU", "packages": {"numpy": "2.4.6"}},
    }
    return card, probabilities, labels


def make(directory, names):
    card, probabilities, labels = full_card(names)
    directory.mkdir(parents=True)
    (directory / "card.json").write_text(json.dumps(card))
    with (directory / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY[0])
        writer.writeheader()
        writer.writerows(HISTORY)
    images = np.random.default_rng(0).integers(0, 255, (len(labels), 16, 16, 3)).astype(np.uint8)
    draw_curves(HISTORY, directory / "pictures" / "curves.png")
    draw_confusion(card["metrics"], directory / "pictures" / "confusion.png")
    chosen = confident_mistakes(probabilities, labels, count=5)
    path = directory / "pictures" / "mistakes.png"
    draw_mistakes(images, labels, probabilities, names, chosen, path)
    return directory


def test_a_full_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = make(tmp_path / "runs" / "photos", [f"class {index}" for index in range(10)])
    path = render(directory)
    assert path == directory / "report.html"
    page = Page(path)
    assert page.headings == [
        "MobileNet V1",
        "Files",
        "Training",
        "Confusion matrix",
        "Classes, worst first",
        "Most confident mistakes",
        "Data",
        "Cost",
        "Training settings",
        "Environment",
        "Use it, or make it again",
    ]
    for expected in (
        "α 0.5 ρ 0.714 224 × 224 pixels 10 classes data set photos",
        "3.38 MB",
        "−1.0 points",
        "99.5 %",
        "1.2·10⁻⁶",
        "2.05 ms",
        "4 images a call",
        "loads in 12.5 ms",
        "12.6 MB of memory",
        "sha256 0123456789ab…",
        "72.5 %, in epoch 2 of 2",
        "1 437",
        "class 'cat' has no image in val/",
        "2 min 11 s",
        "149 496 000",
        "Some CPU",
        "mobilenets train photos/ --net v1 --alpha 0.5",
        "mobilenets predict runs/photos image.jpg",
        "shorter side to 224 pixels, centre crop",
    ):
        assert expected in page.text, expected
    assert str(tmp_path) not in page.source
    assert page.tags.count("img") == 3


def test_loads_nothing_and_runs_nothing(tmp_path):
    page = Page(render(make(tmp_path / "run", ["a", "b"])))
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "script" not in page.tags
    assert "default-src 'none'" in page.source


def test_hostile_names_stay_names(tmp_path):
    directory = make(tmp_path / "run", HOSTILE)
    card = json.loads((directory / "card.json").read_text())
    card["data"] |= {"source": HOSTILE[1], "name": HOSTILE[0], "notes": [HOSTILE[0]]}
    card["environment"]["processor"] = card["artifacts"][0]["file"] = card["command"] = HOSTILE[1]
    card["network"] = card["tool"] = card["created"] = HOSTILE[0]
    card["artifacts"][0]["files"] = {HOSTILE[1]: HOSTILE[0]}
    (directory / "card.json").write_text(json.dumps(card))
    page = Page(render(directory))
    assert "script" not in page.tags
    assert page.tags.count("img") == 3
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_unicode_names(tmp_path):
    page = Page(render(make(tmp_path / "运行", ["猫", "一艘在海上航行的大船", "снег", "قطة"])))
    for name in ("猫", "一艘在海上航行的大船", "снег", "قطة"):
        assert name in page.text


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_every_class_is_listed_worst_first(tmp_path, classes):
    names = [f"class-{index:03}" for index in range(classes)]
    card, _, _ = full_card(names, images=2000)
    (tmp_path / "card.json").write_text(json.dumps(card))
    page = Page(render(tmp_path))
    per_class = page.text[page.text.index("Classes, worst first") :]
    scores = [float(score) for score in re.findall(r"class-\d{3} (\d+\.\d)", per_class)]
    assert len(scores) == classes
    assert scores == sorted(scores)
    assert ("details" in page.tags) == (classes > 20)


def test_classes_without_images_come_last(tmp_path):
    card, _, _ = full_card(["a", "b", "nobody"], metrics=None)
    card["metrics"] = measure(np.eye(3)[[0, 1, 1]], np.array([0, 0, 1]), ["a", "b", "nobody"])
    (tmp_path / "card.json").write_text(json.dumps(card))
    text = Page(render(tmp_path)).text
    assert "nobody – – – 0" in text


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"format": 1, "task": "classify", "network": "v1", "classes": ["a", "b"]},
        {
            "metrics": None,
            "artifacts": None,
            "data": None,
            "training": None,
            "cost": None,
            "environment": None,
        },
        {"metrics": {}, "artifacts": [], "data": {}, "training": {}, "cost": {}, "environment": {}},
        {"artifacts": [{"file": "export/model.tflite"}]},
        {"artifacts": [{"file": "a.tflite", "metrics": None, "comparison": None, "latency_ms": None}]},
    ],
)
def test_missing_parts_leave_no_headings(tmp_path, card):
    (tmp_path / "card.json").write_text(json.dumps(card))
    page = Page(render(tmp_path))
    files = ["Files"] if card.get("artifacts") else []
    assert page.headings[1:] == [*files, "Use it, or make it again"]
    assert "img" not in page.tags
    assert "None" not in page.text


def test_several_widths_are_a_row_each_and_weights_alone_in_int8_are_told(tmp_path):
    sizes = [(0.25, 160, 0.8123), (1.0, 160, 0.9), (1.0, 224, 0.9456)]
    members = [{"width_multiplier": a, "resolution": size, "accuracy": top, "macs": 10**7} for a, size, top in sizes]
    file = {"file": "export/model_int8.onnx", "precision": "int8", "computed": "float32", "input_dtype": "uint8"}
    (tmp_path / "card.json").write_text(json.dumps({"elastic": {"members": members}, "artifacts": [file]}))
    page = Page(render(tmp_path))
    assert page.headings[1:] == ["Files", "Every width and resolution", "Use it, or make it again"]
    assert "160 px 224 px α 0.25 81.2 % 10.0 M MACs – α 1 90.0 % 10.0 M MACs 94.6 % 10.0 M MACs" in page.text
    assert "int8 weights, computed in float32, uint8 images" in page.text


CHOSEN = {
    "budget": {"latency_ms": 5, "size_kb": 500},
    "shares": {"latency_ms": 0.8, "size_kb": 0.5},
    "metric": "f1",
    "winner": {"width_multiplier": 0.5, "resolution": 96, "precision": "int8", "runtime": "litert", "macro_f1": 0.9},
    "runners_up": [{"width_multiplier": 0.25, "resolution": 64, "precision": "int8", "runtime": "litert"}],
    "steps": [{"limit": "latency_ms", "needs": 6.0, "row": {"width_multiplier": 1, "resolution": 128}}],
    "stages": [{"stage": "extracted", "macro_f1": 0.8}, {"stage": "tuned", "macro_f1": 0.9}],
    "stage": "tuned",
    "fitting": 3,
    "considered": 32,
    "notes": ["<b>measured</b> again"],
}


def test_what_a_budget_chose_is_told(tmp_path):
    (tmp_path / "card.json").write_text(json.dumps({"chosen": CHOSEN}))
    page = Page(render(tmp_path))
    for words in (
        "Chosen by budget",
        "The best F1 of 32 measured files, of which 3 fit",
        "chosen, tuned",
        "as extracted",
        "next best",
    ):
        assert words in page.text
    assert "latency at most 5.00 ms, of which 80.0 % is used; size at most 500 kB" in page.text
    assert "latency 6.00 ms buys" in page.text
    assert "<b>measured</b> again." in page.text


@pytest.mark.parametrize(
    "chosen",
    [
        *("x", [], 1, {}, {"winner": 1}, {"winner": {}}),
        CHOSEN | {"budget": 1, "shares": "x", "runners_up": 1, "steps": {}, "stages": "y", "notes": 3},
        CHOSEN | {"runners_up": [1], "steps": [1, {"limit": "x"}, {"limit": "size_kb", "row": 1}], "stages": [2]},
        CHOSEN | {"budget": {"latency_ms": "fast"}, "steps": [{"limit": "size_kb", "needs": [], "row": {}}]},
        CHOSEN | {"winner": {"width_multiplier": 10**400, "resolution": [], "macro_f1": "x", "file_bytes": {}}},
    ],
)
def test_nonsense_about_a_choice_is_no_traceback(tmp_path, chosen):
    (tmp_path / "card.json").write_text(json.dumps({"chosen": chosen}))
    assert render(tmp_path).is_file()


@pytest.mark.parametrize(
    "elastic",
    ["x", [1], {"members": 1}, {"members": [1, {"width_multiplier": [], "resolution": 1}, {"resolution": 1}]}],
)
def test_nonsense_about_several_widths_is_no_traceback(tmp_path, elastic):
    (tmp_path / "card.json").write_text(json.dumps({"elastic": elastic}))
    assert "Every width and resolution" not in Page(render(tmp_path)).headings


def test_each_part_may_be_missing(tmp_path):
    card, _, _ = full_card(["a", "b", "c"])
    for part in card:
        rest = {key: value for key, value in card.items() if key != part}
        (tmp_path / "card.json").write_text(json.dumps(rest))
        assert "None" not in Page(render(tmp_path)).text


def test_a_damaged_picture_or_history_is_left_out(tmp_path):
    directory = make(tmp_path / "run", ["a", "b"])
    (directory / "pictures" / "curves.png").write_bytes(b"no picture")
    (directory / "history.csv").write_text("epoch,val_accuracy\n1,\n2,nan\n")
    page = Page(render(directory))
    assert "Training" not in page.headings
    assert page.tags.count("img") == 2


@pytest.mark.parametrize("content", [None, "{", "[]", b"\xff\xfe"])
def test_an_unreadable_card_is_one_line(tmp_path, content):
    if content is not None:
        path = tmp_path / "card.json"
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    with pytest.raises(UserError, match=r"card\.json") as caught:
        render(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()
