"""``mobilenets benchmark``: of networks, of a model directory and of single files."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")

QUICK = ["--rounds", "2", "--seconds", "0.02"]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A network at two widths in two precisions, on one and two threads and for one and four images a call."""
    from mobilenets.deployment.benchmark import Plan, benchmark, write

    place = tmp_path_factory.mktemp("benchmark")
    plan = Plan(
        alphas=(0.25, 0.5),
        sizes=(128,),
        targets=("litert", "onnx"),
        threads=(1, 2),
        batches=(1, 4),
        rounds=2,
        seconds=0.02,
    )
    stages = []
    found = benchmark("v1", plan, lambda what, done, total: stages.append((what, done, total)))
    write(found, place / "table.json")
    return place, found, stages


def test_every_combination_is_a_row(networks):
    _, found, _ = networks
    assert found["skipped"] == []
    keys = ("width_multiplier", "precision", "runtime", "threads", "batch")
    combinations = {tuple(row[key] for key in keys) for row in found["rows"]}
    assert len(combinations) == len(found["rows"]) == 2 * 2 * 2 * 2 * 2


def test_the_numbers_of_a_row_fit_together(networks):
    from mobilenets.architectures import cost, network, write_out

    for row in networks[1]["rows"]:
        assert 0 < row["least_ms"] <= row["median_ms"] <= row["most_ms"]
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["median_ms"] * 1e3, rel=1e-3)
        layers = write_out(network(row["network"]), (128, 128, 3), 1000, row["width_multiplier"])
        assert row["macs"] == cost(layers).macs
        speed = row["macs"] * row["batch"] / row["median_ms"] / 1e6
        assert row["gmacs_per_second"] == pytest.approx(speed, abs=0.01, rel=0.02)
        assert 0.001 < row["share_of_peak"] < 3  # the peak is measured too, and a machine may be busy
        assert row["rounds"] == 2
        assert row["runs"] >= 2
        assert row["load_ms"] > 0
        assert 0 < row["memory_bytes"] < row["peak_memory_bytes"] < 2**31
        assert (row["partitions"] == 1) is (row["runtime"] == "litert")
        for key in ("processor", "cores", "flags", "system", "versions", "measured"):
            assert row[key]
    integer, real = (
        next(row for row in networks[1]["rows"] if row["precision"] == precision) for precision in ("int8", "float32")
    )
    assert integer["file_bytes"] < 0.4 * real["file_bytes"]


def test_accuracy_of_a_bare_network_is_the_published_one_and_says_so(networks):
    for row in networks[1]["rows"]:
        if row["precision"] == "float32":
            assert row["accuracy"] == pytest.approx({0.25: 0.415, 0.5: 0.563}[row["width_multiplier"]])
            assert "ImageNet, published by" in row["accuracy_of"]
        else:
            assert row["accuracy"] is None


def test_the_front_holds_what_nothing_beats(networks):
    rows = [row for row in networks[1]["rows"] if row["accuracy"] is not None]
    for row in rows:
        rivals = [other for other in rows if (other["threads"], other["batch"]) == (row["threads"], row["batch"])]
        beaten = any(
            (other["median_ms"] < row["median_ms"] and other["accuracy"] >= row["accuracy"])
            or (other["median_ms"] <= row["median_ms"] and other["accuracy"] > row["accuracy"])
            for other in rivals
        )
        assert row["pareto"] is not beaten
    assert not any(row["pareto"] for row in networks[1]["rows"] if row["accuracy"] is None)


def test_progress_is_told_from_beginning_to_end(networks):
    measuring = [(done, total) for what, done, total in networks[2] if what == "measuring"]
    assert measuring[-1][0] == measuring[-1][1]
    assert networks[2][0][0] == "writing files"


def test_table_json_and_picture_say_the_same(networks):
    place, found, _ = networks
    assert json.loads((place / "table.json").read_text()) == json.loads(json.dumps(found))
    rows = rows_of(place / "table.csv")
    assert len(rows) == len(found["rows"])
    assert [float(row["median_ms"]) for row in rows] == [row["median_ms"] for row in found["rows"]]
    picture = np.asarray(Image.open(place / "table.png").convert("RGB"))
    assert (picture != 255).any(axis=2).mean() > 0.01


@pytest.mark.long
def test_a_model_directory(model, cli):
    status, out, err = cli("benchmark", model, "--runtime", "litert,openvino,keras", "--json", *QUICK)
    assert (status, err) == (0, "")
    found = json.loads(out)
    card = json.loads((model / "card.json").read_text())
    rows = {row["runtime"]: row for row in found["rows"]}
    assert set(rows) == {"litert", "openvino", "keras"}
    assert rows["litert"]["file"] == rows["openvino"]["file"] == "model.tflite"
    assert rows["litert"]["accuracy"] == card["artifacts"][0]["metrics"]["accuracy"]
    assert rows["keras"]["accuracy"] == card["metrics"]["accuracy"]
    assert rows["litert"]["macs"] == card["cost"]["macs"]
    assert rows["litert"]["file_bytes"] == (model / "export" / "model.tflite").stat().st_size
    assert rows["litert"]["median_ms"] < rows["keras"]["median_ms"]
    assert (model / "benchmark.json").is_file()
    assert len(rows_of(model / "benchmark.csv")) == 3


def test_a_single_file_with_and_without_its_card(model, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = cli("benchmark", model / "export" / "model.tflite", "--json", "--threads", "1", *QUICK)
    assert status == 0
    (row,) = json.loads(out)["rows"]
    assert (row["network"], row["threads"]) == ("v1", 1)
    shutil.copy(model / "export" / "model.tflite", tmp_path / "loose.tflite")
    status, out, err = cli("benchmark", "loose.tflite", "--out", "a.json", *QUICK)
    assert (status, err) == (0, "")
    assert "loose.tflite" in out
    (row,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert (row["network"], row["accuracy"], row["share_of_peak"]) == (None, None, None)


def test_a_file_that_changed_is_not_measured(model, cli):
    (model / "export" / "model.tflite").write_bytes(b"x")
    status, _, err = cli("benchmark", model)
    assert status == 2
    assert "is not the file that was measured" in err
    assert not (model / "benchmark.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("v9",), "v9"),
        (("nowhere/",), "not a model directory"),
        (("v1", "--alpha", "x"), "--alpha"),
        (("v1", "--alpha", "0"), "alpha"),
        (("v1", "--size", "4"), "--size"),
        (("v1", "--precision", "int4"), "--precision"),
        (("v1", "--to", "coreml"), "--to"),
        (("v1", "--runtime", "tvm"), "--runtime"),
        (("v1", "--alpha", "0.25", "--size", "32", "--to", "litert", "--runtime", "keras"), "no file that can be run"),
        ((",",), "no file that can be run"),
        (("v1", "--threads", "0"), "--threads"),
        (("v1", "--batch", "0"), "--batch"),
        (("v1", "--batch", ","), "--batch"),
        (("v1", "--rounds", "0"), "--rounds"),
        (("v1", "--seconds", "0"), "--seconds"),
        (("v1", "--out", "table.csv"), ".json"),
    ],
)
def test_mistakes_are_one_line(cli, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    status, out, err = cli("benchmark", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert not list(tmp_path.iterdir())
