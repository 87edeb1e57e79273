"""Segmenters of several widths and resolutions as the files that ship: measured, and chosen by a budget."""

import json
import shutil
from pathlib import Path

import pytest

from exported import card_of, one_line, short_latency
from mobilenets.architectures import NETWORKS
from mobilenets.deployment import verify
from mobilenets.models import keras
from mobilenets.selection import budgeted, table
from mobilenets.selection import grid as grids
from mobilenets.selection.budget import Budget, pick
from once import once
from test_elastic_segment import SHORT, elastic_segmenter, shapes_in

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are compared on TensorFlow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(verify, "measure_latency", short_latency)
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


@pytest.fixture
def run(place, cli, tmp_path) -> Path:
    """A copy of the elastic run with the grid of its LiteRT files at 64 pixels."""

    def make(directory: Path) -> None:
        shutil.copytree(elastic_segmenter(place), directory / "run")
        words = ("--size", 64, "--to", "litert", "--rounds", 1, "--seconds", 0.02)
        status, out, err = cli("grid", directory / "run", *words)
        assert status == 0, err
        assert "mIoU" in out
        assert "accuracy" not in out

    return shutil.copytree(once(place / "measured_segmenter", make) / "run", tmp_path / "run")


@pytest.mark.long
def test_every_file_is_measured_by_its_own_pixels(run):
    grid = table.read(run / "grid" / "grid.json")
    trained = {(row["width_multiplier"], row["resolution"]): row for row in card_of(run)["elastic"]["members"]}
    assert (grid["task"], grid["skipped"], len(grid["rows"])) == ("segment", [], 4)
    for row in grid["rows"]:
        about = trained[row["width_multiplier"], row["resolution"]]
        assert (row["macs"], row["params"]) == (about["macs"], about["params"])
        assert 0 < row["miou"] < row["f1"] < row["pixel_accuracy"] <= 1
        assert row["miou"] == pytest.approx(about["miou"], abs=0.005 if row["precision"] == "float32" else 0.1)
        assert 0 < row["least_ms"] <= row["latency_ms"] <= row["most_ms"]
    page = (run / "grid" / "report.html").read_text()
    assert "<h2>mIoU against latency</h2>" in page
    assert "<dt>Highest mIoU</dt>" in page
    assert "an accuracy is known to" not in page  # whose interval is that of a share of images
    columns = (run / "grid" / "grid.csv").read_text().splitlines()[0].split(",")
    assert columns[6:9] == ["miou", "f1", "pixel_accuracy"]


@pytest.mark.long
def test_the_best_file_within_a_budget_is_chosen_and_written(run, cli):
    rows = table.read(run / "grid" / "grid.json")["rows"]
    most = max(row["file_bytes"] for row in rows if row["width_multiplier"] == 0.125) / 1e3
    fitting = [row for row in rows if row["file_bytes"] <= most * 1e3]
    usual = pick(rows, Budget(size_kb=most))
    assert usual.budget.metric == "miou"
    assert usual.winner["miou"] == max(row["miou"] for row in fitting)
    status, out, err = cli("choose", run, "--size-kb", most, "--metric", "pixel_accuracy")
    assert status == 0, err
    assert f"{len(fitting)} of 4 files fit" in out
    assert "pixel accuracy: of the file on 16 images" in out
    assert "2 of 4 networks were measured" in err
    card = card_of(run / "chosen")
    (entry,), winner = card["artifacts"], card["chosen"]["winner"]
    assert winner["pixel_accuracy"] == max(row["pixel_accuracy"] for row in fitting)
    assert (card["task"], card["head"], card["input_shape"]) == ("segment", "lraspp", [64, 64, 3])
    assert entry["metrics"]["miou"] == pytest.approx(winner["miou"], abs=1e-6)
    page = (run / "chosen" / "report.html").read_text()
    assert "Chosen by budget" in page
    assert '<th scope="col">Pixel accuracy</th><th scope="col">Latency</th>' in page
    measured = json.loads(cli("evaluate", run / "chosen" / entry["file"], "--json")[1])
    assert measured["miou"] == pytest.approx(entry["metrics"]["miou"], abs=1e-6)


@pytest.mark.long
def test_what_segmenters_do_not_have_is_one_line(run, cli, tmp_path):
    one_line(cli("choose", run, "--metric", "accuracy"), "of segmenters one of miou, f1, pixel_accuracy is measured")
    one_line(cli("choose", run, "--device", tmp_path / "x.json"), "such tables are of classifiers")
    one_line(cli("choose", "--net", "v1", "--metric", "miou"), "only the accuracy")
    one_line(cli("choose", run, "--latency-ms", 1e-6), "impossible alone")
    words = ("train", "digits", "--budget", "size-kb=9", "--metric", "miou", "--out", tmp_path / "out")
    one_line(cli(*words), "of classifiers one of accuracy")
    one_line(cli("grid", run, "--size", 80, "--out", tmp_path / "out"), "was trained at 64, 96")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_budget_takes_a_segmenter_the_whole_way(place, cli, monkeypatch, tmp_path):
    quick = {"precisions": ["int8"], "rounds": 1, "seconds": 0.02}
    monkeypatch.setattr(budgeted, "Plan", lambda **options: grids.Plan(**options | quick))
    monkeypatch.setattr(budgeted, "LOST", -1)  # so that integers are trained for, whatever they lose
    out, words = tmp_path / "out", ("--alpha", "0.125,0.25", "--size", 64, "--epochs", 6, "--batch-size", 8)
    words = ("train", shapes_in(place), "--task", "segment", *words, "--out", out, "--json")
    status, text, err = cli(*words, "--budget", "size-kb=1000", "--metric", "f1")
    assert status == 0, err
    card = json.loads(text)
    (entry,), stages = card["artifacts"], {stage["stage"]: stage["f1"] for stage in card["chosen"]["stages"]}
    assert (card["task"], card["head"], card["input_shape"]) == ("segment", "lraspp", [64, 64, 3])
    assert entry["bytes"] <= 1e6
    assert set(stages) == {"extracted", "tuned", "integers"}
    assert entry["metrics"]["f1"] == pytest.approx(max(stages.values()), abs=1e-6)
    # The weights were good already: a tenth of the rate that a segmenter begins with.
    assert card_of(out / "stages" / "tuned")["training"]["learning_rate"] == pytest.approx(0.01)
    assert json.loads(cli("evaluate", out / entry["file"], "--json")[1])["f1"] == entry["metrics"]["f1"]
    assert "Chosen by budget" in (out / "report.html").read_text()
