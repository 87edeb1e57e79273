"""Grids and cards that are damaged or somebody else's, and grids that two processes write at once."""

import io
import json
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from exported import one_line
from mobilenets import display_select
from mobilenets.errors import UserError
from mobilenets.models import elastic as elastics
from mobilenets.selection import grid as grids
from mobilenets.selection import table
from mobilenets.selection.budget import Budget, pick
from mobilenets.selection.choose import tell
from test_grid_report import change, make, row

MEMBERS = [(0.25, 16), (0.25, 28)]
ENTRY = {"width_multiplier": 0.25, "resolution": 16, "precision": "int8", "target": "litert", "reason": "no memory"}


# -- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [{"resolution": 16.5}, {"resolution": 0}, {"threads": 1.5}, {"threads": 0}],
)
def test_a_row_that_makes_no_sense_is_one_line(tmp_path, spoil):
    make(tmp_path, targets=["litert"])
    change(tmp_path, lambda grid: grid["rows"][0].update(spoil))
    with pytest.raises(UserError, match=r"grid\.json: damaged, row 0 .*measure anew") as caught:
        table.read(tmp_path / "grid.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", [None, ["litert"], {"a": 1}, 1, "coreml"])
def test_a_grid_that_does_not_say_what_was_timed_in_turns_is_one_line(tmp_path, target):
    make(tmp_path, targets=["litert"])
    change(tmp_path, lambda grid: grid["reference"].update(target=target))
    known = table.read(tmp_path / "grid.json")
    with pytest.raises(UserError, match="does not say what was timed in turns; measure anew"):
        grids.again(tmp_path, known, known["rows"][0])
    with pytest.raises(UserError, match=r"grid\.json: damaged, the grid does not say"):
        grids._go_on(tmp_path / "grid.json", known)
    del known["reference"]["target"]
    with pytest.raises(UserError, match="does not say what was timed in turns"):
        grids.again(tmp_path, known, known["rows"][0])


@pytest.mark.parametrize(
    "spoil",
    [
        {"precision": ["int8"]},
        {"target": {}},
        {"resolution": float("inf")},
        {"width_multiplier": "0.25"},
        {"reason": None},
        {"resolution": "16"},
    ],
)
def test_a_reason_that_makes_no_sense_is_forgotten(tmp_path, spoil):
    made = make(tmp_path, targets=["litert"])
    change(tmp_path, lambda grid: grid.update(skipped=[ENTRY | spoil, ENTRY, "?"]))
    assert grids._go_on(tmp_path / "grid.json", made)["skipped"] == [ENTRY]


def test_what_a_grid_leaves_out_is_computed_or_left_empty(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    made = make(tmp_path, targets=["litert"])

    def edit(grid):
        for one in grid["rows"]:
            del one["pareto"], one["memory_bytes"]

    change(tmp_path, edit)
    known = table.read(tmp_path / "grid.json")
    assert [row["pareto"] for row in known["rows"]] == [row["pareto"] for row in made["rows"]]
    display_select.show_grid(known)
    assert "0.25" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["[/x]", "[red]"])
def test_words_of_a_grid_are_no_markup(tmp_path, word, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    make(tmp_path, targets=["litert"])
    change(tmp_path, lambda grid: [row.update(precision=word, runtime=f"R{word}") for row in grid["rows"]])
    known = table.read(tmp_path / "grid.json")
    display_select.show_grid(known)
    display_select.show_chosen(tell(pick(known["rows"], Budget()), known, []))
    shown = capsys.readouterr().out
    assert shown.count(f"R{word}") >= 3
    assert shown.count(word) > shown.count(f"R{word}") + 3


def test_a_card_with_an_infinite_size_is_one_line(tmp_path):
    card = json.loads('{"elastic": {"members": [{"width_multiplier": 1, "resolution": 1e999}]}}')
    with pytest.raises(UserError, match=r"card\.json: damaged, elastic must list"):
        elastics.load_members(card, tmp_path)


def flipped(content: bytes, offset: int, value: int) -> bytes:
    """An archive with another 16-bit value at a place of every header of its directory."""
    content, at = bytearray(content), 0
    while (at := content.find(b"PK\1\2", at)) >= 0:
        struct.pack_into("<H", content, at + offset, value)
        at += 4
    return bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: flipped(content, 8, 1),  # encrypted: RuntimeError
        lambda content: flipped(content, 10, 97),  # compressed as nobody does: NotImplementedError
    ],
)
def test_damaged_statistics_are_one_line(tmp_path, spoil):
    path = tmp_path / "statistics.npz"
    elastics.save_statistics(path, {MEMBERS[0]: [np.zeros(4)]})
    assert len(elastics._load_statistics(path, MEMBERS[:1])[MEMBERS[0]]) == 1
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=r"statistics\.npz: damaged .*train the network again") as caught:
        elastics._load_statistics(path, MEMBERS[:1])
    assert "\n" not in str(caught.value)


def test_statistics_that_ask_for_more_memory_than_there_is_are_one_line(tmp_path):
    path = tmp_path / "statistics.npz"
    with zipfile.ZipFile(path, "w") as archive:
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
        archive.writestr("0.25@16/0.npy", member.getvalue())
    with pytest.raises(UserError, match=r"statistics\.npz: damaged .*train the network again"):
        elastics._load_statistics(path, MEMBERS[:1])


# -- two processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def measuring(tmp_path, monkeypatch):
    """A model directory, and what stands for measuring it: ``rows`` (α, pixels, precision, target) that were asked for.

    ``before`` is called before each network is measured, with how many were.
    """
    told = SimpleNamespace(run=tmp_path / "run", before=lambda number: None, fails=set(), references=[], begun=[])

    class FakeBench:
        def __init__(self, elastic, card, data, threads, reference, rounds, seconds):
            told.references.append(reference)
            self.count = 0

        def __enter__(self):
            told.begun.append((told.run / "grid" / "grid.json").exists())
            if "bench" in told.fails:
                raise UserError("the reference cannot be written")
            return self

        def __exit__(self, *_):
            pass

        def outlook(self, *_):
            return ""

        def measure(self, member, wanted):
            told.before(self.count)
            self.count += 1
            found = [row(*member, each.precision, each.target) for each in wanted]
            failed = [one for one in found if one["target"] in told.fails]
            return [one for one in found if one not in failed], [
                {key: one[key] for key in ENTRY if key != "reason"} | {"reason": "ended by signal 9"} for one in failed
            ]

    for name in ("model.keras", "elastic.npz"):
        told.run.mkdir(exist_ok=True)
        (told.run / name).write_bytes(b"")
    card = {"task": "classify", "network": "v1", "classes": ["a", "b"]}
    data = SimpleNamespace(name="digits", val=[1], fingerprint="of it")
    monkeypatch.setattr(grids.cards, "read_card", lambda directory: card)
    monkeypatch.setattr(grids, "sha256", lambda path: "0")
    monkeypatch.setattr(grids, "load_elastic", lambda directory: SimpleNamespace(members=MEMBERS, widest=MEMBERS[-1]))
    monkeypatch.setattr(grids, "kind_of", lambda card: SimpleNamespace(data=data))
    monkeypatch.setattr(grids, "Bench", FakeBench)
    monkeypatch.setattr(grids, "variants", lambda targets, precisions, **_: [
        SimpleNamespace(target=target, precision=precision) for target in targets for precision in precisions
    ])  # fmt: skip
    return told


def measured(told, target, **options):
    return grids.grid(told.run, grids.Plan(targets=[target], precisions=["float32"]), **options)


def kept(told):
    return table.read(told.run / "grid" / "grid.json")


def places(rows):
    return sorted((row["resolution"], row["target"]) for row in rows)


def test_what_another_process_measures_meanwhile_is_kept(measuring):
    def other(number):
        if number == 1:
            measuring.before = lambda number: None
            measured(measuring, "onnx")

    measuring.before = other
    found = measured(measuring, "litert")
    every = [(16, "litert"), (16, "onnx"), (28, "litert"), (28, "onnx")]
    assert places(kept(measuring)["rows"]) == every
    assert places(found["rows"]) == every
    assert measuring.references == ["litert", "litert"]  # ratios to one and the same


def test_both_are_timed_with_one_reference_from_the_beginning(measuring):
    def other(number):
        measuring.before = lambda number: None
        measured(measuring, "onnx")

    measuring.before = other  # before the first has measured anything
    measured(measuring, "litert")
    assert measuring.references == ["litert", "litert"]
    assert len(kept(measuring)["rows"]) == 4


def test_what_was_measured_here_counts_more_than_what_another_process_measured(measuring):
    def other(number):
        measuring.before = lambda number: None
        for target in ("litert", "onnx"):
            measured(measuring, target)
        change(measuring.run / "grid", lambda grid: [one.update(file_bytes=1) for one in grid["rows"]])

    measuring.before = other
    found = {(one["resolution"], one["target"]): one["file_bytes"] for one in measured(measuring, "litert")["rows"]}
    assert found[16, "litert"] == found[28, "litert"] > 1
    assert found[16, "onnx"] == found[28, "onnx"] == 1


def test_what_another_process_could_run_is_not_told_as_skipped(measuring):
    def other(number):
        measuring.before, measuring.fails = (lambda number: None), set()
        measured(measuring, "litert")
        measuring.fails = {"litert"}

    measuring.before = other
    found = measured(measuring, "litert")
    assert (places(found["rows"]), found["skipped"]) == ([(16, "litert"), (28, "litert")], [])
    # What nobody could run stays told until it is tried again.
    measuring.fails = {"onnx"}
    measured(measuring, "onnx")
    assert places(measured(measuring, "openvino")["skipped"]) == [(16, "onnx"), (28, "onnx")]
    measuring.fails = set()
    assert measured(measuring, "onnx")["skipped"] == []


def test_a_grid_that_another_process_begins_anew_meanwhile_is_not_mixed_with_this_one(measuring):
    def other(number):
        measuring.before = lambda number: None
        measured(measuring, "onnx", overwrite=True)

    measured(measuring, "openvino", overwrite=True)
    measuring.before = other
    with pytest.raises(UserError, match="another process began it anew meanwhile, and times in turns with a file for"):
        measured(measuring, "litert")
    assert places(kept(measuring)["rows"]) == [(16, "onnx"), (28, "onnx")]


def test_a_grid_that_cannot_begin_leaves_nothing(measuring):
    measuring.fails = {"bench"}
    with pytest.raises(UserError, match="the reference cannot be written"):
        measured(measuring, "litert")
    assert measuring.begun == [True]  # it had said what it is timed with
    assert not (measuring.run / "grid" / "grid.json").exists()


# -- where it goes --------------------------------------------------------------------------------------------------


def test_a_model_s_report_is_not_replaced(measuring, cli):
    (measuring.run / "card.json").write_text("{}")
    said = one_line(cli("grid", measuring.run, "--out", measuring.run), "--out", "holds a model")
    assert str(measuring.run) in said
    assert sorted(Path(path).name for path in measuring.run.iterdir()) == ["card.json", "elastic.npz", "model.keras"]
    other = measuring.run / "grid"
    other.mkdir()
    (other / "card.json").write_text("{}")
    measured(measuring, "litert", out=measuring.run / "x" / ".." / "grid")  # the usual place, however it is written
