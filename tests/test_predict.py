"""Predicting for folders: which file is taken and remembered, and that every image gets its own answer."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobilenets import card as cards
from mobilenets.architectures import network
from mobilenets.data.loader import evaluation_batches
from mobilenets.data.types import Split
from mobilenets.deployment import fastest, predict
from mobilenets.deployment.artifacts import digests
from mobilenets.deployment.runtimes import load as load_file
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.worker import Worker
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier
from mobilenets.models.saving import load_model, save_model

SIZE, COUNT = 32, 70
CLASSES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """70 photos, JPEG and PNG, of changing shape and colour; no two alike."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(COUNT):
        rng = np.random.default_rng(index)
        height, width = rng.integers(40, 120, 2).tolist()
        coarse = rng.integers(0, 256, (3, 4, 3), np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index}.{'png' if index % 5 == 0 else 'jpg'}"), picture)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model directory with three files, whose answers depend on the image."""
    directory = tmp_path_factory.mktemp("made") / "model"
    keras.utils.set_random_seed(0)
    model = classifier(network("v1"), (SIZE, SIZE, 3), len(CLASSES), 0.25)
    rng = np.random.default_rng(0)
    logits = keras.Model(model.input, model.get_layer("logits").output)
    images = rng.integers(0, 256, (16, 4, 4, 3), np.uint8).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)
    found = np.asarray(logits.predict_on_batch(images))
    kernel, bias = model.get_layer("logits").get_weights()
    scale = 2 / (found - found.mean(axis=0)).std()
    model.get_layer("logits").set_weights([kernel * scale, (bias - found.mean(axis=0)) * scale])
    save_model(model, directory / cards.MODEL)
    card = cards.begin(network("v1"), 0.25, SIZE, CLASSES, "a test")
    writer = Writer(model, list(images))
    for target, precision in (("litert", "float32"), ("litert", "int8"), ("onnx", "float32")):
        kind = TARGETS[target]
        for package in kind.packages:
            pytest.importorskip(package)
        path = writer.write(Variant(target, precision, batch=kind.batch), directory / cards.EXPORT)
        card["artifacts"].append(
            {
                "file": path.relative_to(directory).as_posix(),
                "files": digests(directory, path),
                "target": target,
                "runtime": kind.runtime,
                "precision": precision,
                "input_shape": [SIZE, SIZE, 3],
                "batch": kind.batch,
                "latency_ms": {"median": 1.0},
                "processor": "another",
            }
        )
    cards.write_card(directory, card)
    return directory


@pytest.fixture
def model(made, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "model")


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The names of the files that were measured; the times are told, LiteRT's int8 file being the fastest."""
    names = []

    def times(worker, batch, seconds):
        names.append(worker.path.name)
        return [(1.0 if worker.path.name == "model_int8.tflite" else 9.0) * batch]

    monkeypatch.setattr(fastest, "ROUNDS", 1)
    monkeypatch.setattr(Worker, "times", times)
    return names


def speeds(directory: Path) -> dict[str, float]:
    (found,) = json.loads((directory / "card.json").read_text())["speed"].values()
    return found


def names_of(found: dict) -> list[str]:
    return [Path(entry["file"]).name for entry in found["images"]]


def test_the_fastest_file_is_measured_once_and_remembered(model, photos, measured):
    found = predict.predict(model, [photos])
    assert found["file"].endswith("export/model_int8.tflite")
    assert sorted(measured) == ["model.onnx", "model.tflite", "model_int8.tflite"]
    assert {key.split()[0]: value for key, value in speeds(model).items()} == {
        "export/model.tflite": pytest.approx(9 / fastest.copies("litert")[0], abs=1e-4),
        "export/model_int8.tflite": pytest.approx(1 / fastest.copies("litert")[0], abs=1e-4),
        "export/model.onnx": pytest.approx(9 / fastest.copies("onnxruntime")[0], abs=1e-4),
    }
    measured.clear()
    assert predict.predict(model, [photos]) == found
    assert measured == []


def test_real_times_are_remembered_too(model, photos):
    predict.predict(model, [photos])
    known = speeds(model)
    assert len(known) == 3
    assert all(0 < value < 1000 for value in known.values())


def test_another_file_of_the_same_name_is_measured_anew(model, photos, measured):
    predict.predict(model, [photos])
    measured.clear()
    with (model / "export/model_int8.tflite").open("ab") as file:
        file.write(bytes(16))  # behind the flatbuffer, where nothing reads
    with pytest.raises(UserError, match="is not the file that was measured"):
        predict.predict(model, [photos])
    card = cards.read_card(model)
    for entry in card["artifacts"]:
        entry["files"] = digests(model, model / entry["file"])
    cards.write_card(model, card)
    predict.predict(model, [photos])
    assert measured == ["model_int8.tflite"]


def test_few_images_are_not_worth_measuring(model, photos, measured):
    found = predict.predict(model, sorted(photos.iterdir())[: predict.MANY - 1])
    assert measured == []
    assert found["file"].endswith("export/model.tflite")  # none is known on this processor: the first exported
    assert "speed" not in cards.read_card(model)


def test_a_card_that_cannot_be_written_is_no_obstacle(model, photos, measured, monkeypatch):
    def refuse(*_):
        raise UserError("read-only")

    before = (model / "card.json").read_bytes()
    monkeypatch.setattr(fastest.cards, "write_card", refuse)  # permissions do not stop root
    assert predict.predict(model, [photos])["file"].endswith("export/model_int8.tflite")
    assert (model / "card.json").read_bytes() == before
    measured.clear()
    predict.predict(model, [photos])
    assert len(measured) == 3


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "keras"])
def test_every_image_gets_the_answer_that_evaluation_gives_it(made, photos, runtime):
    files = sorted(photos.iterdir(), key=lambda path: -int(path.stem))
    found = predict.predict(made, files, runtime=runtime, precision=None if runtime == "keras" else "float32")
    assert names_of(found) == [path.name for path in files]
    split = Split(tuple(files), np.zeros(len(files), np.int64))
    file = {"litert": "export/model.tflite", "onnxruntime": "export/model.onnx", "keras": "model.keras"}[runtime]
    runner = load_file(made / file, runtime)
    expected = np.concatenate([runner(pixels) for pixels, _ in evaluation_batches(split, SIZE, 64)])
    assert len(np.unique(expected[:, 0].round(3))) > COUNT // 2  # so that a mix-up would show
    for entry, row in zip(found["images"], expected, strict=True):
        listed = {each["class"]: each["probability"] for each in entry["classes"]}
        np.testing.assert_allclose([listed[name] for name in CLASSES], row, atol=1e-5)
        assert entry["classes"][0]["class"] == CLASSES[row.argmax()]


def test_broken_images_are_skipped_and_harm_no_other(made, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    whole = predict.predict(made, [photos], runtime="litert", precision="float32")
    (folder / "2.jpg").write_bytes((photos / "2.jpg").read_bytes()[:300])
    (folder / "9.jpg").write_bytes(b"no image")
    for index in (20, 21, 22, 23):  # as many as are classified in one call
        (folder / f"{index}.{'png' if index == 20 else 'jpg'}").write_bytes(b"")
    found = predict.predict(made, [folder], runtime="litert", precision="float32")
    skipped = {Path(entry["file"]).name: entry["reason"] for entry in found["skipped"]}
    assert list(skipped) == ["2.jpg", "9.jpg", "20.png", "21.jpg", "22.jpg", "23.jpg"]
    assert skipped["2.jpg"] == "truncated"
    assert skipped["9.jpg"] == "not an image"
    assert skipped["20.png"] == "empty file"
    kept = {Path(entry["file"]).name: entry["classes"] for entry in whole["images"]}
    assert names_of(found) == [name for name in kept if name not in skipped]
    for entry in found["images"]:
        for one, other in zip(entry["classes"], kept[Path(entry["file"]).name], strict=True):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_nothing_readable_is_an_error(made, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a.jpg: not an image"):
        predict.predict(made, [tmp_path])


@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({"runtime": "onnxruntime"}, "export/model.onnx"),
        ({"runtime": "litert", "precision": "int8"}, "export/model_int8.tflite"),
        ({"precision": "int8"}, "export/model_int8.tflite"),
        ({"runtime": "keras"}, "model.keras"),
    ],
)
def test_runtime_and_precision_select(made, photos, options, file):
    found = predict.predict(made, [photos / "1.jpg"], **options)
    assert found["file"] == str(made / file)
    assert len(found["images"]) == 1


@pytest.mark.parametrize("options", [{"precision": "float16"}, {"runtime": "onnxruntime", "precision": "int8"}])
def test_what_was_not_exported_is_told(made, photos, options):
    with pytest.raises(UserError, match="write one with `mobilenets export"):
        predict.predict(made, [photos / "1.jpg"], **options)


def test_a_file_that_no_card_lists_runs_in_a_process_of_its_own(made, photos, tmp_path, monkeypatch):
    expected = predict.predict(made, [photos], runtime="litert", precision="float32")
    shutil.copy(made / "export/model.tflite", tmp_path / "loose.tflite")
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES) + "\n")

    def here(*_):
        raise AssertionError("loaded into this process")

    monkeypatch.setattr(predict, "load", here)
    found = predict.predict(tmp_path / "loose.tflite", [photos])
    assert names_of(found) == names_of(expected)
    for one, other in zip(found["images"], expected["images"], strict=True):
        assert one["classes"][0]["class"] == other["classes"][0]["class"]
    content = bytearray((tmp_path / "loose.tflite").read_bytes())
    content[8 : len(content) // 2] = bytes(len(content) // 2 - 8)
    (tmp_path / "loose.tflite").write_bytes(content)
    with pytest.raises(UserError, match=r"loose.tflite"):
        predict.predict(tmp_path / "loose.tflite", [photos])


@pytest.mark.parametrize("batch", [3, 8])
def test_files_for_several_images_a_call(made, photos, tmp_path, batch):
    path = Writer(load_model(made)).write(Variant("litert", batch=batch), tmp_path)
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES) + "\n")
    sizes = []
    run = Worker.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "__call__", lambda self, images: (sizes.append(len(images)), run(self, images))[1])
        found = predict.predict(path, [photos])
    expected = predict.predict(made, [photos], runtime="litert", precision="float32")
    for one, other in zip(found["images"], expected["images"], strict=True):
        assert one["classes"][0]["class"] == other["classes"][0]["class"]
    # Nothing but the last call is filled up with empty images.
    assert all(size % batch == 0 for size in sorted(sizes)[1:])
    assert sum(sizes) == COUNT


def test_a_file_for_smaller_images_is_taken_only_where_it_is_named(model, photos):
    card = cards.read_card(model)
    small, whole, _ = card["artifacts"]
    small |= {"input_shape": [SIZE // 2, SIZE // 2, 3], "latency_ms": {"median": 0.01}, "processor": cards.processor()}
    cards.write_card(model, card)
    found = predict.predict(model, [photos / "1.jpg"])
    assert found["file"] != str(model / small["file"])
    found = predict.predict(model, [photos / "1.jpg"], runtime="litert", precision="int8")
    assert found["file"] == str(model / whole["file"])


def test_a_file_that_takes_several_images_a_call_is_judged_by_the_image(model, photos):
    card = cards.read_card(model)
    for entry, median, batch in zip(card["artifacts"], (3.0, 8.0, 4.0), (1, 4, None), strict=True):
        entry |= {"latency_ms": {"median": median}, "batch": batch, "processor": cards.processor()}
    cards.write_card(model, card)
    assert predict.predict(model, [photos / "1.jpg"])["file"] == str(model / card["artifacts"][1]["file"])


@pytest.mark.parametrize("nonsense", [[1], {"x": 1}, None, "fast"])
def test_nonsense_about_speed_in_a_card_is_measured_anew(model, photos, nonsense):
    cards.write_card(model, cards.read_card(model) | {"speed": nonsense})
    assert len(predict.predict(model, [photos])["images"]) == COUNT
    assert all(value > 0 for value in list(cards.read_card(model)["speed"].values())[-1].values())


def test_a_runtime_that_is_not_installed_is_named_with_what_brings_it(model, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'mobilenets\[onnx\]'"):
        predict.predict(model, [photos / "1.jpg"], runtime="onnxruntime")


def test_a_runtime_that_is_no_name_is_told(model, photos):
    card = cards.read_card(model)
    card["artifacts"][0]["runtime"] = ["litert"]
    cards.write_card(model, card)
    with pytest.raises(UserError, match="damaged"):
        predict.predict(model, [photos / "1.jpg"])
