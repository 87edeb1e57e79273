"""Options that would change nothing are refused, in one line that names all of them."""

import pytest

pytest.importorskip("keras")

from exported import one_line
from mobilenets import card as cards
from mobilenets.architectures import network
from mobilenets.deployment import benchmark as module
from mobilenets.deployment.artifacts import digests
from mobilenets.deployment.benchmark import Plan, benchmark
from mobilenets.deployment.predict import to_run
from mobilenets.deployment.subjects import Subject, of_directory
from mobilenets.errors import UserError
from mobilenets.training.kinds import Detectors, Segmenters
from mobilenets.training.settings import Settings

FILES = (
    ("model.tflite", "litert", "litert", "float32"),
    ("model_int8.tflite", "litert", "litert", "int8"),
    ("model.onnx", "onnx", "onnxruntime", "float32"),
)


@pytest.fixture
def run(tmp_path):
    """A model directory whose files are listed and never run."""
    directory = tmp_path / "run"
    (directory / "export").mkdir(parents=True)
    card = cards.begin(network("v1"), 0.25, 32, [*"0123456789"], "a test")
    for name, target, runtime, precision in FILES:
        path = directory / "export" / name
        path.write_bytes(name.encode())
        entry = {"file": f"export/{name}", "files": digests(directory, path), "target": target, "runtime": runtime}
        entry |= {"precision": precision, "input_shape": [32, 32, 3], "batch": 1, "processor": "another"}
        card["artifacts"].append(entry | {"latency_ms": {"median": 1.0}})
    cards.write_card(directory, card)
    return directory


# -- benchmark ------------------------------------------------------------------------------------------------------


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr("mobilenets.deployment.subjects.installed", lambda runtime: True)


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        (Plan(), ["model.tflite", "model_int8.tflite", "model.onnx", "model.keras"]),
        (Plan(targets=["onnx"]), ["model.onnx"]),
        (Plan(targets=["onnx", "litert"], precisions=["float32"]), ["model.tflite", "model.onnx"]),
        (Plan(precisions=["float32"]), ["model.tflite", "model.onnx", "model.keras"]),
        (Plan(targets=["litert"], runtimes=["openvino"]), ["model.tflite", "model_int8.tflite"]),
    ],
)
def test_files_of_a_directory_are_chosen(run, all_installed, plan, names):
    found = of_directory(run, plan.targets, plan.runtimes, plan.precisions, plan.batches)
    assert [subject.name for subject in found] == names


def test_benchmark_measures_the_files_that_were_asked_for(run, all_installed, monkeypatch):
    asked = []

    def timed(jobs, *_):
        asked.extend(subject.name for subject, _ in jobs)
        raise UserError("enough")

    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "peak_subjects", lambda *_: [])
    with pytest.raises(UserError, match="enough"):
        benchmark(str(run), Plan(targets=["onnx"]))
    assert asked == ["model.onnx"]
    with pytest.raises(UserError, match="there is no file that can be run here as asked"):
        benchmark(str(run), Plan(targets=["savedmodel"]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--alpha", 0.5), "--alpha would change nothing"),
        (("--size", 96), "--size would change nothing"),
        (("--classes", 10, "--alpha", "0.5,1"), "--alpha and --classes would change nothing"),
        (("--to", "coreml"), "--to must be of litert"),
    ],
)
def test_benchmark_of_a_directory(run, cli, words, told, monkeypatch):
    monkeypatch.chdir(run.parent)
    one_line(cli("benchmark", run, *words), told)
    assert not list(run.parent.rglob("benchmark.*"))


@pytest.mark.parametrize("option", [("--to", "onnx"), ("--precision", "int8"), ("--alpha", 0.5), ("--size", 96)])
def test_benchmark_of_a_file(run, cli, option, monkeypatch):
    monkeypatch.chdir(run.parent)
    one_line(cli("benchmark", "run/export/model.tflite", *option), "is one file", f"{option[0]} would change nothing")


class Still:
    """A worker that runs nothing."""

    def __init__(self, *_):
        self.about = {"load_seconds": 0.001, "threads": 1, "batch": None}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def times(self, batch, seconds):
        return [1.0]

    def memory(self):
        return {"before": 1, "peak": 2}


def test_what_is_called_peak_is_measured_like_anything_else(tmp_path, monkeypatch):
    (tmp_path / "peak").mkdir()
    (tmp_path / "peak" / "saved_model.pb").write_bytes(b"a model")
    reference = Subject("peak", tmp_path / "peak", "openvino", precision="float32", macs=10**9, peak=True)
    monkeypatch.setattr(module, "Worker", Still)
    monkeypatch.setattr(module, "peak_subjects", lambda *_: [reference])
    found = benchmark(str(tmp_path / "peak"), Plan(rounds=1, seconds=0.01))
    assert [(row["name"], row["runtime"]) for row in found["rows"]] == [("peak", "tensorflow")]
    assert "peak" not in found["rows"][0]
    assert [peak["gmacs_per_second"] for peak in found["peaks"]] == [1000.0]


# -- predict --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_keras_computes_in_float32(run, precision):
    with pytest.raises(UserError, match=f"--runtime keras computes in float32, not in {precision}"):
        to_run(run, "keras", precision, lambda: 1)


@pytest.mark.parametrize("precision", [None, "float32"])
def test_keras_runs_the_model(run, precision):
    assert to_run(run, "keras", precision, lambda: 1).path == run / "model.keras"


def test_one_file_has_one_precision(run):
    file = run / "export" / "model.tflite"
    with pytest.raises(UserError, match="is one file, so --precision would change nothing"):
        to_run(file, "auto", "int8", lambda: 1)
    assert to_run(file, "auto", None, lambda: 1).path == file


# -- compress --sensitivity and info --compare ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--prune", 0.5), "--prune"),
        (("--int8", "qat"), "--int8"),  # what it is where nobody says is ignored just as well
        (("--to", "onnx", "--threads", 1), "--to and --threads"),
        (("--teacher", "run", "--resume", "--overwrite"), "--teacher and --resume and --overwrite"),
    ],
)
def test_sensitivity_does_nothing_else(run, cli, tmp_path, words, names):
    said = one_line(cli("compress", run, "--sensitivity", "--out", tmp_path / "out", "--weight-bits", 4, *words))
    assert f"--sensitivity would ignore {names};" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("v1",), "NETWORK"),
        (("--alpha", 0.5, "--classes", 1000), "--alpha and --classes"),
        (("--size", 128), "--size"),
        (("--rho", 0.5, "--output-stride", 16), "--rho and --output-stride"),
    ],
)
def test_all_networks_are_compared_as_published(cli, words, names):
    assert f"--compare would ignore {names};" in one_line(cli("info", "--compare", *words))


# -- what training and files do without -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "names"),
    [(("--int8", "ptq", "--lr", 0.1), "--lr"), (("--int8", "none", "--prune", 0.5, "--epochs", 30), "--epochs")],
)
def test_only_training_for_integers_has_a_rate_and_epochs(run, cli, tmp_path, words, names):
    said = one_line(cli("compress", run, "--out", tmp_path / "out", *words))
    assert f"would ignore {names};" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--magnitude", 9), "--magnitude is the strength of what --randaugment does"),
        (("--warmup", 10, "--epochs", 5), "--warmup must be from 0 to --epochs"),
    ],
)
def test_training_is_not_told_what_it_would_not_do(cli, tmp_path, words, message):
    one_line(cli("train", "digits", *words, "--out", tmp_path / "out"), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [(), ("--precision", "float16"), ("--to", "savedmodel", "--precision", "int8")])
def test_images_to_calibrate_on_are_for_integers(run, cli, words):
    one_line(cli("export", run, "--calibrate", "nowhere/", *words), "--calibrate is for int8 files")


def test_weights_are_not_ported_to_a_network_of_other_strides(cli, tmp_path):
    (tmp_path / "v2.pth").write_bytes(b"")
    words = ("weights", tmp_path / "v2.pth", "--net", "v2", "--from", "torchvision", "--size", 32)
    one_line(cli(*words, "--out", tmp_path / "out"), "--size 32: below 64 pixels")


@pytest.mark.parametrize(("kind", "usual"), [(Detectors, 0.05), (Segmenters, 0.1)])
def test_a_rate_is_of_its_optimizer(kind, usual):
    settings = Settings(batch_size=8, learning_rate=3)  # what is usual is asked for, not what is given
    assert kind(None, None).rate(settings) == pytest.approx(usual)
    adamw = Settings(batch_size=8, optimizer="adamw", learning_rate=3)
    assert kind(None, None).rate(adamw) == pytest.approx(0.004 * (8 / 128) ** 0.5)
