"""The main job as a user does it: train, evaluate, export and predict, on digits and on folders of photos; the demo."""

import json
import os
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="LiteRT files are written with TensorFlow"
)


def card_of(directory):
    return json.loads((directory / "card.json").read_text())


@pytest.mark.long
def test_digits_reach_98_percent_as_model_and_as_file(job):
    _, found = job
    assert found["keras"]["accuracy"] >= 0.98
    assert found["file"]["accuracy"] >= 0.98
    assert found["artifact"]["comparison"]["max_difference"] < 1e-4
    assert found["artifact"]["comparison"]["top1_agreement"] == 1


def test_training_and_export_leave_a_complete_directory(job):
    directory, found = job
    for name in ("model.keras", "card.json", "history.csv", "report.html", "pictures/curves.png"):
        assert (directory / name).stat().st_size > 0
    assert (directory / "export" / "labels.txt").read_text().split() == list("0123456789")
    card = card_of(directory)
    assert card["artifacts"] == [found["artifact"]]
    assert card["command"].startswith("mobilenets")
    report = (directory / "report.html").read_text()
    assert f"{found['file']['accuracy'] * 100:.1f}"[:4] in report


def test_the_file_takes_pixels_as_they_are_and_gives_what_the_card_says(job):
    """Run by LiteRT alone, with nothing of ours between the image and the probabilities."""
    from ai_edge_litert.interpreter import Interpreter

    from mobilenets.data import load
    from mobilenets.data.resizing import fit

    directory, found = job
    interpreter = Interpreter(str(directory / found["artifact"]["file"]))
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["dtype"], source["shape"].tolist()) == (np.uint8, [1, 32, 32, 3])
    assert (target["dtype"], target["shape"].tolist()) == (np.float32, [1, 10])
    val = load("digits").val
    right = 0
    for image, label in zip(val.images, val.labels, strict=True):
        interpreter.set_tensor(source["index"], fit(image, 32)[None])
        interpreter.invoke()
        right += interpreter.get_tensor(target["index"])[0].argmax() == label
    assert right / len(val) == pytest.approx(found["file"]["accuracy"])


def test_evaluate_measures_what_training_measured(job, model, cli):
    status, out, err = cli("evaluate", model, "--json")
    assert (status, err) == (0, "")
    found, trained = json.loads(out), job[1]["keras"]
    # Where an array lies in memory may tell in the last digits.
    assert found == trained | {"log_loss": pytest.approx(trained["log_loss"], rel=1e-6)}
    status, out, _ = cli("evaluate", model)
    assert status == 0
    assert "macro F1" in out
    assert "report.html" in out


def test_export_of_float32_input_stands_beside_the_other(model, cli):
    status, out, err = cli("export", model, "--input", "float32", "--json")
    assert (status, err) == (0, "")
    (entry,) = json.loads(out)["artifacts"]
    assert entry["input_dtype"] == "float32"
    assert entry["comparison"]["max_difference"] < 1e-4
    assert [artifact["file"] for artifact in card_of(model)["artifacts"]] == [
        "export/model.tflite",
        "export/model_float32_input.tflite",
    ]


@pytest.mark.parametrize("runtime", ["keras", "litert"])
def test_predict_reads_files_and_folders(job, model, cli, tmp_path, runtime):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    names = sorted((job[0] / "samples").glob("*.png"))
    for index, name in enumerate(names):
        shutil.copy(name, photos / ("more" if index % 2 else "") / name.name)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    status, out, err = cli("predict", model, photos, names[0], "--runtime", runtime, "--json")
    assert status == 0
    assert re.fullmatch(r"skipped \S+broken\.jpg: [^\n]+\n", err)
    found = json.loads(out)
    assert found["runtime"] == runtime
    assert len(found["images"]) == len(names) + 1
    expected = {entry["file"].rsplit("/", 1)[1]: entry for entry in job[1]["predictions"]}
    for entry in found["images"]:
        first, *rest = entry["classes"]
        wanted = expected[entry["file"].rsplit("/", 1)[1]]
        assert first["class"] == wanted["classes"][0]["class"]
        assert first["probability"] == pytest.approx(wanted["classes"][0]["probability"], abs=1e-4)
        assert len(rest) == 2
        assert rest[0]["probability"] <= first["probability"]


@pytest.mark.slow  # `make demo` is a part of what every change must pass
def test_the_demo_ends_with_a_file_that_fits(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mobilenets", "demo", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found, directory = json.loads(done.stdout), tmp_path / "runs" / "demo"
    assert found["seconds"] < 300
    assert found["file"]["accuracy"] >= 0.97
    assert found["artifact"]["bytes"] <= 300e3
    assert card_of(directory)["artifacts"] == [found["artifact"]]
    assert card_of(directory)["chosen"]["considered"] == 12  # three widths, two sizes, float32 and int8
    assert (directory / "stages" / "elastic" / "grid" / "report.html").stat().st_size > 0
    right = sum(entry["class"] == entry["truth"] for entry in found["predictions"])
    assert right >= len(found["predictions"]) - 1


def test_predict_needs_no_keras_once_a_file_is_exported(job):
    code = (
        "import sys; sys.argv = ['mobilenets', 'predict', *sys.argv[1:]]\n"
        "from mobilenets.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    directory = job[0]
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory), str(directory / "samples")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def spoil_card(directory, **changes):
    (directory / "card.json").write_text(json.dumps(card_of(directory) | changes))


@pytest.mark.parametrize(
    ("spoil", "verb", "words"),
    [
        (lambda run: (run / "export/model.tflite").write_bytes(b"x"), "predict", "is not the file that was measured"),
        (lambda run: (run / "export/model.tflite").unlink(), "predict", "is gone"),
        (lambda run: (run / "card.json").unlink(), "predict", "not a model directory"),
        (lambda run: (run / "card.json").write_text('{"format": 1'), "evaluate", "card.json: damaged"),
        (lambda run: (run / "card.json").write_text("[" * 100_000), "evaluate", "card.json: damaged"),
        (lambda run: spoil_card(run, format=99), "evaluate", "newer version"),
        (lambda run: spoil_card(run, classes=[]), "evaluate", "classes"),
        (lambda run: spoil_card(run, input_shape=[64, 64, 3]), "evaluate", "do not belong together"),
        (lambda run: spoil_card(run, classes=list("abcdefghij")), "evaluate", "classes"),
        (lambda run: (run / "model.keras").write_bytes(b"PK\x03\x04"), "evaluate", "model.keras: damaged"),
        (lambda run: (run / "model.keras").unlink(), "export", "no such model"),
    ],
)
def test_a_spoiled_directory_is_told_in_one_line(model, cli, job, spoil, verb, words):
    spoil(model)
    paths = [job[0] / "samples"] if verb == "predict" else []
    status, out, err = cli(verb, model, *paths)
    assert (status, out) == (2, "")
    assert err.startswith("mobilenets: error: ")
    assert err.count("\n") == 1
    assert words in err


def test_a_card_that_points_outside_its_directory_is_not_followed(model, cli, job):
    card = card_of(model)
    card["artifacts"][0]["file"] = "../../outside.tflite"
    spoil_card(model, artifacts=card["artifacts"])
    status, _, err = cli("predict", model, job[0] / "samples")
    assert status == 2
    assert "outside the directory" in err


def photo(path, colour: int, index: int) -> None:
    """A photo-like JPEG of one dominant colour channel, of changing size and shape."""
    rng = np.random.default_rng([colour, index])
    height, width = rng.integers(60, 200, 2)
    pixels = rng.integers(0, 90, (height, width, 3))
    pixels[..., colour] += 150
    cv2.imwrite(str(path), cv2.GaussianBlur(pixels.astype(np.uint8)[..., ::-1], (5, 5), 0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red, green and blue photos, one of them in every way that breaks or bends a file."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for colour, name in enumerate(("red", "绿 green", "blue & co")):
        (folder / name).mkdir(parents=True)
        for index in range(20):
            photo(folder / name / f"{index}.jpg", colour, index)
    red = folder / "red"
    (red / "empty.jpg").write_bytes(b"")
    (red / "cut.jpg").write_bytes((red / "0.jpg").read_bytes()[:900])
    (red / "text.png").write_text("this is no image")
    Image.new("CMYK", (70, 50), (0, 240, 240, 10)).save(red / "cmyk.jpg")
    Image.new("RGBA", (70, 50), (230, 20, 20, 128)).save(red / "alpha.webp")
    Image.new("P", (70, 50)).save(folder / "blue & co" / "palette.gif")
    return folder


@pytest.mark.long
def test_the_main_job_on_a_folder_of_ones_own(photos, cli, tmp_path):
    out = tmp_path / "runs" / "photos"
    status, text, err = cli("data", photos, "--sheet", tmp_path / "sheet.png")
    assert (status, err) == (0, "")
    assert "绿 green" in text
    for name in ("empty.jpg", "cut.jpg", "text.png"):
        assert re.search(rf"left out: .*{name}: \w+", text)
    assert Image.open(tmp_path / "sheet.png").size[0] > 100

    options = ["--net", "v1", "--alpha", "0.25", "--size", "32", "--epochs", "30", "--batch-size", "16"]
    status, text, err = cli("train", photos, *options, "--optimizer", "sgd", "--lr", "0.05", "--out", out)
    assert status == 0, err
    assert "3 files could not be read" in err
    card = card_of(out)
    assert card["classes"] == ["blue & co", "red", "绿 green"]
    assert card["data"]["skipped"] == 3
    assert card["metrics"]["accuracy"] >= 0.8
    assert cli("evaluate", out)[0] == 0
    status, text, err = cli("export", out, "--to", "litert")
    assert status == 0, err
    assert card_of(out)["artifacts"][0]["metrics"]["accuracy"] == card["metrics"]["accuracy"]
    status, text, err = cli("predict", out, photos / "red" / "1.jpg", photos / "blue & co")
    assert (status, err) == (0, "")
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "blue &amp; co" in report
    assert "绿 green" in report

    # Images that have changed since might be ones that were trained on.
    (photos / "red" / "1.jpg").rename(photos / "red" / "one.jpg")
    status, _, err = cli("evaluate", out)
    assert status == 2
    assert "has changed since" in err
    status, text, _ = cli("evaluate", out, "--data", photos)
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "nowhere/"), "nowhere"),
        (("train", "digitz"), "digits"),
        (("train", "digits", "--net", "v9"), "v1"),
        (("train", "digits", "--alpha", "0"), "alpha"),
        (("train", "digits", "--epochs", "0"), "--epochs"),
        (("train", "digits", "--size", "7"), "--size"),
        (("train", "digits", "--epochs", "two"), "--epochs"),
        (("train", "digits", "--frobnicate"), "--frobnicate"),
        (("evaluate", "nowhere"), "not a model directory"),
        (("export", "nowhere"), "not a model directory"),
        (("predict", "nowhere", "image.jpg"), "not a model directory"),
        (("data", "nowhere/"), "nowhere"),
        (("dance",), "dance"),
    ],
)
def test_a_mistake_is_one_line_exit_2_and_leaves_nothing(cli, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("mobilenets: error: ")
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({}, "empty|no image|holds no"),
        ({"one": 4}, "one class|single class|only class"),
        ({"one": 4, "two": 0}, "two"),
        ({"train/one": 3, "train/two": 3, "val/one": 2, "val/three": 2}, "three"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_told_in_one_line(cli, tmp_path, layout, words):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, count in layout.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            photo(folder / name / f"{index}.jpg", 0, index)
        if not count:
            (folder / name / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    status, out, err = cli("train", folder, "--out", tmp_path / "run")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(words, err)
    assert not (tmp_path / "run").exists()


def test_a_class_missing_from_val_is_noted_and_trained_all_the_same(cli, tmp_path):
    folder = tmp_path / "photos"
    for name in ("train/one", "train/two", "train/three", "val/one", "val/two"):
        (folder / name).mkdir(parents=True)
        for index in range(6):
            photo(folder / name / f"{index}{name[0]}.jpg", ["one", "two", "three"].index(name.split("/")[1]), index)
    options = ["--alpha", "0.25", "--size", "16", "--epochs", "1", "--out", tmp_path / "run"]
    status, _, err = cli("train", folder, *options)
    assert status == 0, err
    assert re.search("note: no validation image of .three.", err)
    card = card_of(tmp_path / "run")
    assert card["metrics"]["per_class"][1]["support"] == 0
    assert "three" in " ".join(card["data"]["notes"])


def test_help_answers_at_once():
    best = float("inf")
    for _ in range(3):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "mobilenets", "--help"], capture_output=True, check=True)
        after = os.times()
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    assert b"train" in done.stdout
    assert best < 0.3
