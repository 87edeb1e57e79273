"""What is exported is what was measured, and what is not as good as the model does not leave: each on real files."""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

from exported import HERE, card_of, copy, exported, one_line, samples, short_latency, write_card
from mobilenets.data import load as load_data
from mobilenets.deployment import targets, verify
from mobilenets.deployment.export import export
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import PRECISIONS, TARGETS, Variant

BOTH = [target for target in ("litert", "onnx") if target in HERE]
SUFFIX = {target: TARGETS[target].suffix for target in TARGETS}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(verify, "measure_latency", short_latency)


@pytest.fixture
def model(place, tmp_path):
    """A model directory without files."""
    return copy(place, tmp_path)


# -- every target and precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("target", HERE)
def test_every_file_is_in_the_card_with_what_was_measured_on_it(place, target, precision):
    directory = exported(place)
    card = card_of(directory)
    name = Variant(target, precision, batch=TARGETS[target].batch).name
    (entry,) = [entry for entry in card["artifacts"] if entry["file"] == f"export/{name}"]
    assert (entry["target"], entry["precision"]) == (target, precision)
    assert entry["runtime"] == TARGETS[target].runtime
    assert (entry["input_dtype"], entry["input_shape"]) == ("uint8", [32, 32, 3])
    there = directory / entry["file"]
    parts = [part for part in there.rglob("*") if part.is_file()] if there.is_dir() else [there]
    parts += [there.with_suffix(".bin")] if target == "openvino" else []
    assert entry["files"] == {
        part.relative_to(directory).as_posix(): hashlib.sha256(part.read_bytes()).hexdigest() for part in parts
    }
    assert entry["bytes"] == sum(part.stat().st_size for part in parts)
    images = len(load_data("digits").val)
    assert entry["metrics"]["images"] == entry["comparison"]["images"] == images
    allowed = {"float32": 1e-4, "float16": 0.05, "int8": 1}[precision]
    assert 0 < entry["comparison"]["max_difference"] < allowed
    assert 0 < entry["comparison"]["colours_max_difference"] < allowed
    if precision == "float32":
        assert entry["comparison"]["top1_agreement"] == 1
        assert entry["metrics"]["accuracy"] == card["metrics"]["accuracy"]
    assert entry["metrics"]["accuracy"] >= card["metrics"]["accuracy"] - 0.01
    assert entry["latency_ms"]["median"] > 0
    assert entry["load_ms"] > 0
    if sys.platform == "linux":
        assert entry["memory"]["peak"] > entry["memory"]["before"] > 0


def test_nothing_is_left_beside_the_files(place):
    card = card_of(exported(place))
    listed = {name for entry in card["artifacts"] for name in entry["files"]} | {"export/labels.txt"}
    found = exported(place) / "export"
    assert {path.relative_to(exported(place)).as_posix() for path in found.rglob("*") if path.is_file()} == listed
    assert "refused" not in card


@pytest.mark.parametrize(
    "target", [pytest.param(target, marks=pytest.mark.slow) if target == "savedmodel" else target for target in HERE]
)
def test_evaluate_measures_on_a_file_what_its_card_says(place, cli, target):
    entry = next(
        entry
        for entry in card_of(exported(place))["artifacts"]
        if (entry["target"], entry["precision"]) == (target, "int8")
    )
    status, out, err = cli("evaluate", exported(place) / entry["file"], "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["accuracy"] == entry["metrics"]["accuracy"]


def test_predict_says_the_same_with_every_file(place, cli, tmp_path):
    images = samples(tmp_path / "samples")
    found = {}
    for entry in card_of(exported(place))["artifacts"]:
        status, out, err = cli("predict", exported(place) / entry["file"], images, "--top", 1, "--json")
        assert (status, err) == (0, ""), entry["file"]
        found[entry["file"]] = [image["classes"][0] for image in json.loads(out)["images"]]
    assert len(found) == len(HERE) * len(PRECISIONS)
    first = found["export/model.tflite"]
    assert len({entry["class"] for entry in first}) > 2
    for file, classes in found.items():
        assert [entry["class"] for entry in classes] == [entry["class"] for entry in first], file
        difference = max(abs(a["probability"] - b["probability"]) for a, b in zip(first, classes, strict=True))
        assert difference < (0.1 if "int8" in file else 0.01 if "float16" in file else 1e-4), file


# -- broken files -----------------------------------------------------------------------------------------------------


def first_convolution(graph, change):
    index = next(index for index, op in enumerate(graph.ops) if op.kind == "conv")
    return changed(graph, index, change)


def head(graph, change):
    index = next(index for index, op in enumerate(graph.ops) if op.kind == "dense")
    return changed(graph, index, change)


def changed(graph, index, change):
    op = graph.ops[index]
    return replace(graph, ops=(*graph.ops[:index], replace(op, **change(op)), *graph.ops[index + 1 :]))


BREAKS = {
    "pixels scaled twice": lambda graph: first_convolution(graph, lambda op: {"kernel": op.kernel / 127.5}),
    "classes shuffled": lambda graph: head(
        graph, lambda op: {"kernel": np.roll(op.kernel, 1, axis=-1), "bias": np.roll(op.bias, 1)}
    ),
    # On grey digits this changes no probability.
    "red and blue swapped": lambda graph: first_convolution(
        graph, lambda op: {"kernel": np.ascontiguousarray(op.kernel[:, :, ::-1])}
    ),
    # As accurate as before.
    "one percent off": lambda graph: head(graph, lambda op: {"kernel": op.kernel * 0.99}),
}


def break_files(monkeypatch, how, only=("litert", "onnx")):
    """Files of these targets are from now on written from a changed graph."""
    if "litert" in only:
        write = targets.write_tflite
        monkeypatch.setattr(targets, "write_tflite", lambda graph, *a, **k: write(how(graph), *a, **k))
    if "onnx" in only and "onnx" in HERE:
        from mobilenets.deployment import onnx_file

        write_onnx = onnx_file.write_onnx
        monkeypatch.setattr(onnx_file, "write_onnx", lambda graph, *a, **k: write_onnx(how(graph), *a, **k))


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("pixels scaled twice", "accuracy fell by"),
        ("classes shuffled", "accuracy fell by"),
        ("red and blue swapped", "off the Keras model's on coloured squares, where float32 may be 0.001 off"),
        ("one percent off", "off the Keras model's, where float32 may be 0.001 off"),
    ],
)
def test_a_broken_file_is_refused(model, cli, monkeypatch, broken, words):
    break_files(monkeypatch, BREAKS[broken])
    err = one_line(cli("export", model, "--to", ",".join(BOTH)), words)
    card = card_of(model)
    assert card["artifacts"] == []
    assert [entry["file"] for entry in card["refused"]] == [f"export/model{SUFFIX[target]}.refused" for target in BOTH]
    for entry in card["refused"]:
        assert words in entry["reason"]
        assert str(model / entry["file"]) in err
        assert (model / entry["file"]).is_file()
        assert not (model / entry["file"]).with_suffix("").exists()
    assert {path.name for path in (model / "export").iterdir()} == {
        "labels.txt",
        *(f"model{SUFFIX[target]}.refused" for target in BOTH),
    }


def test_integers_that_take_red_for_blue_are_refused_even_where_all_images_are_grey(model, cli, monkeypatch):
    break_files(monkeypatch, BREAKS["red and blue swapped"], only=("litert",))
    one_line(cli("export", model, "--precision", "int8"), "model_int8.tflite.refused", "it takes red for blue")
    assert card_of(model)["artifacts"] == []


def test_a_refused_file_takes_the_place_of_an_earlier_one_and_of_none_other(place, tmp_path, cli, monkeypatch):
    model = copy(place, tmp_path, "model.tflite", "model_float16.tflite")
    with monkeypatch.context() as broken:
        break_files(broken, BREAKS["classes shuffled"], only=("litert",))
        err = one_line(cli("export", model, "--to", ",".join(BOTH)), "model.tflite.refused: refused, accuracy fell")
    others = ["export/model.onnx"] if "onnx" in HERE else []
    assert ("exported all the same: export/model.onnx" in err) == bool(others)
    card = card_of(model)
    assert [entry["file"] for entry in card["artifacts"]] == ["export/model_float16.tflite", *others]
    assert not (model / "export" / "model.tflite").exists()
    assert "model.tflite.refused" in (model / "report.html").read_text()
    one_line(cli("predict", model / "export" / "model.tflite.refused", model), "no file that can be run")

    # Written again, and good: nothing tells of the other any more.
    status, _, err = cli("export", model)
    assert (status, err) == (0, "")
    card = card_of(model)
    assert "export/model.tflite" in [entry["file"] for entry in card["artifacts"]]
    assert "refused" not in card
    assert not list((model / "export").glob("*.refused"))


@pytest.mark.skipif("openvino" not in HERE, reason="OpenVINO is not installed")
def test_both_parts_of_a_refused_openvino_file_are_kept_and_later_removed(model, monkeypatch):
    with monkeypatch.context() as broken:
        break_files(broken, BREAKS["classes shuffled"])
        with pytest.raises(ValueError, match="model.xml.refused: refused"):
            export(model, ["openvino"])
    names = {path.name for path in (model / "export").iterdir()}
    assert names == {"labels.txt", "model.xml.refused", "model.bin.refused"}
    export(model, ["openvino"])
    assert {path.name for path in (model / "export").iterdir()} == {"labels.txt", "model.xml", "model.bin"}


def test_a_file_that_cannot_be_loaded_is_refused(model, cli, monkeypatch):
    monkeypatch.setattr(targets, "write_tflite", lambda graph, path, **_: Path(path).write_bytes(b"no flatbuffer" * 99))
    one_line(cli("export", model), "model.tflite.refused: refused, it cannot be run: damaged or not a LiteRT file")
    assert card_of(model)["artifacts"] == []
    assert (model / "export" / "model.tflite.refused").read_bytes().startswith(b"no flatbuffer")


def test_a_file_that_kills_its_process_is_refused_and_harms_nobody(model, cli, monkeypatch):
    class Killed(verify.Worker):
        def __call__(self, images):
            if self.path.suffix == ".tflite":
                os.kill(self._process.pid, signal.SIGSEGV)
            return super().__call__(images)

    monkeypatch.setattr(verify, "Worker", Killed)
    one_line(
        cli("export", model, "--to", ",".join(BOTH)), "model.tflite.refused: refused, it cannot be run", "signal 11"
    )
    others = ["export/model.onnx"] if "onnx" in HERE else []
    assert [entry["file"] for entry in card_of(model)["artifacts"]] == others


def test_a_full_disk_is_told_in_one_line_and_leaves_the_earlier_file(place, tmp_path, cli, monkeypatch):
    model = copy(place, tmp_path, "model.tflite")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(targets, "write_tflite", full)
    before = card_of(model)
    one_line(cli("export", model), "model.tflite: no space left on the disk")
    assert card_of(model) == before
    assert {path.name for path in (model / "export").iterdir()} == {"labels.txt", "model.tflite"}


# -- accuracy that integers may lose ----------------------------------------------------------------------------------


def test_max_drop_decides_about_integers(model, cli, monkeypatch):
    calibrate = targets.calibrate

    def absurd(graph, images):
        return {name: (low * 40, high * 40) for name, (low, high) in calibrate(graph, images).items()}

    monkeypatch.setattr(targets, "calibrate", absurd)
    one_line(cli("export", model, "--precision", "int8"), "model_int8.tflite.refused", "where --max-drop allows 1")
    assert card_of(model)["artifacts"] == []
    status, out, err = cli("export", model, "--precision", "int8", "--max-drop", "100", "--json")
    assert (status, err) == (0, "")
    (entry,) = json.loads(out)["artifacts"]
    lost = card_of(model)["metrics"]["accuracy"] - entry["metrics"]["accuracy"]
    assert lost > 0.01
    assert "refused" not in card_of(model)

    # Precisely what it lost is allowed.
    assert cli("export", model, "--precision", "int8", "--max-drop", f"{lost * 100:.8f}")[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-drop", "nan"), "--max-drop must be from 0 to 100"),
        (("--max-drop", "-1"), "--max-drop must be from 0 to 100"),
        (("--max-drop", "101"), "--max-drop must be from 0 to 100"),
        (("--threads", "0"), "--threads must be at least 1"),
        (("--batch", "0"), "--batch must be dynamic or from 1"),
        (("--batch", "four"), "--batch must be dynamic or from 1"),
        (("--size", "5"), "--size must be from 8"),
        (("--input", "int8"), "--input must be uint8 or float32"),
        (("--precision", "int4"), "--precision must be of float32, float16, int8"),
        (("--to", "coreml"), "--to coreml: cannot be written; choose of litert"),
        (("--to", ""), "must name at least one file"),
        (("--precision", "int8", "--calibrate", "nowhere/"), "nowhere/"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(model, cli, options, words):
    before = card_of(model)
    one_line(cli("export", model, *options), words)
    assert card_of(model) == before
    assert list((model / "export").iterdir()) == [model / "export" / "labels.txt"]


# -- packages that are not installed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "package", "extra"), [("onnx", "onnx", "onnx"), ("onnx", "onnxruntime", "onnx"), ("openvino",) * 3]
)
def test_export_names_the_extra_that_is_missing(model, cli, monkeypatch, target, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    before = card_of(model)
    one_line(cli("export", model, "--to", f"litert,{target}"), f"{package} is not installed", f"'mobilenets[{extra}]'")
    assert card_of(model) == before


@pytest.mark.skipif("openvino" not in HERE, reason="OpenVINO is not installed")
@pytest.mark.parametrize("file", ["model.xml", "model.tflite"])
def test_predict_names_the_extra_that_is_missing(place, cli, monkeypatch, tmp_path, file):
    images = samples(tmp_path / "samples", 1)
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = cli("predict", exported(place) / "export" / file, images, "--runtime", "openvino")
    one_line(found, "openvino is not installed", "'mobilenets[openvino]'")


# -- batch, size and type of the input --------------------------------------------------------------------------------


def test_files_for_several_images_a_call(place, model):
    entries = export(model, BOTH, batch=4)
    assert [entry["file"] for entry in entries] == [f"export/model_batch4{SUFFIX[target]}" for target in BOTH]
    images = digits(32, 6)
    expected = load(exported(place) / "export" / "model.tflite")(images)
    for entry in entries:
        assert entry["batch"] == 4
        assert entry["comparison"]["max_difference"] < 1e-4
        runner = load(model / entry["file"])
        assert runner.batch == 4
        assert raw_shape(model / entry["file"])[0] == 4
        np.testing.assert_allclose(runner(images), expected, atol=1e-5)  # six: once four, once two and two blanks


def test_a_litert_file_for_any_number_of_images(place, model, cli):
    status, _, err = cli("export", model, "--batch", "dynamic")
    assert (status, err) == (0, "")
    (entry,) = card_of(model)["artifacts"]
    assert (entry["file"], entry["batch"]) == ("export/model_dynamic.tflite", None)
    runner, images = load(model / entry["file"]), digits(32, 7)
    expected = load(exported(place) / "export" / "model.tflite")(images)
    for count in (7, 1, 3):
        np.testing.assert_allclose(runner(images[:count]), expected[:count], atol=1e-5)


def test_files_of_another_size_and_type_of_input(model, cli):
    status, out, err = cli("export", model, "--to", ",".join(BOTH), "--size", 24, "--input", "float32", "--json")
    # Digits are told apart worse in 24 pixels than in the 32 of the training, by files as by the model.
    assert (status, err) == (0, "")
    entries = json.loads(out)["artifacts"]
    card = card_of(model)
    assert card["artifacts"] == entries
    assert [entry["file"] for entry in entries] == [
        f"export/model_float32_input_24px{SUFFIX[target]}" for target in BOTH
    ]
    images = digits(24, 5)
    outputs = []
    for entry in entries:
        assert (entry["input_shape"], entry["input_dtype"]) == ([24, 24, 3], "float32")
        assert entry["comparison"]["max_difference"] < 1e-4
        outputs.append(load(model / entry["file"])(images))
        assert raw_shape(model / entry["file"])[1:] == [24, 24, 3]
    status, out, _ = cli("evaluate", model / entries[0]["file"], "--json")
    assert json.loads(out)["accuracy"] == entries[0]["metrics"]["accuracy"]
    np.testing.assert_allclose(outputs[0], outputs[-1], atol=1e-4)
    assert card["input_shape"] == [32, 32, 3]  # the model's own is what it was


def digits(size: int, count: int) -> np.ndarray:
    from mobilenets.data.resizing import fit

    return np.stack([fit(image, size) for image in load_data("digits").val.images[:count]])


def raw_shape(path) -> list[int]:
    """The shape of a file's input, as its runtime alone tells."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(str(path)).get_input_details()[0]["shape"].tolist()
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()[0].shape


# -- images to calibrate on -------------------------------------------------------------------------------------------


def seen(monkeypatch) -> list[bytes]:
    """Bytes of the images that files are calibrated on from now on."""
    found, calibrate = [], targets.calibrate

    def noting(graph, images):
        found.extend(image.tobytes() for image in images)
        return calibrate(graph, images)

    monkeypatch.setattr(targets, "calibrate", noting)
    return found


@pytest.mark.parametrize("options", [(), ("--calibrate", "digits")])
def test_integers_are_calibrated_on_images_trained_on_not_on_those_to_measure(model, cli, monkeypatch, options):
    from mobilenets.data.resizing import fit

    images = seen(monkeypatch)
    assert cli("export", model, "--precision", "int8", *options)[0] == 0
    data = load_data("digits")
    train, val = ({fit(image, 32).tobytes() for image in split.images} for split in (data.train, data.val))
    assert len(images) == 256
    assert set(images) <= train
    assert not set(images) & (val - train)


def test_a_model_that_knows_no_images_needs_some_to_calibrate_on(model, cli, monkeypatch, tmp_path):
    """As one with ported weights, that was measured on a folder."""
    from PIL import Image

    from mobilenets import card as cards

    data = load_data("digits")
    for kind in ("measured", "photos"):
        for index, (image, label) in enumerate(zip(data.val.images, data.val.labels, strict=True)):
            (tmp_path / kind / str(label)).mkdir(parents=True, exist_ok=True)
            if index < (100 if kind == "measured" else 30):
                Image.fromarray(image).save(tmp_path / kind / str(label) / f"{index}.png")
    folder = load_data(str(tmp_path / "measured"), val_fraction=1.0)
    write_card(model, card_of(model) | {"data": cards.data_entry(folder, {"val_fraction": 1.0})})
    one_line(cli("export", model, "--precision", "int8"), "int8 needs images to calibrate on", "--calibrate FOLDER")
    assert card_of(model)["artifacts"] == []

    images = seen(monkeypatch)
    options = ["--precision", "int8", "--calibrate", tmp_path / "photos"]
    status, out, err = cli("export", model, *options, "--max-drop", 5, "--json")
    assert (status, err) == (0, "")
    assert len(images) == 30
    assert json.loads(out)["artifacts"][0]["comparison"]["images"] == 100
