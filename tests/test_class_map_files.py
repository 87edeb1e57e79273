"""Files of segmenters that give the class of each pixel instead of probabilities."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from exported import HERE, one_line, short_latency
from mobilenets.card import read_card
from mobilenets.deployment.class_map import class_map
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS
from mobilenets.errors import UserError
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model
from once import once
from test_segment import picture, trained  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def mapped(trained, place) -> Path:  # noqa: F811
    """The model with files of both kinds."""

    def make(directory: Path) -> None:
        from mobilenets.deployment.export import export

        shutil.copytree(trained, directory / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mobilenets.deployment.verify.measure_latency", short_latency)
            export(directory / "run", HERE, ("float32", "int8"), max_drop=3, class_map=True)
            export(directory / "run", ["litert"], max_drop=3)

    return once(place / "segmenter_class_maps", make) / "run"


@pytest.mark.long
def test_bytes_of_classes_come_out_in_every_runtime(mapped):
    model, rng = load_model(mapped), np.random.default_rng(4)
    images = np.stack([cv2.resize(picture(rng, 96, 80, 4)[0], (64, 64)) for _ in range(3)])
    likeliest = np.asarray(model.predict_on_batch(images)).argmax(axis=-1)
    card = read_card(mapped)
    entries = [entry for entry in card["artifacts"] if entry.get("class_map")]
    assert len(entries) == 2 * len(HERE)
    for entry in entries:
        assert "classes" in Path(entry["file"]).stem.split("_")
        runner = load(mapped / entry["file"], TARGETS[entry["target"]].runtime, 1)
        found = runner(images)
        assert (found.dtype, found.shape) == (np.uint8, (3, 64, 64)), entry["file"]
        other = (found != likeliest).mean()
        assert other < (1e-3 if entry["precision"] == "float32" else 0.05), entry["file"]
        assert len(np.unique(found)) == 3


@pytest.mark.long
def test_the_card_keeps_the_figures_of_the_model_itself(mapped, trained):  # noqa: F811
    card = read_card(mapped)
    assert card["metrics"]["miou"] == pytest.approx(read_card(trained)["metrics"]["miou"], abs=1e-6)
    for entry in card["artifacts"]:
        assert entry["comparison"]["top1_agreement"] > (0.999 if entry["precision"] == "float32" else 0.95)
        assert abs(entry["metrics"]["miou"] - card["metrics"]["miou"]) < 0.05


@pytest.mark.long
def test_such_a_file_is_evaluated_and_predicts(mapped, cli, tmp_path):
    file = mapped / "export" / "model_classes.tflite"
    (entry,) = (each for each in read_card(mapped)["artifacts"] if each["file"] == "export/model_classes.tflite")
    status, out, err = cli("evaluate", file, "--json")
    assert status == 0, err
    assert json.loads(out)["miou"] == pytest.approx(entry["metrics"]["miou"], abs=1e-6)
    image, mask = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    shutil.copy(file, tmp_path / "alone.tflite")
    shutil.copy(mapped / "export" / "labels.txt", tmp_path)
    shares = {}
    # Where no card stands beside it, bytes tell what it is; of a directory a file with probabilities is taken.
    for model in (file, tmp_path / "alone.tflite", mapped):
        words = ("predict", model, tmp_path / "image.png", "--cut-out", "--tiles", "--out", tmp_path / "out", "--json")
        for given in (words, tuple(word for word in words if word != "--tiles")):
            status, out, err = cli(*given)
            assert status == 0, err
        found = json.loads(out)
        shares[model] = {each["class"]: each["share"] for each in found["images"][0]["classes"]}
        assert ("classes" in Path(found["file"]).stem) == (model == file)
        cut = cv2.imread(str(tmp_path / "out/image_cut_out.png"), cv2.IMREAD_UNCHANGED)
        assert cut[mask > 0, 3].mean() > 128 > cut[mask == 0, 3].mean()
    one, other, usual = shares.values()
    assert one == other
    assert one == pytest.approx(usual, abs=0.02)


@pytest.mark.long
def test_a_file_that_names_other_classes_is_refused(mapped, trained, cli, monkeypatch, tmp_path):  # noqa: F811
    """Classes in another order are as good as none, however small the --max-drop."""
    from mobilenets.deployment import targets
    from mobilenets.deployment.export import export

    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr("mobilenets.deployment.verify.measure_latency", short_latency)

    def shifted(graph):
        def moved(op):
            if op.kind != "conv" or op.shape[-1] != 3:  # of no other are there three channels
                return op
            return replace(op, kernel=np.roll(op.kernel, 1, axis=-1), bias=np.roll(op.bias, 1))

        made = class_map(graph)
        return replace(made, ops=tuple(map(moved, made.ops)))

    monkeypatch.setattr(targets, "class_map", shifted)
    with pytest.raises(UserError, match="names another class than the Keras model at"):
        export(tmp_path / "run", max_drop=100, class_map=True)
    assert read_card(tmp_path / "run")["artifacts"] == []


def test_class_maps_are_for_segmenters(place, cli):
    from exported import exported

    one_line(cli("export", exported(place), "--class-map"), "--class-map is for segmenters", "classify")
    with pytest.raises(UserError, match="--class-map"):
        class_map(graph_of(load_model(exported(place))))
