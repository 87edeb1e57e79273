"""The whole way: from images to a file that fits a budget."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exported import card_of, one_line, short_latency
from mobilenets.architectures import NETWORKS, V1
from mobilenets.deployment import verify
from mobilenets.errors import TrainingStopped
from mobilenets.models import keras
from mobilenets.selection import budgeted
from mobilenets.selection import grid as grids

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are compared on TensorFlow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(verify, "measure_latency", short_latency)


@pytest.mark.long
def test_a_budget_takes_training_the_whole_way_and_goes_on_after_a_stop(tmp_path, cli, monkeypatch):
    out, counted = tmp_path / "out", []
    train = budgeted.train

    def stop(data, path, *arguments, **options):
        counted.append(Path(path).name)
        if counted == ["elastic", "tuned"]:
            raise KeyboardInterrupt
        return train(data, path, *arguments, **options)

    monkeypatch.setitem(NETWORKS, "v1", replace(V1, blocks=V1.blocks[:6]))  # sooner traced
    monkeypatch.setattr(budgeted, "train", stop)
    monkeypatch.setattr(budgeted, "Plan", lambda **options: grids.Plan(**options, rounds=1, seconds=0.02))
    monkeypatch.setattr(budgeted, "LOST", -1.0)  # so that int8 is trained for, whatever it lost
    words = ("train", "digits", "--alpha", "0.125,0.25", "--size", "16", "--epochs", 3, "--batch-size", 32)
    words = (*words, "--budget", "size-kb=15", "--out", out, "--json")
    assert cli(*words)[0] == 130
    assert not (out / "card.json").exists()
    one_line(cli(*words), "holds an unfinished run", "--resume")
    assert "damaged" not in one_line(cli(*words[:-1], "--resume", "--lr", 0.5), "learning_rate = None, not 0.5")
    one_line(cli(*words[:-1], "--resume", "--metric", "f1"), "metric = accuracy, not f1")
    mine = [out / folder / "mine.txt" for folder in ("pictures", "export")]
    for path in mine:
        path.parent.mkdir()
        path.write_text("mine")

    def fail(*arguments, **options):
        raise TrainingStopped("training stopped: the loss is not a number")

    with monkeypatch.context() as patch:  # without training for integers there is a file as well
        patch.setattr(budgeted, "compress", fail)
        status, text, err = cli(*words, "--resume")
    assert status == 0, err
    chosen = json.loads(text)["chosen"]
    assert [stage["stage"] for stage in chosen["stages"]] == ["extracted", "tuned"]
    assert "not a number" in chosen["notes"][-1]
    status, text, err = cli(*words, "--resume")
    assert status == 0, err
    assert counted == ["elastic", "tuned", "tuned"]
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    card = json.loads(text)
    (entry,) = card["artifacts"]
    assert (card["width_multiplier"], entry["precision"]) == (0.125, "int8")  # nothing else has 15 kB
    assert entry["bytes"] <= 15e3
    stages = {stage["stage"]: stage["accuracy"] for stage in card["chosen"]["stages"]}
    assert set(stages) == {"extracted", "tuned", "integers"}
    tuned = card_of(out / "stages" / "tuned")["training"]  # which learns from the widest
    assert (tuned["teacher"], tuned["epochs"]) == (str(out / "stages" / "elastic"), 1)
    assert entry["metrics"]["accuracy"] == pytest.approx(max(stages.values()), abs=1e-6)
    assert json.loads(cli("evaluate", out / entry["file"], "--json")[1]) == entry["metrics"]
    assert "Pareto fronts" in (out / "stages" / "elastic" / "grid" / "report.html").read_text()
    # Another budget needs no training.
    status, _, err = cli("choose", out / "stages" / "elastic", "--latency-ms", 1e4)
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "fast"), "--budget must be of"),
        (("--budget", "latency-ms=5", "--alpha", 1, "--size", 32), "several widths or sizes"),
        (("--budget", "latency-ms=5", "--ema"), "--ema is for one width"),
        (("--budget", "latency-ms=5", "--teacher", "x"), "leave them out with --budget"),
        (("--budget", "latency-ms=5", "--weights", "nowhere.keras"), "nowhere.keras"),
        (("--budget", "latency-ms=5", "--runtime", "keras"), "--runtime keras: networks are measured as files"),
        (("--metric", "f1"), "what --budget is about"),
    ],
)
def test_what_a_budget_cannot_have_is_one_line(words, message, cli, tmp_path):
    one_line(cli("train", "digits", *words, "--out", tmp_path / "out", "--json"), message)
    assert not (tmp_path / "out").exists()
