"""Compressing detectors: what is simulated is what the files find, and what is pruned is an ordinary detector."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

from exported import card_of, one_line, quick_compression, write_card
from mobilenets import card as cards
from mobilenets.architectures import HEADS, NETWORKS, V1, V3_SMALL, channel_groups, cost, head, layers_of
from mobilenets.compress import compress
from mobilenets.compression.bias import correct_bias
from mobilenets.compression.equalize import equalize
from mobilenets.compression.importance import importance
from mobilenets.compression.pruning import choose, floors, remove_channels
from mobilenets.compression.qat import simulated, train_quantized
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import integer_form
from mobilenets.data.box_folder import load_boxes
from mobilenets.data.box_loader import BoxBatches
from mobilenets.deployment.calibrate import calibrate, observe
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.detector import raw_model
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import built
from mobilenets.models.weights import as_trained, start_from
from mobilenets.training import checkpoint
from mobilenets.training.box_losses import loss_of
from mobilenets.training.dense import train_dense
from mobilenets.training.fit_boxes import fit_detector
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings
from once import once
from test_detect import CLASSES, folder
from test_detector_files import SIZE, made, pixels
from test_pruning import silence

# The first rows of a table, down to a sixteenth of the image: half of the layers take half of the time.
SHORT = replace(V1, blocks=V1.blocks[:7])
SHORT_V3 = replace(V3_SMALL, blocks=V3_SMALL.blocks[:6])
ALPHA = 0.25
SETTINGS = Settings(epochs=20, batch_size=8, learning_rate=0.05)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_compression(monkeypatch)
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


@pytest.fixture(scope="module")
def trained(place):
    """A detector that has learned a little, with its data beside it."""

    def make(directory):
        data = load_boxes(folder(directory / "shapes"))
        train_dense(data, directory / "run", SHORT, head("anchor-free"), ALPHA, SIZE, SETTINGS, quiet=True)

    return once(place / "short_detector", make) / "run"


@pytest.fixture(scope="module")
def data(trained):
    return load_boxes(trained.parent / "shapes")


def ranges_of(model, images) -> dict[str, tuple[float, float]]:
    return calibrate(integer_form(graph_of(model)), list(images))


def silent(epochs: int, steps: int) -> Reporter:
    return Reporter(epochs, steps, True)


# -- the simulation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        pytest.param(SHORT, "anchor_free", marks=pytest.mark.backend),
        pytest.param(SHORT, "ssdlite", marks=pytest.mark.backend),
        (SHORT_V3, "anchor_free"),
    ],
)
def test_the_simulation_finds_what_the_files_find(table, kind, tmp_path):
    """Every map with steps of its own, coarse maps resized in integers, boxes decoded from real numbers."""
    model, images = made(table, kind), pixels(SIZE, 8)
    exact = np.asarray(model.predict_on_batch(images))
    for target, bits in (("litert", 8), ("onnx", 7)):
        network = simulated(model, ranges_of(model, images[:4]), weight_bits=bits)
        found = np.asarray(network.predict_on_batch(images))
        # Written with the ranges that the layer tells, as after training: of all operations, lists and boxes apart.
        writer = Writer(model, [], Quantization("qat", network.get_layer("logits").ranges()))
        if all(pytest.importorskip(package) for package in TARGETS[target].packages):
            path = writer.write(Variant(target, "int8", batch=TARGETS[target].batch), tmp_path)
            written = load(path, TARGETS[target].runtime, 1)(images)
            cost_of_integers, off = np.sqrt(((written - exact) ** 2).mean()), np.abs(written - found)
            assert cost_of_integers > 1e-3, target
            # ONNX Runtime rounds halves of resized maps to the even number, LiteRT up, as is simulated.
            limit = 0.01 if target == "litert" else 0.2
            assert np.median(off) < limit * cost_of_integers, target
            if target == "litert":
                assert (off < 1e-5).mean() > 0.9


# -- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_detectors_are_equalized_and_corrected():
    model, images = made(SHORT, "anchor_free"), pixels(SIZE, 8)
    exact = np.asarray(model.predict_on_batch(images))
    assert equalize(model, observe(integer_form(graph_of(model)), list(images)))
    np.testing.assert_allclose(model.predict_on_batch(images), exact, atol=1e-4)
    ranges = ranges_of(model, images)
    raw = np.asarray(raw_model(model).predict_on_batch(images)).mean(axis=(0, 1))

    def shift() -> np.ndarray:
        network = raw_model(simulated(model, ranges, weight_bits=4))
        return np.abs(np.asarray(network.predict_on_batch(images)).mean(axis=(0, 1)) - raw)

    before = shift()
    changed = correct_bias(model, list(images), ranges, weight_bits=4)
    assert {"level0_boxes", "level0_scores"} <= set(changed)
    assert shift().max() < 0.3 * before.max()


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_training_for_integers_mends_what_they_broke(data, trained, tmp_path):
    """Ranges a third as wide as they should be; the weights and the ranges find a way."""
    model = load_model(trained)
    batches = list(BoxBatches(data.train, SIZE, 16).epoch(0))
    images = np.concatenate([images for images, _ in batches])
    limits = {name: (low / 3, high / 3) for name, (low, high) in ranges_of(model, images[:32]).items()}

    def loss(network) -> float:
        raw, of = raw_model(network), loss_of(network)
        found = [of(keras.ops.convert_to_tensor(told), raw(images.astype(np.float32))) for images, told in batches]
        return float(np.mean([keras.ops.convert_to_numpy(each) for each in found]))

    broken = loss(simulated(model, limits))
    settings = Settings(epochs=4, batch_size=8, learning_rate=0.01, warmup_epochs=0)
    result, quantization, network = train_quantized(
        model, data, settings, tmp_path, checkpoint.State({}), limits, fit=fit_detector, reporter=silent
    )
    assert {"val_ap", "val_ap50"} <= set(result.state.history[-1])
    assert loss(network) < 0.8 * broken
    assert quantization.ranges["stem"][1] > 1.2 * limits["stem"][1]
    # A map that is resized keeps the steps of what it was, trained or not.
    assert quantization.ranges["merge0_resize"] == quantization.ranges["smooth1"]
    # What the card will say is what was trained.
    np.testing.assert_allclose(
        simulated(model, quantization.ranges).predict_on_batch(images[:8]),
        network.predict_on_batch(images[:8]),
        atol=1e-5,
    )


# -- pruning --------------------------------------------------------------------------------------------------------


def written(kind: str) -> list:
    return layers_of(SHORT, HEADS[kind], (SIZE, SIZE, 3), 3, ALPHA)


@pytest.mark.backend
@pytest.mark.parametrize("kind", HEADS)
def test_removing_channels_that_carry_nothing_changes_nothing(kind):
    """Every third channel, of the network and of the head, but for what tells boxes and classes."""
    model, images, layers = made(SHORT, kind), pixels(SIZE, 4), written(kind)
    channels = channel_groups(layers)
    kept = {
        index: np.flatnonzero(np.arange(group.size) % 3) for index, group in enumerate(channels.groups) if group.movable
    }
    silence(model, layers, kept)
    smaller, table = remove_channels(model, SHORT, ALPHA, kept, HEADS[kind])
    assert smaller.count_params() < 0.6 * model.count_params()
    assert any(layer.startswith(("lateral", "extra")) for layer, _ in table.channels)
    expected = np.asarray(model.predict_on_batch(images))
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(smaller.predict_on_batch(images), expected, atol=1e-4)


@pytest.mark.parametrize("kind", HEADS)
def test_the_smaller_detector_is_as_large_as_asked_and_its_table_says(kind):
    layers = written(kind)
    channels, whole = channel_groups(layers), cost(layers).macs
    rng = np.random.default_rng(0)
    scores = {index: rng.random(group.size) for index, group in enumerate(channels.groups) if group.movable}
    kept = choose(layers, channels, scores, 0.5 * whole, floors(channels))
    smaller, table = remove_channels(made(SHORT, kind), SHORT, ALPHA, kept, HEADS[kind])
    left = layers_of(table, HEADS[kind], (SIZE, SIZE, 3), 3, ALPHA)
    assert 0.4 * whole < cost(left).macs <= 0.5 * whole
    assert sum(int(np.prod(variable.shape)) for variable in smaller.trainable_variables) == cost(left).params
    again = built(table, HEADS[kind], (SIZE, SIZE, 3), 3, ALPHA)
    assert [tuple(weight.shape) for weight in again.weights] == [tuple(weight.shape) for weight in smaller.weights]


@pytest.mark.long
@pytest.mark.backend
@pytest.mark.parametrize("kind", HEADS)
def test_taylor_asks_the_loss_of_the_detector(kind, data):
    model, channels = made(SHORT, kind), channel_groups(written(kind))
    before = model.get_weights()
    found = importance(model, channels, "taylor", BoxBatches(data.train, SIZE, 16).epoch(0))
    assert set(found) == {index for index, group in enumerate(channels.groups) if group.movable}
    assert all(np.isfinite(each).all() for each in found.values())
    # Of SSDLite's maps for large objects, of which there are none here, no channel matters.
    for name in ("stem", "block3_pointwise", *(("lateral0", "level0_tower1") if kind == "anchor_free" else ())):
        assert found[channels.writes[name]].max() > 0, name
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


# -- the verb -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_compress_writes_a_detector_trained_for_int8(trained, cli, tmp_path):
    before, out = (trained / "card.json").read_bytes(), tmp_path / "small"
    status, text, err = cli("compress", trained, "--out", out, "--epochs", 3, "--batch-size", 8, "--max-drop", 5,
                            "--json")  # fmt: skip
    assert status == 0, err
    card = json.loads(text)
    assert card == card_of(out)
    assert (trained / "card.json").read_bytes() == before
    assert (card["task"], card["head"], card["quantization"]["method"]) == ("detect", "anchor_free", "qat")
    for unused in ("label_smoothing", "teacher"):  # of classifiers
        assert unused not in card["training"]
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], stage["epochs"]) == ("qat", 3)
    assert [row["chosen"] for row in stage["trials"]].count(True) == 1
    assert "ranges" not in stage  # those that were trained are the card's
    float32, calibrated, after = card["compression"]["files"]
    assert [(row["when"], row["precision"]) for row in (float32, calibrated, after)] == [
        ("before", "float32"),
        ("before", "int8"),
        ("after", "int8"),
    ]
    assert after["ap"] >= calibrated["ap"] - 0.05  # 16 images: one box is more than a point
    assert abs(card["quantization"]["metrics"]["ap"] - after["ap"]) < 0.005  # simulated, and of the file
    assert abs(stage["ap"] - after["ap"]) < 0.005
    page = (out / "report.html").read_text()
    assert "Before and after" in page
    assert "Simulated in Keras" in page
    (entry,) = card["artifacts"]
    status, text, err = cli("evaluate", out / entry["file"], "--json")
    assert (status, json.loads(text)["ap"]) == (0, entry["metrics"]["ap"]), err
    # Exported again, the file is the same: its ranges are the trained ones.
    status, text, err = cli("export", out, "--precision", "int8", "--max-drop", 5, "--json")
    assert status == 0, err
    (again,) = json.loads(text)["artifacts"]
    assert again["files"] == entry["files"]


@pytest.mark.long
def test_a_pruned_detector_is_an_ordinary_one(trained, data, cli, tmp_path):
    out, before = tmp_path / "small", card_of(trained)
    # So much at once, and by a criterion that needs no pass through the network.
    status, text, err = cli("compress", trained, "--out", out, "--prune", 0.86, "--prune-steps", 1, "--prune-epochs", 1,
                            "--criterion", "bn", "--int8", "none", "--batch-size", 8, "--max-drop", 100)  # fmt: skip
    assert status == 0, err
    assert " AP " in text
    card = card_of(out)
    assert card["cost"]["macs"] <= 0.86 * before["cost"]["macs"]
    assert [row["macs"] for row in card["compression"]["files"]] == [before["cost"]["macs"], card["cost"]["macs"]]
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], stage["ap"]) == ("prune", pytest.approx(card["metrics"]["ap"], abs=1e-3))
    status, text, err = cli("evaluate", out, "--json")
    assert (status, json.loads(text)["ap"]) == (0, card["metrics"]["ap"]), err
    # What other trainings start from.
    table = as_trained(SHORT, out, ALPHA, head("anchor-free"))
    assert dict(table.channels) == card["channels"]
    again = built(table, head("anchor-free"), (SIZE, SIZE, 3), len(CLASSES), ALPHA)
    start_from(again, out, data.classes, table, ALPHA)
    images = pixels(SIZE, 4)
    np.testing.assert_allclose(again.predict_on_batch(images), load_model(out).predict_on_batch(images), atol=1e-6)
    write_card(out, card | {"channels": {"level99_tower0": 8}})
    with pytest.raises(UserError, match="damaged, channels: 'level99_tower0' is no convolution"):
        as_trained(SHORT, out, ALPHA, head("anchor-free"))


@pytest.mark.long
def test_a_step_shows_as_many_images_as_detectors_are_trained_with(trained, tmp_path, monkeypatch):
    asked = []

    def prepare(out, config, *_):
        asked.append(config["settings"]["batch_size"])
        raise UserError("enough")

    monkeypatch.setattr("mobilenets.compress.prepare", prepare)
    for settings in (None, Settings(batch_size=4)):
        with pytest.raises(UserError, match="enough"):
            compress(trained, tmp_path / "out", settings=settings)
    assert asked == [8, 4]


def test_what_pruning_left_of_a_head_means_nothing_to_another(tmp_path):
    left = {"block3_pointwise": 8, "lateral0": 16, "smooth1": 16}
    card = cards.begin(
        replace(SHORT, channels=tuple(left.items())), ALPHA, SIZE, list(CLASSES), "", head=head("anchor_free")
    )

    def channels(wanted) -> dict[str, int]:
        return dict(cards.as_trained(SHORT, card, tmp_path, ALPHA, wanted).channels)

    assert channels(head("anchor_free")) == left
    assert channels(head("ssdlite")) == channels(None) == {"block3_pointwise": 8}


def test_what_detectors_do_not_take_is_told_before_anything_is_written(trained, cli, tmp_path):
    out = tmp_path / "small"
    for words, told in [
        (("--teacher", trained), "--teacher is for classifiers"),
        (("--sensitivity",), "compress --sensitivity takes no detectors"),
        (("--keep-float", "block99"), "--keep-float block99"),
        (("--to", "savedmodel"), "computes in float32"),
        (("--hint", 1), "--hint is about what a teacher says"),
    ]:
        one_line(cli("compress", trained, "--out", out, *words), told)
        assert not out.exists(), words
