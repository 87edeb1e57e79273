"""What no command may remove: images, files that are not ours, and models that nothing can replace yet."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exported import card_of, elastic_run, one_line
from mobilenets.card import RUN
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.selection import budgeted, choose
from mobilenets.selection.budget import Budget
from mobilenets.training import checkpoint
from test_selection_budget import row

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")


@pytest.fixture
def elastic(place, tmp_path):
    """A copy of a model of several widths and resolutions."""
    return shutil.copytree(elastic_run(place), tmp_path / "elastic")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working directory with images in ``pictures/``, one folder for each class."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (Path("pictures") / name).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(Path("pictures") / name / f"{number}.png")
    return Path("pictures")


def found_in(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("out", [".", "pictures"])
@pytest.mark.parametrize(
    "options", [(), ("--overwrite",), ("--budget", "size-kb=500"), ("--budget", "size-kb=500", "--overwrite")]
)
def test_images_are_not_trained_on_where_a_model_would_replace_them(out, options, photos, cli):
    before = found_in(Path())
    one_line(cli("train", photos, "--size", 16, "--epochs", 1, "--out", out, *options), "--out", "the data pictures")
    assert found_in(Path()) == before


def test_images_are_not_replaced_by_a_model_that_is_extracted(elastic, photos, cli):
    card = card_of(elastic)
    card["data"]["source"] = "pictures"
    (elastic / "card.json").write_text(json.dumps(card))
    before = found_in(photos)
    one_line(cli("extract", elastic, "--alpha", 0.125, "--out", "."), "the data pictures, would be replaced")
    assert found_in(photos) == before


@pytest.mark.parametrize(
    "options",
    [
        ("--weights", "typo.keras"),
        ("--weights", "typo.keras", "--alpha", "0.125,0.25", "--budget", "size-kb=500"),
        ("--temperature", 2, "--alpha", "0.125,0.25", "--budget", "size-kb=500"),
        ("--mosaic", 0.5, "--alpha", "0.125,0.25", "--budget", "size-kb=500"),
    ],
)
def test_a_model_stays_until_another_can_be_trained(options, elastic, cli):
    before = found_in(elastic)
    one_line(cli("train", "digits", "--size", 16, "--out", elastic, "--overwrite", *options, "--json"))
    assert found_in(elastic) == before


def test_weights_of_another_network_leave_the_model(elastic, tmp_path, cli):
    other = shutil.copytree(elastic, tmp_path / "other")
    before = found_in(elastic)
    words = ("train", "digits", "--net", "v2", "--alpha", 0.25, "--size", 32, "--out", elastic, "--overwrite")
    one_line(cli(*words, "--weights", other))
    assert found_in(elastic) == before


def test_a_file_that_cannot_be_written_here_leaves_the_model(elastic, tmp_path, monkeypatch):
    out = shutil.copytree(elastic, tmp_path / "out")
    before = found_in(out)

    def missing(*arguments):
        raise UserError("openvino is not installed")

    monkeypatch.setattr(choose, "variants", missing)
    with pytest.raises(UserError, match="not installed"):
        choose.write_chosen(elastic, out, row(), {}, overwrite=True, command="")
    assert found_in(out) == before


def test_a_grid_is_not_read_where_the_choice_would_replace_it(elastic, tmp_path, cli):
    out = shutil.copytree(elastic, tmp_path / "out")
    (out / "grid").mkdir(exist_ok=True)
    (out / "grid" / "grid.json").write_text("{}")
    words = ("choose", elastic, "--grid", out / "grid", "--size-kb", 500, "--out", out, "--overwrite")
    one_line(cli(*words), "--grid", "would be replaced")
    assert (out / "grid" / "grid.json").is_file()


def test_files_of_others_with_names_of_ours_are_not_replaced_unasked(elastic, tmp_path, cli):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    for name in ("history.csv", "pictures/cat.png"):
        (out / name).write_text("mine")
    (tmp_path / "v2.keras").write_bytes(b"weights")
    before = found_in(out)
    for words in (
        ("train", "digits", "--size", 16, "--epochs", 1),
        ("train", "digits", "--budget", "size-kb=500", "--json"),
        ("extract", elastic, "--alpha", 0.125),
        ("compress", elastic),
        ("weights", tmp_path / "v2.keras", "--net", "v2", "--from", "keras"),
    ):
        one_line(cli(*words, "--out", out), "already holds history.csv", "--overwrite")
    assert found_in(out) == before


# -- runs that were not finished ------------------------------------------------------------------------------------


def test_a_run_to_a_budget_is_not_written_over_unasked(elastic, tmp_path, cli):
    out = tmp_path / "out"
    (out / RUN).parent.mkdir(parents=True)
    (out / RUN).write_text("{}")
    before = found_in(out)
    for words in (
        ("train", "digits", "--size", 16, "--epochs", 1),
        ("extract", elastic, "--alpha", 0.125),
        ("compress", elastic),
        ("train", "digits", "--budget", "size-kb=500"),
    ):
        one_line(cli(*words, "--out", out), "holds an unfinished run to a budget", "--overwrite")
    assert found_in(out) == before


def test_a_run_without_a_budget_is_not_written_over_unasked(tmp_path, cli, monkeypatch):
    (tmp_path / checkpoint.FILE).write_bytes(b"something")
    (tmp_path / "mine.txt").write_text("mine")
    words = ("train", "digits", "--budget", "size-kb=500", "--json", "--out", tmp_path)
    one_line(cli(*words), "holds an unfinished run without a budget", "--overwrite")
    assert (tmp_path / checkpoint.FILE).is_file()

    def stop(*arguments, starting, **options):
        starting()
        raise UserError("stopped")

    monkeypatch.setattr(budgeted, "train", stop)
    one_line(cli(*words, "--overwrite"), "stopped")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "stages"]


def test_what_was_left_out_stays_so_when_a_run_goes_on(tmp_path):
    best, second, third = (row(alpha=alpha, accuracy=right) for alpha, right in ((1, 0.9), (0.5, 0.8), (0.25, 0.7)))
    known, budget = {"rows": [third, best, second]}, Budget(latency_ms=5)
    (tmp_path / RUN).parent.mkdir()
    (tmp_path / RUN).write_text("{}")
    stages = budgeted._Stages(tmp_path, {}, resume=True, overwrite=False)
    stages.keep(second, ["left out the best"])
    notes = []
    choice = stages.choice(known, budget, notes)
    assert (choice.winner, notes) == (second, ["left out the best"])
    assert choice.runners_up == [third]
    assert known["rows"] == [third, best, second]


def test_integers_are_trained_for_at_their_own_share_of_a_given_rate(tmp_path, monkeypatch):
    (tmp_path / RUN).parent.mkdir()
    (tmp_path / RUN).write_text("{}")
    found = []
    monkeypatch.setattr(budgeted, "compress", lambda *arguments, **options: found.append(arguments[3].learning_rate))
    monkeypatch.setattr(budgeted, "_exported", lambda *arguments: None)
    stages = budgeted._Stages(tmp_path, {}, resume=True, overwrite=False)
    for rate in (0.15, None):
        budgeted._integers(stages, row(), budgeted.Settings(epochs=20, learning_rate=rate), True, "")
    assert found == [pytest.approx(0.15 * 0.002), None]


# -- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "wanted", "message"),
    [
        ({"data": {"seed": 0}}, {"data": {}}, "begun with data: seed = 0, not None"),
        ({"settings": {"rate": 1, "old": 2}}, {"settings": {"rate": 1}}, "begun with settings: old = 2, not None"),
        ({"settings": {"rate": 1}}, {"settings": {"rate": 1, "new": None}}, None),
        ({"settings": {"rate": 1}}, {"settings": {"rate": 2}}, "begun with settings: rate = 1, not 2"),
        ({"fingerprint": "a"}, {"fingerprint": "b"}, "the data has changed"),
    ],
)
def test_what_differs_is_named(stored, wanted, message, tmp_path):
    if message is None:
        checkpoint.require_same(stored, wanted, tmp_path)
        return
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.require_same(stored, wanted, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


@pytest.mark.parametrize("spoil", ["flag", "method", "count", "shape"])
def test_a_damaged_checkpoint_is_one_line(spoil, tmp_path):
    path = tmp_path / checkpoint.FILE
    checkpoint.save(tmp_path, checkpoint.State({}, model=[np.zeros(3, np.float32)]))
    data = bytearray(path.read_bytes())
    if spoil in ("flag", "method"):  # in the list of the archive's files, and before each of them
        place = 8 if spoil == "flag" else 10
        for start in _places(data, b"PK\x01\x02"):
            data[start + place] = 1 if spoil == "flag" else 99
        for start in _places(data, b"PK\x03\x04"):
            data[start + place - 2] = 1 if spoil == "flag" else 99
        path.write_bytes(data)
    else:
        about = {
            "config": {},
            "epoch": 0,
            "history": [],
            "seconds": 0.0,
            "count": {"model": 1, "optimizer": 0, "best": 0},
        }
        if spoil == "count":
            about["count"] = [1]
        np.savez(path, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **{"model/0": np.zeros(3)})
        if spoil == "shape":
            data = path.read_bytes().replace(b"'shape': (3,), }  ", b"'shape': (3" + b"0" * 6)
            path.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path)


def _places(data: bytearray, mark: bytes) -> list[int]:
    found, start = [], data.find(mark)
    while start >= 0:
        found.append(start)
        start = data.find(mark, start + 1)
    return found
