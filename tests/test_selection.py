"""A grid that is measured, what is chosen from it, and the whole way from images to a file that fits."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from exported import card_of, elastic_run, one_line, short_latency
from mobilenets.deployment import verify
from mobilenets.deployment.machine import cores
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.selection import choose, published, table
from mobilenets.selection import grid as grids
from mobilenets.selection.budget import Budget
from once import once

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="files are compared on TensorFlow")
QUICK = grids.Plan(targets=["litert"], rounds=2, seconds=0.02)
MEMBERS = [(0.125, 16), (0.125, 32), (0.25, 16), (0.25, 32)]


@pytest.fixture(scope="module")
def measured(place):
    """The elastic run with the grid of its LiteRT files; not to be spoiled."""

    def make(directory: Path) -> None:
        shutil.copytree(elastic_run(place), directory / "run")
        grids.grid(directory / "run", QUICK)

    return once(place / "measured", make) / "run"


@pytest.fixture
def run(measured, tmp_path):
    """A copy of it."""
    return shutil.copytree(measured, tmp_path / "run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(verify, "measure_latency", short_latency)


def rows_of(run: Path) -> list[dict]:
    return table.read(run / "grid" / "grid.json")["rows"]


def files_of(rows: list[dict]) -> list[tuple]:
    return sorted((row["width_multiplier"], row["resolution"], row["precision"], row["target"]) for row in rows)


# -- the grid -------------------------------------------------------------------------------------------------------


def test_every_network_is_measured_as_each_of_its_files(measured):
    rows = rows_of(measured)
    assert files_of(rows) == sorted((*member, kind, "litert") for member in MEMBERS for kind in ("float32", "int8"))
    trained = {(row["width_multiplier"], row["resolution"]): row for row in card_of(measured)["elastic"]["members"]}
    for row in rows:
        about = trained[row["width_multiplier"], row["resolution"]]
        assert (row["macs"], row["params"]) == (about["macs"], about["params"])
        if row["precision"] == "float32":
            # The file computes what the training measured of the network.
            assert row["accuracy"] == pytest.approx(about["accuracy"], abs=1e-3)
            assert row["file_bytes"] == pytest.approx(4 * row["params"], rel=0.05)
        assert 0 < row["least_ms"] <= row["latency_ms"] <= row["most_ms"]
        assert row["memory_bytes"] > row["file_bytes"] / 2
    (reference,) = [row for row in rows if files_of([row]) == [(0.25, 32, "float32", "litert")]]
    assert 0.5 < reference["ratio"] < 2  # it was timed in turns with itself
    with open(measured / "grid" / "grid.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert [float(line["latency_ms"]) for line in listed] == [row["latency_ms"] for row in rows]


def test_the_front_is_what_nothing_beats(measured):
    rows = rows_of(measured)
    for row in rows:
        beaten = any(
            other["latency_ms"] <= row["latency_ms"]
            and other["accuracy"] >= row["accuracy"]
            and (other["latency_ms"], other["accuracy"]) != (row["latency_ms"], row["accuracy"])
            for other in rows
        )
        assert row["pareto"] == (not beaten)


@pytest.mark.long
def test_a_grid_goes_on_where_it_stopped(run, monkeypatch):
    shutil.rmtree(run / "grid")
    said, measure = [], grids.Bench.measure

    def stop_at_the_second(self, member, wanted, file=None):
        if self._count:
            raise KeyboardInterrupt
        return measure(self, member, wanted, file)

    with monkeypatch.context() as patch:
        patch.setattr(grids.Bench, "measure", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            grids.grid(run, QUICK)
    first = rows_of(run)
    assert files_of(first) == [(0.125, 16, "float32", "litert"), (0.125, 16, "int8", "litert")]
    plan = grids.Plan(alphas=[0.125], targets=["litert"], rounds=2, seconds=0.02)
    grids.grid(run, plan, report=lambda *words: said.append(words))
    assert [words[1:] for words in said] == [(1, 2)]  # one of two networks was there
    rows = rows_of(run)
    assert {(row["width_multiplier"], row["resolution"]) for row in rows} == {(0.125, 16), (0.125, 32)}
    kept = [row for row in rows if row["resolution"] == 16]
    assert [(row["ratio"], row["measured"]) for row in kept] == [(row["ratio"], row["measured"]) for row in first]
    assert grids.grid(run, plan)["rows"] == rows  # nothing is left to do
    assert choose.choose(run, Budget())["notes"][0].startswith("2 of 4 networks were measured")


@pytest.mark.long
def test_what_could_not_be_measured_is_tried_again(run, monkeypatch):
    shutil.rmtree(run / "grid")
    plan = replace(QUICK, alphas=[0.125], sizes=[16], precisions=["float32"])

    def killed(self, member, wanted, file=None):
        about = {"width_multiplier": member[0], "resolution": member[1], "reason": "ended by signal 9"}
        return [], [about | {"precision": each.precision, "target": each.target} for each in wanted]

    with monkeypatch.context() as patch:
        patch.setattr(grids.Bench, "measure", killed)
        for _ in range(2):
            with pytest.raises(UserError, match="nothing could be measured; ended by signal 9"):
                grids.grid(run, plan)
    assert len(table.read(run / "grid" / "grid.json")["skipped"]) == 1
    found = grids.grid(run, plan)
    assert (len(found["rows"]), found["skipped"]) == (1, [])


def test_what_was_measured_of_another_model_or_otherwise_is_not_gone_on_with(run, cli):
    one_line(cli("grid", run, "--threads", cores() + 1), "another number of threads", "--overwrite")
    status, _, err = cli("extract", run, "--alpha", 0.125, "--out", run.parent / "narrow")
    assert status == 0, err
    shutil.copy(run.parent / "narrow" / "model.keras", run / "model.keras")
    one_line(cli("choose", run), "is of another model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--alpha", 0.2), "--alpha 0.2"),
        (("--size", 24), "was trained at 16, 32"),
        (("--to", "coreml"), "coreml"),
        (("--precision", "int4"), "int4"),
        (("--threads", 0), "--threads must be from 1"),
        (("--rounds", 0), "--rounds must be from 1"),
        (("--seconds", 0), "--seconds must be from 0.01"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words, message, measured, cli, tmp_path):
    one_line(cli("grid", measured, *words, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


def test_only_a_training_of_several_has_a_grid(measured, cli, tmp_path):
    status, _, err = cli("extract", measured, "--out", tmp_path / "one")
    assert status == 0, err
    one_line(cli("grid", tmp_path / "one"), "has one width and one resolution")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda grid: grid.update(format=99),
        lambda grid: grid.update(rows=[1]),
        lambda grid: grid["rows"][0].update(latency_ms="fast"),
        lambda grid: grid["rows"][0].update(accuracy=10**400),
        lambda grid: grid["rows"][0].pop("precision"),
        lambda grid: grid.pop("identity"),
    ],
)
def test_a_damaged_grid_is_one_line(spoil, run, cli):
    path = run / "grid" / "grid.json"
    content = json.loads(path.read_text())
    spoil(content)
    path.write_text(json.dumps(content))
    one_line(cli("choose", run, "--latency-ms", 100), "grid.json")


# -- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_chosen_file_is_written_and_is_what_was_measured(run, cli):
    widest = max(row["file_bytes"] for row in rows_of(run) if row["width_multiplier"] == 0.125) / 1e3
    status, out, err = cli("choose", run, "--size-kb", widest, "--latency-ms", 1e4, "--metric", "f1", "--json")
    assert status == 0, err
    found = json.loads(out)
    fitting = [row for row in rows_of(run) if row["file_bytes"] <= widest * 1e3]
    assert found["winner"]["macro_f1"] == max(row["macro_f1"] for row in fitting)
    assert (found["fitting"], found["considered"]) == (len(fitting), 8)
    card = card_of(run / "chosen")
    (entry,) = card["artifacts"]
    assert (run / "chosen" / entry["file"]) == Path(found["file"])
    assert entry["metrics"]["macro"]["f1"] == pytest.approx(found["winner"]["macro_f1"], abs=1e-6)
    assert entry["bytes"] == found["winner"]["file_bytes"]
    assert card["chosen"]["budget"] == {"latency_ms": 1e4, "size_kb": widest}
    assert "Chosen by budget" in (run / "chosen" / "report.html").read_text()
    assert json.loads(cli("evaluate", found["file"], "--json")[1]) == entry["metrics"]
    # It is made anew each time, but what somebody named is not replaced unasked.
    status, _, err = cli("choose", run, "--size-kb", 1e4, "--precision", "int8")
    assert status == 0, err
    assert card_of(run / "chosen")["artifacts"][0]["precision"] == "int8"
    one_line(cli("choose", run, "--out", run / "chosen"), "already holds a model", "--overwrite")


@pytest.mark.long
def test_what_breaks_the_budget_when_measured_again_is_left_out(run, monkeypatch):
    again, slow = choose.again, []

    def slower_once(directory, known, row, file=None):
        found = again(directory, known, row, file)
        if not slow:
            slow.append(row)
            return found | {"latency_ms": 1e5}
        return found

    monkeypatch.setattr(choose, "again", slower_once)
    found = choose.choose(run, Budget(latency_ms=1e4))
    best = max(rows_of(run), key=lambda row: row["accuracy"])
    assert slow[0]["accuracy"] == best["accuracy"]
    assert table.key_of(found["winner"]) != table.key_of(slow[0])
    assert "left out" in found["notes"][0]
    monkeypatch.setattr(choose, "again", lambda directory, known, row: row | {"latency_ms": 1e5})
    with pytest.raises(UserError, match="files broke the budget"):
        choose.choose(run, Budget(latency_ms=1e4))


def test_what_is_impossible_writes_nothing(run, cli):
    one_line(cli("choose", run, "--latency-ms", 1e-6), "impossible alone: latency 1e-06 ms (the least is")
    one_line(cli("choose", run, "--runtime", "openvino"), "no file for openvino was measured")
    one_line(cli("choose", run, "--latency-ms", -1), "--latency-ms must be a number above 0")
    one_line(cli("choose"), "needs either a RUN")
    one_line(cli("choose", run, "--net", "v1"), "needs either a RUN")
    one_line(cli("choose", run, "--threads", 0), "--threads goes with --net")
    one_line(cli("choose", "--net", "v1", "--out", run.parent / "x"), "no file is written")
    shutil.rmtree(run / "grid")
    one_line(cli("choose", run), "measure the networks with `mobilenets grid")
    assert not (run / "chosen").exists()


def test_another_machine_s_table_decides(run, cli, tmp_path):
    device, out = tmp_path / "device.json", tmp_path / "out"
    status, _, err = cli("benchmark", "v1", "--classes", 10, "--alpha", 0.125, "--size", "16,32", "--to", "litert",
                         "--precision", "float32", "--rounds", 1, "--seconds", 0.02, "--out", device)  # fmt: skip
    assert status == 0, err
    content = json.loads(device.read_text())
    for row in content["rows"]:
        row["median_ms"] = {16: 7.0, 32: 9.0}[row["resolution"]]
    device.write_text(json.dumps(content))
    status, text, err = cli("choose", run, "--latency-ms", 8, "--device", device, "--out", out, "--json")
    assert status == 0, err
    found = json.loads(text)
    assert (found["winner"]["resolution"], found["winner"]["latency_ms"], found["considered"]) == (16, 7.0, 2)
    assert found["device"] == str(device)
    assert "no measurement of 6 files" in found["notes"][0]
    for row in content["rows"]:
        row["network"] = "v2"
    device.write_text(json.dumps(content))
    said = one_line(cli("choose", run, "--device", device, "--out", tmp_path / "x"), "none of the files of the grid")
    assert "mobilenets benchmark v1 --classes 10 --alpha 0.125,0.25 --size 16,32 --precision float32,int8" in said
    device.write_text("[]")
    one_line(cli("choose", run, "--device", device), "is no table of")
    one_line(cli("choose", run, "--device", tmp_path / "none"), "cannot be read")


# -- published networks ---------------------------------------------------------------------------------------------


def test_published_networks_are_chosen_by_what_is_measured_here(monkeypatch, cli):
    known = [row for row in published.published() if row["network"] == "v1" and row["resolution"] == 128]
    monkeypatch.setattr(published, "published", lambda: known)
    monkeypatch.setattr(published, "PLAN", grids.Plan(rounds=1, seconds=0.02))
    status, out, err = cli("choose", "--net", "v1", "--size-kb", 6000, "--json")
    assert status == 0, err
    found = json.loads(out)
    # 1.3 million weights of α 0.5 take 5.4 MB, 2.6 million of α 0.75 more than 10.
    assert (found["winner"]["width_multiplier"], found["winner"]["resolution"]) == (0.5, 128)
    assert found["winner"]["accuracy"] == next(row["top1"] for row in known if row["width_multiplier"] == 0.5) / 100
    assert found["considered"] == 4
    assert found["steps"][0]["row"]["width_multiplier"] == 0.75
    there = {("v1", 0.5, 128, "float32", "litert"): [{"latency_ms": 1.0, "memory_bytes": None, "threads": 1}]}
    with monkeypatch.context() as patch:
        patch.setattr(published, "read_all", lambda path: there)
        (note,) = json.loads(cli("choose", "--net", "v1", "--device", "there.json", "--json")[1])["notes"]
    assert "has no measurement of 3 of 4 networks" in note
    assert "mobilenets benchmark v1 --alpha 0.25,0.5,0.75,1 --size 128 --to litert --precision float32" in note
    text = cli("choose", "--net", "v1", "--size-kb", 6000)[1]
    assert "as published" in text
    assert "mobilenets train photos/ --net v1 --alpha 0.5 --size 128" in text
    one_line(cli("choose", "--net", "v9"), "v9")
    one_line(cli("choose", "--net", "v1", "--metric", "f1"), "only the accuracy")
    one_line(cli("choose", "--net", "v1", "--precision", "int8"), "float32")
    one_line(cli("choose", "--net", "v1", "--runtime", "keras"), "measured as files")
    one_line(cli("choose", "--net", "v1", "--threads", 0), "--threads must be from 1")
