"""Training, its promises kept across interruptions, and its mistakes told in one line."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mobilenets.architectures import V1, network
from mobilenets.data import ImageData, Split
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.family import mobilenet_v1
from mobilenets.models.layers import BatchNormReLU
from mobilenets.models.saving import load_model
from mobilenets.training import checkpoint
from mobilenets.training.classify import train
from mobilenets.training.fit import class_weights, fit
from mobilenets.training.optimizer import make_optimizer
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

# The first rows of V1's table: all that training has to deal with, and built in a second.
TINY = replace(V1, blocks=V1.blocks[:4])
QUICK = Settings(epochs=3, batch_size=16, label_smoothing=0.0, ema=True)


def stripes(count: int, seed: int) -> Split:
    """Images of 16x16 pixels whose stripes lie across, stand up or run askew: three classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    row, column = np.mgrid[:16, :16]
    waves = np.stack([row, column, row + column])[labels] + rng.integers(0, 8, (count, 1, 1))
    pixels = 127 + 90 * np.sin(waves * 1.6)[..., None] + rng.normal(0, 20, (count, 16, 16, 3))
    return Split(np.clip(pixels, 0, 255).astype(np.uint8), labels.astype(np.int64))


def striped_data() -> ImageData:
    return ImageData(
        name="stripes",
        source="stripes",
        classes=("across", "up", "askew"),
        train=stripes(96, 0),
        val=stripes(48, 1),
        native_size=16,
        flip=False,
        fingerprint="0" * 64,
    )


@pytest.fixture(scope="module")
def data() -> ImageData:
    return striped_data()


def run(data: ImageData, out, settings: Settings = QUICK, **options):
    return train(data, out, TINY, 0.25, settings=settings, quiet=True, **options)


class Interrupted(Reporter):
    """Stops a run after its second epoch, when the checkpoint has been written."""

    def end(self, state):
        if state.epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.backend
def test_a_network_learns_and_its_directory_is_complete(data, tmp_path):
    card = run(data, tmp_path / "run", replace(QUICK, epochs=12, ema=False, learning_rate=0.05))
    assert card["metrics"]["accuracy"] >= 0.9
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.keras",
        "card.json",
        "history.csv",
        "report.html",
        "pictures",
    }
    assert json.loads((tmp_path / "run" / "card.json").read_text()) == card
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(card["metrics"]["accuracy"], abs=1e-6)
    assert (card["network"], card["width_multiplier"], card["resolution_multiplier"]) == ("v1", 0.25, 0.0714)
    model = load_model(tmp_path / "run")
    assert card["cost"]["params"] == sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    measured = np.asarray(model.predict_on_batch(data.val.images.astype(np.float32))).argmax(axis=1)
    assert (measured == data.val.labels).mean() == pytest.approx(card["metrics"]["accuracy"])


@pytest.mark.long
@pytest.mark.backend
def test_an_interrupted_run_ends_as_if_never_stopped(data, tmp_path, monkeypatch):
    whole = run(data, tmp_path / "whole")
    monkeypatch.setattr("mobilenets.training.classify.Reporter", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "parts")
    monkeypatch.undo()
    assert not (tmp_path / "parts" / "card.json").exists()
    resumed = run(data, tmp_path / "parts", resume=True)
    assert resumed["metrics"] == whole["metrics"]
    for one, other in zip(load_model(tmp_path / "whole").weights, load_model(tmp_path / "parts").weights, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), rtol=1e-5, atol=1e-6
        )


COMMAND = [sys.executable, "-m", "mobilenets", "train", "digits", "--alpha", "0.25", "--size", "16"]
COMMAND += ["--epochs", "5", "--batch-size", "128", "--seed", "3"]


@pytest.mark.long
def test_a_run_killed_outright_resumes_to_the_same_metrics(tmp_path):
    def finish(*options: str) -> dict:
        done = subprocess.run([*COMMAND, "--json", *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    killed = tmp_path / "killed"
    process = subprocess.Popen([*COMMAND, "--out", str(killed)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 200
    while not (killed / "history.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.15)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    state = checkpoint.load(killed)
    assert 1 <= state.epoch < 5
    assert not (killed / "card.json").exists()
    whole, resumed = finish("--out", str(tmp_path / "whole")), finish("--out", str(killed), "--resume")
    assert resumed["metrics"] == whole["metrics"]
    assert not list(killed.glob("*.npz"))
    assert not list(killed.glob(".*"))


def test_what_a_run_was_begun_with_cannot_change_underway(data, tmp_path, monkeypatch):
    monkeypatch.setattr("mobilenets.training.classify.Reporter", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "run")
    with pytest.raises(UserError, match="settings") as caught:
        run(data, tmp_path / "run", replace(QUICK, epochs=9), resume=True)
    assert "epochs" in str(caught.value)
    with pytest.raises(UserError, match="data has changed"):
        run(replace(data, fingerprint="1" * 64), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="unfinished run.*--resume"):
        run(data, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.npz").write_bytes(b"PK\x03\x04 no checkpoint")
    with pytest.raises(UserError, match="checkpoint.npz: damaged"):
        run(data, tmp_path / "run", resume=True)


def test_a_finished_model_is_not_overwritten_unasked(data, tmp_path):
    short = replace(QUICK, epochs=1)
    run(data, tmp_path / "run", short)
    before = (tmp_path / "run" / "model.keras").read_bytes()
    with pytest.raises(UserError, match="already holds a model.*--overwrite"):
        run(data, tmp_path / "run", short)
    with pytest.raises(UserError, match="nothing to resume"):
        run(data, tmp_path / "run", short, resume=True)
    assert (tmp_path / "run" / "model.keras").read_bytes() == before
    (tmp_path / "run" / "mine.txt").write_text("not ours to remove")
    for path in (tmp_path / "run", tmp_path / "run" / "model.keras"):
        with pytest.raises(UserError, match=f"--weights {path}, would be replaced"):
            run(data, tmp_path / "run", short, overwrite=True, weights=path)
    assert (tmp_path / "run" / "model.keras").read_bytes() == before
    run(data, tmp_path / "run", replace(short, seed=1), overwrite=True)
    assert (tmp_path / "run" / "model.keras").read_bytes() != before
    assert (tmp_path / "run" / "mine.txt").exists()


def test_weights_that_are_no_numbers_after_the_last_step_are_not_kept(data, tmp_path, monkeypatch):
    """The loss of that step was one."""
    from mobilenets.training import loop

    build, epoch, built = loop.build, loop._epoch, []

    def poisoned(step, batches, number, report):
        row = epoch(step, batches, number, report)
        if number == 2:
            kernel = built[0].trainable_variables[0]
            kernel.assign(kernel * np.nan)
        return row

    monkeypatch.setattr(loop, "build", lambda networks, *shapes: built.append(networks) or build(networks, *shapes))
    monkeypatch.setattr(loop, "_epoch", poisoned)
    with pytest.raises(UserError, match="NaN or infinite in epoch 3.*model of epoch 2"):
        run(data, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "card.json").read_text())["training"]["epochs_run"] == 2
    assert all(np.isfinite(weight).all() for weight in load_model(tmp_path / "run").get_weights())


@pytest.mark.backend
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(data, tmp_path, monkeypatch):
    def poisoned(self, number):
        for images, labels, weights in original(self, number):
            yield images, np.full_like(labels, np.nan) if number == 2 else labels, weights

    from mobilenets.data.loader import Batches

    original = Batches.epoch
    monkeypatch.setattr(Batches, "epoch", poisoned)
    with pytest.raises(UserError, match="NaN or infinite in epoch 3.*model of epoch 2.*lower --lr"):
        run(data, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["training"]["epochs_run"] == 2
    assert checkpoint.load(tmp_path / "run").epoch == 2
    assert all(np.isfinite(weight).all() for weight in load_model(tmp_path / "run").get_weights())


def test_early_stopping_keeps_the_best_epoch(data, tmp_path):
    card = run(data, tmp_path / "run", replace(QUICK, epochs=30, patience=2, ema=False, learning_rate=0.05))
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    assert len(rows) < 30
    assert card["metrics"]["accuracy"] == pytest.approx(max(float(row["val_accuracy"]) for row in rows), abs=1e-6)
    assert "no better accuracy" in card["training"]["stopped"]


@pytest.mark.long
def test_a_run_that_early_stopping_had_ended_is_not_trained_further(data, tmp_path, monkeypatch):
    settings = replace(QUICK, epochs=30, patience=2, ema=False, learning_rate=0.05)
    whole = run(data, tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        patch.setattr("mobilenets.training.classify.save_model", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(data, tmp_path / "run", settings)
    card = run(data, tmp_path / "run", settings, resume=True)
    assert card["training"]["epochs_run"] == whole["training"]["epochs_run"]
    assert card["training"]["stopped"] == whole["training"]["stopped"]
    assert card["metrics"] == whole["metrics"]


@pytest.mark.backend
def test_a_frozen_backbone_stays_as_it_was(data, tmp_path):
    run(data, tmp_path / "first", replace(QUICK, epochs=1))
    card = run(data, tmp_path / "head", replace(QUICK, freeze=True), weights=tmp_path / "first")
    first, head = load_model(tmp_path / "first"), load_model(tmp_path / "head")
    for layer in first.layers:
        for one, other in zip(layer.get_weights(), head.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(one, other) == (layer.name != "logits"), layer.name
    assert card["training"]["weights"] == str(tmp_path / "first")
    with pytest.raises(UserError, match="--weights"):
        run(data, tmp_path / "other", replace(QUICK, freeze=True))


@pytest.mark.long
def test_weights_of_another_width_are_refused_and_another_head_is_begun_anew(data, tmp_path):
    run(data, tmp_path / "first", replace(QUICK, epochs=1))
    with pytest.raises(UserError, match=r"layer 'stem' has shapes .* --alpha"):
        train(data, tmp_path / "wide", TINY, 0.75, settings=QUICK, weights=tmp_path / "first", quiet=True)
    assert not (tmp_path / "wide" / "model.keras").exists()
    four = replace(data, classes=("across", "up", "askew", "none"))
    run(four, tmp_path / "four", replace(QUICK, epochs=1), weights=tmp_path / "first" / "model.keras")
    assert load_model(tmp_path / "four").output_shape == (None, 4)


def test_unbalanced_classes_count_alike(data):
    few = Split(data.train.images[:60], np.array([0] * 40 + [1] * 10 + [2] * 10))
    weights = class_weights(replace(data, train=few), QUICK)
    np.testing.assert_allclose(weights, [0.5, 2.0, 2.0])
    assert (weights[few.labels]).mean() == pytest.approx(1)
    assert class_weights(data, QUICK) is None
    assert class_weights(replace(data, train=few), replace(QUICK, class_weights=False)) is None


@pytest.mark.backend
@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=pytest.mark.long), "float16"])
def test_mixed_precision_trains_and_leaves_a_float32_model(data, tmp_path, precision, monkeypatch):
    scaled = []
    scale_loss = keras.optimizers.LossScaleOptimizer.scale_loss
    monkeypatch.setattr(
        keras.optimizers.LossScaleOptimizer,
        "scale_loss",
        lambda self, loss: scaled.append(self) or scale_loss(self, loss),
    )
    card = run(data, tmp_path / "run", replace(QUICK, epochs=2, precision=precision))
    assert bool(scaled) == (precision == "float16")  # whose smallest number is 6e-8
    model = load_model(tmp_path / "run")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    # What the card says is said of the float32 model.
    said = np.asarray(model.predict_on_batch(data.val.images))
    expected = -np.log(said[np.arange(len(said)), data.val.labels]).mean()
    assert card["metrics"]["log_loss"] == pytest.approx(expected, rel=1e-4)


def test_the_rate_warms_up_and_follows_a_cosine_to_zero():
    settings = Settings(epochs=10, batch_size=128, optimizer="sgd", warmup_epochs=2)
    schedule = make_optimizer(settings, [], steps=100)._learning_rate
    rates = [float(schedule(step)) for step in (0, 100, 200, 600, 1000)]
    np.testing.assert_allclose(rates, [0, 0.15, 0.3, 0.15, 0], atol=1e-6)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_a_run_of_one_step_learns(schedule):
    settings = Settings(epochs=1, batch_size=128, schedule=schedule)
    assert float(make_optimizer(settings, [], steps=1)._learning_rate(0)) == pytest.approx(0.3)


def test_weight_decay_spares_what_it_would_hurt():
    model = mobilenet_v1((16, 16, 3), 3, 0.25)
    optimizer = make_optimizer(Settings(), model.trainable_variables, 10)
    optimizer.build(model.trainable_variables)
    decayed = [variable.path for variable in model.trainable_variables if optimizer._use_weight_decay(variable)]
    assert len(decayed) == 15  # stem, 13 pointwise, head
    assert not [path for path in decayed if not path.endswith("kernel") or "depthwise" in path]
    variables = classifier(network("v4_hybrid_medium"), (64, 64, 3), 3, 0.25).trainable_variables
    optimizer = make_optimizer(Settings(), variables, 10)
    optimizer.build(variables)
    kernels = [variable for variable in variables if variable.path.endswith("kernel")]
    spared = [variable for variable in kernels if not optimizer._use_weight_decay(variable)]
    assert {tuple(variable.shape[:2]) for variable in spared} <= {(3, 3), (5, 5)}
    assert {variable.shape[-1] for variable in spared} == {1}
    assert any("_start" in variable.path for variable in spared)
    assert any("_down" in variable.path for variable in spared)


@pytest.mark.backend
@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradients_of_several_passes_count_as_those_of_one(optimizer, clip):
    settings = Settings(epochs=10, optimizer=optimizer, warmup_epochs=0, weight_decay=0.1, clip_norm=clip)
    found = []
    for passes in (1, 3):
        variables = [keras.Variable(np.full(2, 4, np.float32), name=name) for name in ("one_kernel", "other_bias")]
        made = make_optimizer(settings, variables, 1000, 0.1, passes=passes)
        for _ in range(passes):
            each = [np.float32(gradient) / passes for gradient in ([3, -6], [2, 1])]
            made.apply([keras.ops.convert_to_tensor(gradient) for gradient in each], variables)
        found.append([np.asarray(keras.ops.convert_to_numpy(variable)).copy() for variable in variables])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert np.abs(found[0] - np.float32(4)).min() > 0.01


@pytest.mark.backend
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_tied_variables_learn_from_the_sum_of_their_gradients(optimizer):
    ones = np.ones(2, np.float32)
    variables = [keras.Variable(ones, name=f"{name}_kernel") for name in ("tied", "too", "twin")]
    settings = Settings(epochs=10, warmup_epochs=0, optimizer=optimizer)
    tied = [[variables[0].path, variables[1].path, "of another network"]]
    made = make_optimizer(settings, variables, 100, 0.1, tied=tied)
    for gradients in (([1, 2], [3, -8], [4, -6]), ([5, 5], None, [5, 5])):
        tensors = [value and keras.ops.convert_to_tensor(np.float32(value)) for value in gradients]
        made.apply(tensors, variables)
    found = [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], found[2], rtol=1e-6)
    assert np.abs(found[0] - ones).min() > 0.01


@pytest.mark.backend
@pytest.mark.parametrize(("norm", "moved"), [(None, 5.0), (0.0, 5.0), (2.0, 2.0), (10.0, 5.0)])
def test_gradients_are_clipped_all_together(norm, moved):
    variables = [keras.Variable(np.zeros(1, np.float32), name=name) for name in ("one_kernel", "other_bias")]
    made = make_optimizer(Settings(epochs=10, warmup_epochs=0, clip_norm=norm), variables, 100, 1.0)
    before = [np.asarray(keras.ops.convert_to_numpy(variable)).copy() for variable in variables]
    made.apply([keras.ops.convert_to_tensor(np.float32([value])) for value in (3.0, -4.0)], variables)
    after = [keras.ops.convert_to_numpy(variable) for variable in variables]
    steps = np.concatenate([new - old for old, new in zip(before, after, strict=True)])
    # Nesterov's first step is 1.9 gradients long, and turns nowhere else.
    np.testing.assert_allclose(steps, 1.9 * moved * np.array([-0.6, 0.8]), rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "option"),
    [
        ({"epochs": 0}, "--epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"optimizer": "lion"}, "--optimizer"),
        ({"learning_rate": 0.0}, "--lr"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"clip_norm": -1.0}, "--clip-norm"),
        ({"label_smoothing": 1.0}, "--label-smoothing"),
        ({"mixup": -0.1}, "--mixup"),
        ({"patience": 0}, "--patience"),
        ({"precision": "int3"}, "--precision"),
        ({"crop": "round"}, "--crop"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_setting_out_of_range_is_named_by_its_option(setting, option):
    with pytest.raises(UserError, match=option):
        Settings(**setting)


def mounted(directory, *options: str):
    """Mounts a small file system of its own, where the test may."""
    directory.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(directory)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a file system needs root")


@pytest.fixture
def small_disk(tmp_path):
    directory = tmp_path / "disk"
    mounted(directory, "-o", "size=9m")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def read_only(tmp_path):
    directory = tmp_path / "disk"
    mounted(directory, "-o", "ro")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


def test_a_read_only_place_is_told_before_training(data, read_only):
    with pytest.raises(UserError, match="cannot be written .*choose another place"):
        run(data, read_only / "run")
    assert not list(read_only.iterdir())


def test_a_file_where_the_directory_should_be_is_told(data, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UserError, match="cannot be written|a file stands"):
        run(data, tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.long
def test_a_full_disk_loses_nothing_and_the_run_goes_on_when_there_is_room(data, small_disk, tmp_path):
    whole = run(data, tmp_path / "whole")
    filler = small_disk / "filler"
    before = checkpoint.State
    written = []

    class Filling(Reporter):
        def end(self, state):
            written.append(state.epoch)
            free = os.statvfs(small_disk)
            filler.write_bytes(bytes(free.f_bavail * free.f_bsize))

    import mobilenets.training.classify as classify

    original, classify.Reporter = classify.Reporter, Filling
    try:
        with pytest.raises(UserError, match="no space left on the disk; free some"):
            run(data, small_disk / "run")
    finally:
        classify.Reporter = original
    assert written == [1]
    state = checkpoint.load(small_disk / "run")
    assert isinstance(state, before)
    assert state.epoch == 1
    assert not [path for path in (small_disk / "run").iterdir() if path.name.startswith(".")]
    filler.unlink()
    assert run(data, small_disk / "run", resume=True)["metrics"] == whole["metrics"]


def test_tensorboard_reads_the_logs(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(data, tmp_path / "run", tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("epoch/val_accuracy")] == [1, 2, 3]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces anew for new variables")
@pytest.mark.parametrize("taught", [False, True])
def test_a_step_is_traced_once(taught, tmp_path, monkeypatch):
    traced = []
    call = BatchNormReLU.call

    def count(self, inputs, training=None, mask=None):
        traced.append((self.name, training))
        return call(self, inputs, training=training, mask=mask)

    model = classifier(TINY, (16, 16, 3), 3, 0.25)
    teacher = logits_model(classifier(TINY, (16, 16, 3), 3, 0.5), features=True) if taught else None
    monkeypatch.setattr(BatchNormReLU, "call", count)
    settings = Settings(epochs=1, batch_size=8)
    fit(model, striped_data(), settings, tmp_path, checkpoint.State({}), partial(Reporter, quiet=True), teacher=teacher)
    assert traced.count(("stem_bn", True)) == 1
