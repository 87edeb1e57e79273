"""Mending what integers break without training, and telling where they break it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from exported import shortened

pytest.importorskip("keras")

from mobilenets.architectures import network
from mobilenets.architectures.blocks import MultiQueryAttention
from mobilenets.compress import Options, compress
from mobilenets.compression.bias import correct_bias
from mobilenets.compression.equalize import FARTHEST, HEADROOM, equalize, pairs
from mobilenets.compression.qat import simulated
from mobilenets.compression.quantization import read_quantization
from mobilenets.compression.ranges import ESTIMATORS, Seen, ranges_of
from mobilenets.compression.repair import LabelledImages, repair
from mobilenets.compression.scheme import INTEGER, integer_form
from mobilenets.compression.sensitivity import draw, sensitivity
from mobilenets.data import load as load_data
from mobilenets.deployment.calibrate import calibrate, calibration_images, observe
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.models import keras
from mobilenets.models.builder import classifier, logits_model
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model
from mobilenets.training.settings import Settings
from test_deployment_files import TORCH, build, pixels, shaken
from test_training import TINY, striped_data


def form(model):
    return integer_form(graph_of(model))


def logits(model, images) -> np.ndarray:
    if "probabilities" in [layer.name for layer in model.layers]:
        model = keras.Model(model.input, model.get_layer("logits").output)
    return np.asarray(model.predict_on_batch(images))


def largest(seen: Seen) -> np.ndarray:
    return np.maximum(-seen.least, seen.most)


def same(before, after) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


# -- ranges ---------------------------------------------------------------------------------------------------------


def test_every_output_is_seen_channel_by_channel():
    model, images = build("v3_small", alpha=0.25), pixels(count=8)
    graph = form(model)
    seen = observe(graph, list(images))
    again = observe(graph, list(images))
    assert list(seen) == [op.name for op in graph.ops]
    for name, each in seen.items():
        np.testing.assert_array_equal(each.sample, again[name].sample)
        assert each.least.shape == each.most.shape == each.square.shape == graph.shape(name)[-1:]
        assert each.least.min() <= each.sample.min() <= each.sample.max() <= each.most.max()
        assert len(each.sample) >= 8 * min(512, np.prod(graph.shape(name)))
    found = logits(logits_model(model), images)
    # An `integer_form` pads with half a pixel value.
    np.testing.assert_allclose(seen["logits"].most, found.max(axis=0), atol=5e-3)
    np.testing.assert_allclose(seen["logits"].square, (found**2).mean(axis=0), atol=2e-2)
    assert calibrate(graph, list(images)) == ranges_of(seen)
    assert ranges_of(seen)["logits"] == pytest.approx((found.min(), found.max()), abs=5e-3)


def test_estimators_cut_off_what_is_rare_and_nothing_else():
    rng = np.random.default_rng(0)
    even = rng.uniform(-1, 3, 50_000).astype(np.float32)
    rare = np.concatenate([rng.normal(0, 1, 49_990), np.linspace(40, 60, 10)]).astype(np.float32)

    def seen(values: np.ndarray) -> Seen:
        return Seen(values.min(keepdims=True), values.max(keepdims=True), np.square(values).mean(keepdims=True), values)

    def cost(values: np.ndarray, limits: tuple[float, float]) -> float:
        step = (limits[1] - limits[0]) / 255
        zero = round(-limits[0] / step)
        return np.square((np.clip(np.round(values / step), -zero, 255 - zero) * step) - values).mean()

    found = {name: ranges_of({"even": seen(even), "rare": seen(rare)}, name) for name in ESTIMATORS}
    assert found["extremes"]["rare"] == (rare.min(), 60)
    for limits in found.values():
        np.testing.assert_allclose(limits["even"], (-1, 3), atol=0.01)
    low, high = found["percentile"]["rare"]
    assert (rare < low).mean() <= 1e-4
    assert 0 < (rare > high).mean() <= 1e-4


# -- equalization ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "conventions"),
    [
        pytest.param("v1", None, marks=pytest.mark.backend),
        ("v2", TORCH),
        ("v3_small", None),
        ("vgg16", None),
    ],
)
def test_equalization_evens_channels_out_and_changes_no_output(name, conventions):
    model, images = build(name, alpha=0.25, conventions=conventions), pixels(count=8)
    exact = logits(logits_model(model), images)
    before = observe(form(model), list(images))
    changed = equalize(model, before)
    np.testing.assert_allclose(logits(logits_model(model), images), exact, atol=2e-5 * np.abs(exact).max())
    after = observe(form(model), list(images))
    assert changed
    for op, reader in pairs(form(model)):
        was, now = largest(before[op.name]), largest(after[op.name])
        if op.activation == "relu6":
            np.testing.assert_allclose(now[was > 6 * HEADROOM], was[was > 6 * HEADROOM], rtol=1e-4)
            assert now[was <= 6 * HEADROOM].max(initial=0) <= 6 * HEADROOM * 1.001
        if reader.kind == "depthwise":
            goal = was.max() if op.activation != "relu6" else min(was.max(), 6 * HEADROOM)
            possible = (was > 0) & (was < goal) & (goal / np.maximum(was, 1e-9) <= FARTHEST)
            np.testing.assert_allclose(now[possible], goal, rtol=1e-3)


def test_only_what_lets_factors_through_and_has_one_reader_is_equalized():
    found = {op.name: reader.name for op, reader in pairs(form(build("v3_small", alpha=0.25)))}
    # ReLU in the first blocks; hard swish, shortcuts and squeeze-and-excite in all the others.
    assert found["block2_expand"] == "block2_depthwise"
    assert "block1_depthwise" not in found  # weighed by what the image holds
    assert "block5_expand" not in found  # hard swish
    assert "block2_project" not in found  # read by a shortcut as well
    v1 = build("v1", alpha=0.25)
    found = {op.name: reader.name for op, reader in pairs(form(v1), ["block1_pointwise"])}
    assert found["block13_pointwise"] == "logits"  # through the mean
    assert "block1_pointwise" not in found


# -- bias correction ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [pytest.param("v1", marks=pytest.mark.backend), "v4_hybrid_medium", "vgg16"])
def test_corrected_outputs_have_the_mean_that_they_have_in_float(name):
    table = network(name)
    if name == "v4_hybrid_medium":  # one block with attention and one with factors behind it are enough
        first = next(at for at, block in enumerate(table.blocks) if isinstance(block, MultiQueryAttention))
        table = replace(table, blocks=(*table.blocks[:2], *table.blocks[first : first + 2]))
    keras.utils.set_random_seed(0)
    model, images = shaken(classifier(table, (32, 32, 3), 10, 0.25)), pixels(32, 16)
    exact = logits(logits_model(model), images).mean(axis=0)
    ranges = calibrate(form(model), list(images))
    plain = logits(simulated(model, ranges, weight_bits=4), images).mean(axis=0)
    changed = correct_bias(model, list(images), ranges, weight_bits=4)
    mended = logits(simulated(model, ranges, weight_bits=4), images).mean(axis=0)
    assert np.abs(mended - exact).max() < 0.2 * np.abs(plain - exact).max()
    assert "logits" in changed
    assert not any(name.endswith(("query", "key", "value")) for name in changed)  # they have no bias


# -- the choice -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return striped_data()


@pytest.fixture(scope="module")
def trained(data):
    """A network that tells stripes apart."""
    keras.utils.set_random_seed(0)
    model = classifier(TINY, (16, 16, 3), 3, 0.25)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    model.fit(data.train.images, data.train.labels, batch_size=16, epochs=12, verbose=0)
    return model


def spread(model, factor: float) -> keras.Model:
    """The same function, whose channels before depthwise convolutions are unequal by as much as ``factor``."""
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for op, reader in pairs(form(twin)):
        if reader.kind == "depthwise":
            norm, layer = twin.get_layer(f"{op.name}_bn"), twin.get_layer(reader.name)
            factors = np.geomspace(1 / factor, 1, norm.gamma.shape[0]).astype(np.float32)
            norm.gamma.assign(np.asarray(keras.ops.convert_to_numpy(norm.gamma)) * factors)
            norm.beta.assign(np.asarray(keras.ops.convert_to_numpy(norm.beta)) * factors)
            layer.kernel.assign(np.asarray(keras.ops.convert_to_numpy(layer.kernel)) / factors[:, None])
    return twin


@pytest.mark.backend
def test_unequal_channels_are_mended_and_the_file_computes_it(data, trained, tmp_path):
    model = spread(trained, 200)
    images = data.train.images
    batches = [(images[at : at + 32], data.train.labels[at : at + 32]) for at in range(0, 96, 32)]
    exact = logits(logits_model(model), images)
    quantization, rows = repair(model, list(images[:48]), LabelledImages(batches), observe)
    plain, (chosen,) = rows[0], [row for row in rows if row["chosen"]]
    assert (plain["estimator"], plain["equalized"], plain["corrected"]) == ("extremes", False, False)
    assert chosen["equalized"]
    assert chosen["accuracy"] >= plain["accuracy"]
    assert chosen["error"] < 0.2 * plain["error"]
    assert json.loads(json.dumps(rows)) == rows
    # Model and ranges are those of the row.
    found = logits(simulated(model, quantization.ranges), images)
    assert np.square(found - exact).mean() == pytest.approx(chosen["error"], rel=0.01)
    assert quantization.metrics == {"accuracy": (found.argmax(axis=1) == data.train.labels).mean(), "images": 96}
    entry = json.loads(json.dumps(quantization.asdict()))
    assert read_quantization({"quantization": entry}, tmp_path) == quantization
    path = Writer(model, [], quantization).write(Variant("litert", "int8"), tmp_path)
    written, expected = load(path)(images), np.asarray(simulated(model, quantization.ranges).predict_on_batch(images))
    assert np.median(np.abs(written - expected)) < 1e-3


def test_a_model_that_nothing_helps_stays_as_it_is(data, trained):
    """Without integers nothing can be better than plain calibration."""
    before = trained.get_weights()
    batches = [(data.train.images[:32], data.train.labels[:32])]
    quantization, rows = repair(trained, list(data.train.images[:16]), LabelledImages(batches), observe, floats=INTEGER)
    assert rows[0]["chosen"]
    assert same(before, trained.get_weights())
    assert quantization.ranges == calibrate(form(trained), list(data.train.images[:16]))
    assert quantization.floats == tuple(sorted(INTEGER))


def test_training_may_ask_for_the_ranges_alone(data, trained):
    model, images = spread(trained, 50), list(data.train.images[:32])
    before, seen = model.get_weights(), observe(form(model), images)
    batches = [(data.train.images[:64], data.train.labels[:64])]
    lines: list[str] = []
    quantization, rows = repair(model, images, LabelledImages(batches), observe, mend=False, say=lines.append)
    assert "on 64 images" in lines[0]
    assert lines[1:-1] == [f"  accuracy {row['accuracy']:7.2%}  {row['estimator']}" for row in rows]
    assert [row["estimator"] for row in rows] == list(ESTIMATORS)
    assert not any(row["equalized"] or row["corrected"] for row in rows)
    assert same(before, model.get_weights())
    (chosen,) = [row for row in rows if row["chosen"]]
    assert lines[-1] == f"taken: {chosen['estimator']}"
    assert quantization.ranges == ranges_of(seen, chosen["estimator"])


@pytest.mark.long
def test_training_for_integers_begins_with_the_best_ranges(place, tmp_path, monkeypatch):
    """Steps of eight times the width are worse, and at this rate training leaves them where they were."""
    model = shortened(place, tmp_path, monkeypatch)
    usual = ESTIMATORS["extremes"]
    monkeypatch.setitem(ESTIMATORS, "extremes", lambda seen: tuple(8 * limit for limit in usual(seen)))
    for name in ("percentile", "least squares"):
        monkeypatch.setitem(ESTIMATORS, name, usual)
    settings = Settings(epochs=1, batch_size=128, warmup_epochs=0.1, learning_rate=1e-9)
    card = compress(model, tmp_path / "out", Options(max_drop=100), settings, quiet=True)
    (stage,) = card["compression"]["stages"]
    assert [row["chosen"] for row in stage["trials"]] == [False, True, False]
    images = calibration_images(card, load_data("digits"), 32)
    for name, seen in observe(form(load_model(model)), images).items():
        if name in card["quantization"]["ranges"]:
            low, high = card["quantization"]["ranges"][name]
            assert high - low <= 1.1 * max(np.ptp([*usual(seen), 0]), 1e-6), name
    assert "logits" in card["quantization"]["ranges"]


# -- sensitivity ----------------------------------------------------------------------------------------------------


@pytest.mark.backend
def test_each_operation_is_measured_alone_in_integers(data, trained):
    images, labels = data.val.images, data.val.labels
    ranges = calibrate(form(trained), list(data.train.images[:32]))
    spoiled = ranges | {"block2_depthwise": (0.0, ranges["block2_depthwise"][1] / 6)}
    rows = sensitivity(trained, [(images[:32], labels[:32]), (images[32:], labels[32:])], spoiled)
    names = [op.name for op in form(trained).ops if op.kind in INTEGER]
    assert sorted(row["name"] for row in rows) == sorted(names)
    # Its reader rounds to the same narrow range.
    assert {row["name"] for row in rows[:2]} == {"block2_depthwise", "block2_pointwise"}
    assert [row["error"] for row in rows] == sorted((row["error"] for row in rows), reverse=True)
    exact = logits(simulated(trained, spoiled, INTEGER), images)
    for row in (rows[0], rows[-1]):
        alone = logits(simulated(trained, spoiled, [name for name in names if name != row["name"]]), images)
        assert row["error"] == pytest.approx(np.square(alone - exact).mean(), rel=0.1)
        assert row["sqnr"] == pytest.approx(10 * np.log10(np.square(exact).mean() / row["error"]), abs=0.01)
        right = (alone.argmax(axis=1) == labels).mean() - (exact.argmax(axis=1) == labels).mean()
        assert row["change"] == pytest.approx(right, abs=0.021)  # one image that lies between two classes
    assert json.loads(json.dumps(rows)) == rows
    with pytest.raises(ValueError, match="needs images"):
        sensitivity(trained, [], ranges)


def test_sensitivity_is_drawn(tmp_path):
    row = {"name": "stem", "kind": "conv", "accuracy": 0.9, "change": -0.02, "error": 0.1, "sqnr": 12.0}
    quiet = row | {"name": "logits", "change": 0.0, "sqnr": 40.0}
    same_again = row | {"name": "mean", "change": 0.0, "error": 0.0, "sqnr": None}
    path = draw([row, quiet, same_again], tmp_path / "sensitivity.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert draw([same_again], path) is None
    assert not path.exists()
