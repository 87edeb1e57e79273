"""What lists between commas name, and which published networks are considered, by which measurements."""

import json
from types import SimpleNamespace

import pytest

from exported import one_line
from mobilenets import options
from mobilenets.errors import UserError
from mobilenets.selection import published
from mobilenets.selection.budget import Budget
from mobilenets.selection.published import choose_published

RESULTS = published.published()


def table_of(path, *rows):
    """A table of another machine: (network, α, pixels, threads, ms)."""
    names = ("network", "width_multiplier", "resolution", "threads", "median_ms")
    common = {"precision": "float32", "runtime": "litert", "batch": 1, "memory_bytes": None}
    path.write_text(json.dumps({"rows": [dict(zip(names, row, strict=True)) | common for row in rows]}))
    return path


def considered(*names, monkeypatch):
    """The networks that are measured where these are asked for."""
    seen = []
    monkeypatch.setattr(published, "_here", lambda wanted, *_: seen.extend(wanted) or ([], []))
    with pytest.raises(UserError):
        choose_published(names, Budget(latency_ms=5))
    return {row["network"] for row in seen}


# -- lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("choose", "--net", ",", "--latency-ms", 5), "--net must name"),
        (("choose", "--net", "", "--latency-ms", 5), "--net must name"),
        (("grid", "RUN", "--to", ","), "--to must name"),
        (("grid", "RUN", "--to", ""), "--to must name"),
        (("grid", "RUN", "--precision", ""), "--precision must name"),
        (("grid", "RUN", "--alpha", ""), "--alpha must name at least one number"),
        (("grid", "RUN", "--size", ""), "--size must name at least one number"),
        (("benchmark", "v1", "--to", ","), "must name something"),
        (("benchmark", "v1", "--runtime", " , "), "must name something"),
    ],
)
def test_a_list_that_names_nothing_is_one_line(words, option, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one_line(cli(*words), option)


def test_a_list_may_be_empty_where_no_option_must_name_something():
    assert options.words("") == []
    assert options.words("a, b,a,", "--to") == ["a", "b"]
    for option in (None, "--keep-float"):
        with pytest.raises(UserError, match="must name something"):
            options.words(" ,", option)


def test_no_name_at_all_is_one_line():
    with pytest.raises(UserError, match="--net must name at least one"):
        choose_published([], Budget(latency_ms=5))


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_network_s_own_name_means_it_alone(monkeypatch):
    assert considered("v3-large", monkeypatch=monkeypatch) == {"v3_large"}
    assert considered("V3_Small", "v1", monkeypatch=monkeypatch) == {"v3_small", "v1"}
    # Any other name means a family.
    every = {row["network"] for row in RESULTS}
    assert considered("v3", monkeypatch=monkeypatch) == {name for name in every if name.startswith("v3_")}
    assert considered("v4-conv", monkeypatch=monkeypatch) == {"v4_conv_small", "v4_conv_medium", "v4_conv_large"}


def test_a_network_without_a_result_does_not_stand_for_others(monkeypatch):
    known = [row for row in RESULTS if row["network"] != "v3_large"]
    monkeypatch.setattr(published, "published", lambda: known)
    with pytest.raises(UserError, match="nobody's result"):
        choose_published(["v3-large"], Budget(latency_ms=5))


# -- what could not be measured -------------------------------------------------------------------------------------


def test_networks_that_cannot_be_measured_are_told(monkeypatch, cli):
    known = [row for row in RESULTS if row["network"] == "v1" and row["resolution"] == 128]
    monkeypatch.setattr(published, "published", lambda: known)

    def subject(table, alpha, size, *_):
        return [SimpleNamespace(network=table.name, width_multiplier=alpha, resolution=size)]

    def timed(jobs, *_):
        rows = [vars(subject) | {"median_ms": 2.0, "memory_bytes": None, "threads": threads, "runtime": "litert"}
                | {"file_bytes": 10} for subject, threads in jobs[1:]]  # fmt: skip
        return rows, [{"file": "v1 of α 0.25", "runtime": "litert", "reason": "ended by signal 9"}]

    monkeypatch.setattr(published, "of_network", subject)
    monkeypatch.setattr(published, "timed", timed)
    status, out, err = cli("choose", "--net", "v1", "--json")
    assert status == 0, err
    assert json.loads(out)["notes"] == ["left out v1 of α 0.25: ended by signal 9"]
    assert "note: left out v1 of α 0.25: ended by signal 9" in cli("choose", "--net", "v1")[2]


# -- threads of another machine -------------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path):
    """v1 with one thread and with four, v2 with four alone."""
    rows = [("v1", 1.0, 224, 1, 9.0), ("v1", 1.0, 224, 4, 3.0), ("v2", 1.0, 224, 4, 2.0)]
    return table_of(tmp_path / "device.json", *rows)


def test_the_number_of_threads_that_is_named_counts_alone(device):
    winner = choose_published(["v1"], Budget(), device=device)["winner"]  # of all, the fastest
    assert (winner["latency_ms"], winner["threads"]) == (3.0, 4)
    found = choose_published(["v1"], Budget(), device=device, threads=1)
    assert (found["winner"]["latency_ms"], found["winner"]["threads"]) == (9.0, 1)
    (note,) = found["notes"]
    assert "15 of 16 networks with --threads 1, left out" in note
    assert "--threads 1 --out device.json" in note  # the command that measures the others
    with pytest.raises(UserError, match="impossible alone"):
        choose_published(["v1"], Budget(latency_ms=5), device=device, threads=1)


def test_a_number_of_threads_that_nobody_measured_is_one_line(device, cli):
    said = one_line(
        cli("choose", "--net", "v1", "--device", device, "--threads", 2), "--threads 2", "with 1, 4 threads"
    )
    assert "--threads 2" in said.partition("run on that machine")[2]
    one_line(cli("choose", "--net", "v2", "--device", device, "--threads", 1), "with 4 threads")


def test_another_machine_may_have_more_cores(tmp_path):
    device = table_of(tmp_path / "device.json", ("v1", 1.0, 224, 4096, 1.0))
    assert choose_published(["v1"], Budget(), device=device, threads=4096)["winner"]["threads"] == 4096
