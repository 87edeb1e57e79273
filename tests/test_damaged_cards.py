"""Cards that were changed by hand or come from elsewhere: one line, before anything is written."""

import json

import pytest

pytest.importorskip("keras")

from exported import one_line
from mobilenets import card as cards
from mobilenets.architectures import network
from mobilenets.deployment.artifacts import check_entries, digests, verified
from mobilenets.errors import UserError
from mobilenets.evaluation.known import data_of


@pytest.fixture
def run(tmp_path):
    """A model directory without the model: what is wrong with its card is told before that is missed."""
    directory = tmp_path / "run"
    directory.mkdir()
    card = cards.begin(network("v1"), 0.25, 32, [*"0123456789"], "a test") | {"data": {"source": "digits"}}
    cards.write_card(directory, card)
    return directory


def change(run, **changes):
    card = json.loads((run / "card.json").read_text()) | changes
    (run / "card.json").write_text(json.dumps(card))
    return card


# -- its data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"source": 5}, "source of the data that it names is 5"),
        ({"source": ["digits"]}, "source of the data that it names is ['digits']"),
        ({"val_fraction": "0.2"}, "val_fraction of the data that it names is '0.2'"),
        ({"val_fraction": True}, "val_fraction of the data that it names is True"),
        ({"seed": 0.5}, "seed of the data that it names is 0.5"),
        ({"seed": None}, "seed of the data that it names is None"),
    ],
)
def test_nonsense_about_data_is_told(run, cli, about, words):
    card = change(run, data={"source": str(run.parent)} | about)
    one_line(cli("evaluate", run), "card.json: damaged", words)
    for task in cards.TASKS:  # as an export loads it
        with pytest.raises(UserError, match=r"card\.json: damaged"):
            data_of(card, task=task)


# -- its files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"metrics": "y"}, "metrics of x makes no sense"),
        ({"memory": "much"}, "memory of x makes no sense"),
        ({"files": ["x"]}, "files of x makes no sense"),
    ],
)
def test_evaluation_does_not_write_a_card_that_no_report_can_be_made_of(run, cli, entry, words):
    change(run, artifacts=[{"file": "x"} | entry])
    before = (run / "card.json").read_bytes()
    one_line(cli("evaluate", run), "card.json: damaged", words)
    assert (run / "card.json").read_bytes() == before
    assert [path.name for path in run.iterdir()] == ["card.json"]


def entry_of(run, **changes):
    """A file's entry in a card, and the file."""
    path = run / "export" / "model.tflite"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a file")
    known = {
        "file": "export/model.tflite",
        "files": digests(run, path),
        "target": "litert",
        "runtime": "litert",
        "precision": "float32",
        "processor": "another",
        "input_shape": [32, 32, 3],
        "batch": 1,
        "latency_ms": {"median": 1.0},
    }
    return {key: value for key, value in (known | changes).items() if value != "left out"}


@pytest.mark.parametrize("batch", [1, 8, None, "left out"])
def test_a_file_takes_some_images_a_call_or_any_number(run, batch):
    entry = entry_of(run, batch=batch)
    assert verified(run, entry) == run / "export" / "model.tflite"


@pytest.mark.parametrize("batch", ["x", 0, -1, 1.5, True, [1]])
def test_a_number_of_images_a_call_that_is_none_is_told(run, batch):
    with pytest.raises(UserError, match="batch of export/model.tflite makes no sense"):
        verified(run, entry_of(run, batch=batch))


@pytest.mark.parametrize("shape", [32, "32", [32, 32], [32, 32, "3"], [32, 0, 3], [32.0, 32, 3]])
def test_a_shape_that_is_none_is_told(run, shape):
    entry = entry_of(run, input_shape=shape)
    with pytest.raises(UserError, match="input_shape of export/model.tflite makes no sense"):
        verified(run, entry)
    with pytest.raises(UserError, match="input_shape of export/model.tflite makes no sense"):
        check_entries(run, {"artifacts": [entry]})


def test_a_file_whose_shape_nobody_tells_is_not_timed(run, cli, monkeypatch):
    monkeypatch.chdir(run.parent)
    change(run, artifacts=[entry_of(run, input_shape="left out")])
    for what in ("run", "run/export/model.tflite"):
        one_line(cli("benchmark", what), "does not tell input_shape of export/model.tflite")
    check_entries(run, json.loads((run / "card.json").read_text()))  # it can be written anew


def test_no_times_are_compared_of_a_file_with_nonsense_for_its_batch(run, cli, tmp_path):
    second = entry_of(run) | {"file": "export/other.tflite"}
    change(run, artifacts=[entry_of(run, batch="x"), second])
    (tmp_path / "a.png").write_bytes(b"")
    one_line(cli("predict", run, tmp_path / "a.png"), "batch of export/model.tflite makes no sense")
