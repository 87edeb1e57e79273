"""Detectors of several widths and resolutions as the files that ship: measured, and chosen by a budget."""

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
from test_elastic_detect import SHORT, elastic_detector, shapes_in

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are compared on TensorFlow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(verify, "measure_latency", short_latency)
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


@pytest.fixture
def run(place, cli, tmp_path) -> Path:
    """A copy of the elastic run with the grid of its LiteRT files at 64 pixels."""

    def make(directory: Path) -> None:
        shutil.copytree(elastic_detector(place), directory / "run")
        words = ("--size", 64, "--to", "litert", "--rounds", 1, "--seconds", 0.02)
        status, out, err = cli("grid", directory / "run", *words)
        assert status == 0, err
        assert "AP" in out
        assert "accuracy" not in out

    return shutil.copytree(once(place / "measured_detector", make) / "run", tmp_path / "run")


@pytest.mark.long
def test_every_file_is_measured_by_its_own_boxes(run):
    grid = table.read(run / "grid" / "grid.json")
    trained = {(row["width_multiplier"], row["resolution"]): row for row in card_of(run)["elastic"]["members"]}
    assert (grid["task"], grid["skipped"], len(grid["rows"])) == ("detect", [], 4)
    for row in grid["rows"]:
        about = trained[row["width_multiplier"], row["resolution"]]
        assert (row["macs"], row["params"]) == (about["macs"], about["params"])
        assert 0 < row["ap"] < row["ap50"] <= 1
        assert 0 < row["f1"] <= 1
        assert row["ap"] == pytest.approx(about["ap"], abs=0.005 if row["precision"] == "float32" else 0.1)
        assert 0 < row["least_ms"] <= row["latency_ms"] <= row["most_ms"]
    page = (run / "grid" / "report.html").read_text()
    assert "<h2>AP against latency</h2>" in page
    assert "ccuracy" not in page
    assert (run / "grid" / "grid.csv").read_text().splitlines()[0].split(",")[6:9] == ["ap", "ap50", "f1"]


@pytest.mark.long
def test_the_best_file_within_a_budget_is_chosen_and_written(run, cli):
    rows = table.read(run / "grid" / "grid.json")["rows"]
    most = max(row["file_bytes"] for row in rows if row["width_multiplier"] == 0.125) / 1e3
    fitting = [row for row in rows if row["file_bytes"] <= most * 1e3]
    usual = pick(rows, Budget(size_kb=most))
    assert usual.budget.metric == "ap"
    assert usual.winner["ap"] == max(row["ap"] for row in fitting)
    status, out, err = cli("choose", run, "--size-kb", most, "--metric", "ap50")
    assert status == 0, err
    assert f"{len(fitting)} of 4 files fit" in out
    assert "AP50: of the file on 16 images" in out
    assert "2 of 4 networks were measured" in err
    card = card_of(run / "chosen")
    (entry,), winner = card["artifacts"], card["chosen"]["winner"]
    assert winner["ap50"] == max(row["ap50"] for row in fitting)
    assert (card["task"], card["head"], card["input_shape"]) == ("detect", "ssdlite", [64, 64, 3])
    assert entry["metrics"]["ap"] == pytest.approx(winner["ap"], abs=1e-6)
    page = (run / "chosen" / "report.html").read_text()
    assert "Chosen by budget" in page
    assert '<th scope="col">AP50</th><th scope="col">Latency</th>' in page
    measured = json.loads(cli("evaluate", run / "chosen" / entry["file"], "--json")[1])
    assert measured["ap"] == pytest.approx(entry["metrics"]["ap"], abs=1e-6)


@pytest.mark.long
def test_what_detectors_do_not_have_is_one_line(run, cli, tmp_path):
    one_line(cli("choose", run, "--metric", "accuracy"), "of detectors one of ap, ap50, f1 is measured")
    one_line(cli("choose", run, "--device", tmp_path / "x.json"), "such tables are of classifiers")
    one_line(cli("choose", "--net", "v1", "--metric", "ap"), "only the accuracy")
    one_line(cli("choose", run, "--latency-ms", 1e-6), "impossible alone")
    words = ("train", "digits", "--budget", "size-kb=9", "--metric", "ap", "--out", tmp_path / "out")
    one_line(cli(*words), "of classifiers one of accuracy")
    one_line(cli("grid", run, "--size", 80, "--out", tmp_path / "out"), "was trained at 64, 96")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_budget_takes_a_detector_the_whole_way(place, cli, monkeypatch, tmp_path):
    monkeypatch.setattr(budgeted, "Plan", lambda **options: grids.Plan(**options, rounds=1, seconds=0.02))
    out, words = tmp_path / "out", ("--alpha", "0.125,0.25", "--size", 64, "--epochs", 6, "--batch-size", 8)
    words = ("train", shapes_in(place), "--task", "detect", "--head", "ssdlite", *words, "--out", out, "--json")
    status, text, err = cli(*words, "--budget", "size-kb=1000", "--metric", "ap50")
    assert status == 0, err
    card = json.loads(text)
    (entry,), stages = card["artifacts"], {stage["stage"]: stage["ap50"] for stage in card["chosen"]["stages"]}
    assert (card["task"], card["head"], card["input_shape"]) == ("detect", "ssdlite", [64, 64, 3])
    assert entry["bytes"] <= 1e6
    assert {"extracted", "tuned"} <= set(stages)
    assert entry["metrics"]["ap50"] == pytest.approx(max(stages.values()), abs=1e-6)
    # The weights were good already: a tenth of the rate that a detector begins with.
    assert card_of(out / "stages" / "tuned")["training"]["learning_rate"] == pytest.approx(0.005)
    assert json.loads(cli("evaluate", out / entry["file"], "--json")[1])["ap50"] == entry["metrics"]["ap50"]
    assert "Chosen by budget" in (out / "report.html").read_text()
