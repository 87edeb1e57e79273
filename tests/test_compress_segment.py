"""Compressing segmenters: what is simulated is what the files say, and what is pruned is an ordinary segmenter."""

import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("keras")

from exported import card_of, one_line, quick_compression, write_card
from mobilenets import card as cards
from mobilenets.architectures import (
    NETWORKS,
    SEGMENTATION_HEADS,
    V1,
    V2,
    V3_SMALL,
    Network,
    channel_groups,
    cost,
    layers_of,
    network,
    segmentation_head,
)
from mobilenets.compression.bias import correct_bias
from mobilenets.compression.equalize import equalize
from mobilenets.compression.importance import importance
from mobilenets.compression.pruning import Pruner, choose, floors, remove_channels
from mobilenets.compression.qat import simulated, train_quantized
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.repair import labelled, repair
from mobilenets.compression.scheme import INTEGER, integer_form
from mobilenets.compression.sensitivity import sensitivity
from mobilenets.data.mask_folder import load_masks
from mobilenets.data.mask_loader import MaskBatches, MaskEvaluationBatches
from mobilenets.deployment.calibrate import calibrate, observe
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model
from mobilenets.models.segmenter import scores_model, segmenter
from mobilenets.models.statistics import recalibrate
from mobilenets.models.tasks import built
from mobilenets.models.weights import as_trained, start_from
from mobilenets.training import checkpoint
from mobilenets.training.dense import train_dense
from mobilenets.training.fit_masks import fit_segmenter
from mobilenets.training.kinds import Segmenters
from mobilenets.training.mask_losses import loss_of
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings
from once import once
from test_pruning import random_scores, silence
from test_segment import CLASSES, folder
from test_segmentation_networks import shaken

# The first rows of a table, down to a sixteenth of the image: half of the layers take half of the time.
SHORT = replace(V1, blocks=V1.blocks[:7])
SHORT_V2 = replace(V2, blocks=V2.blocks[:8])
SHORT_V3 = replace(V3_SMALL, blocks=V3_SMALL.blocks[:6])
SIZE, ALPHA = 64, 0.25
SETTINGS = Settings(epochs=15, batch_size=8, learning_rate=0.1, dice=0.25, class_weights=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_compression(monkeypatch)
    monkeypatch.setitem(NETWORKS, "v1", SHORT)


@pytest.fixture(scope="module")
def trained(place):
    """A segmenter that has learned a little, with its data beside it."""

    def make(directory):
        data = load_masks(folder(directory / "shapes", 32, 8))
        train_dense(data, directory / "run", SHORT, segmentation_head("lraspp"), ALPHA, SIZE, SETTINGS, quiet=True)

    return once(place / "short_segmenter", make) / "run"


@pytest.fixture(scope="module")
def data(trained):
    return load_masks(trained.parent / "shapes")


def pixels(count: int) -> np.ndarray:
    """Coloured squares with noise, as the pictures of one place differ from another's."""
    rng = np.random.default_rng(5)
    squares = rng.integers(0, 200, (count, 4, 4, 3)).repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)
    return (squares + rng.integers(0, 56, squares.shape)).astype(np.uint8)


def made(table: Network, head: str, stride: int = 16, fast: bool = False) -> keras.Model:
    """A segmenter whose random weights say much, with the statistics that go with them."""
    model = shaken(segmenter(table, segmentation_head(head, stride, fast), (SIZE, SIZE, 3), 4, ALPHA))
    recalibrate(model, [pixels(8).astype(np.float32)])
    return model


def written(table: Network, head: str) -> list:
    return layers_of(table, SEGMENTATION_HEADS[head], (SIZE, SIZE, 3), 4, ALPHA)


def ranges_of(model, images) -> dict[str, tuple[float, float]]:
    return calibrate(integer_form(graph_of(model)), list(images))


def silent(epochs: int, steps: int) -> Reporter:
    return Reporter(epochs, steps, True)


def iou(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean over the classes that are there or were found, of all images together."""
    classes = [each for each in range(len(CLASSES)) if (truth == each).any() or (found == each).any()]
    both = [((truth == each) & (found == each)).sum() / ((truth == each) | (found == each)).sum() for each in classes]
    return float(np.mean(both))


# -- the simulation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "head", "stride", "fast"),
    [
        pytest.param(SHORT, "lraspp", 16, False, marks=pytest.mark.backend),
        pytest.param(SHORT, "deeplabv3_plus", 16, True, marks=pytest.mark.backend),
        (SHORT_V3, "lraspp_wide", 8, True),
        pytest.param(SHORT_V2, "deeplabv3", 16, False, marks=pytest.mark.long),
        *(
            pytest.param(network(name), head, 16, False, marks=pytest.mark.long, id=f"{name}-{head}")
            for name in ("v1", "v2", "v3_small")
            for head in SEGMENTATION_HEADS
        ),
    ],
)
def test_the_simulation_says_what_the_files_say(table, head, stride, fast, tmp_path):
    """Maps weighed and added up, resized in integers, the softmax of real numbers."""
    model, images = made(table, head, stride, fast), pixels(8)
    exact = np.asarray(model.predict_on_batch(images))
    assert exact.std() > 0.1
    for target, bits in (("litert", 8), ("onnx", 7)):
        network = simulated(model, ranges_of(model, images[:4]), weight_bits=bits)
        found = np.asarray(network.predict_on_batch(images))
        assert found.shape == exact.shape
        # Written with the ranges that the layer tells, as after training.
        writer = Writer(model, [], Quantization("qat", network.get_layer("logits").ranges()))
        if all(pytest.importorskip(package) for package in TARGETS[target].packages):
            path = writer.write(Variant(target, "int8", batch=TARGETS[target].batch), tmp_path)
            said = load(path, TARGETS[target].runtime, 1)(images)
            cost_of_integers, off = np.sqrt(((said - exact) ** 2).mean()), np.abs(said - found)
            assert cost_of_integers > 1e-2, target
            # ONNX Runtime rounds halves of resized maps to the even number, LiteRT up, as is simulated.
            assert np.median(off) < (0.001 if target == "litert" else 0.1) * cost_of_integers, target
            if target == "litert":
                # Hard swish is computed in float32, whose last digit differs by processor, and a few sums with it.
                assert (off < 1e-5).mean() > 0.85


# -- calibration ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("head", ["lraspp", "deeplabv3_plus"])
def test_segmenters_are_equalized_and_corrected(head):
    model, images = made(SHORT, head), pixels(8)
    exact = np.asarray(model.predict_on_batch(images))
    assert equalize(model, observe(integer_form(graph_of(model)), list(images)))
    np.testing.assert_allclose(model.predict_on_batch(images), exact, atol=1e-3)
    ranges = ranges_of(model, images)
    mean = np.asarray(scores_model(model).predict_on_batch(images)).mean(axis=(0, 1, 2))

    def shift() -> np.ndarray:
        network = scores_model(simulated(model, ranges, weight_bits=4))
        return np.abs(np.asarray(network.predict_on_batch(images)).mean(axis=(0, 1, 2)) - mean)

    before = shift()
    changed = correct_bias(model, list(images), ranges, weight_bits=4)
    assert set(changed) >= ({"fine", "coarse"} if head == "lraspp" else {"logits", "aspp_project_image"})
    assert shift().max() < 0.3 * before.max()


@pytest.mark.backend
def test_ways_to_calibrate_are_told_apart_by_the_masks(data, trained):
    model, split = load_model(trained), data.train
    judge = labelled(data, SIZE, 1.0)
    score, said = judge(model)
    images, masks = next(iter(MaskEvaluationBatches(split, SIZE, len(split))))
    outputs = np.asarray(model.predict_on_batch(images))
    assert (judge.score, len(said)) == ("miou", len(split))
    assert score == pytest.approx(iou(masks, outputs.argmax(axis=-1)), abs=1e-6)
    assert said.shape == (len(split), 256, len(CLASSES))
    np.testing.assert_allclose(said[:, 0], outputs[:, 0, 0], atol=1e-5)
    np.testing.assert_allclose(said[:, -1], outputs[:, -1, -1], atol=1e-5)


@pytest.mark.long
def test_what_integers_broke_is_repaired(data, trained):
    """Channels of very different ranges, which have one step: the narrow ones have hardly any left."""
    model = load_model(trained)
    norm = model.get_layer("block2_depthwise_bn")
    factors = np.geomspace(1e-2, 1, norm.gamma.shape[0]).astype(np.float32)
    for variable in (norm.gamma, norm.beta):
        variable.assign(keras.ops.convert_to_numpy(variable) * factors)
    kernel = model.get_layer("block2_pointwise").kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) / factors[:, None])
    images = next(iter(MaskEvaluationBatches(data.train, SIZE, 16)))[0]
    judge = labelled(data, SIZE, 1.0)
    exact, _ = judge(model)
    quantization, rows = repair(model, list(images), judge, observe)
    (chosen,) = [row for row in rows if row["chosen"]]
    # More than the model in float32 has is luck.
    assert chosen["miou"] >= min(exact, max(row["miou"] for row in rows)) - 0.005
    assert chosen["error"] < 0.8 * rows[0]["error"]
    assert quantization.metrics == {"miou": chosen["miou"], "images": len(data.train)}


def test_each_operation_is_measured_alone_in_integers(data, trained):
    model, batches = load_model(trained), MaskEvaluationBatches(data.val, SIZE, 4)
    ranges = ranges_of(model, [image for images, _ in batches for image in images])
    spoiled = ranges | {"block2_depthwise": (0.0, ranges["block2_depthwise"][1] / 8)}
    rows = sensitivity(model, batches, spoiled)
    names = [op.name for op in integer_form(graph_of(model)).ops if op.kind in INTEGER]
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert {row["name"] for row in rows[:2]} == {"block2_depthwise", "block2_pointwise"}
    images, masks = next(iter(MaskEvaluationBatches(data.val, SIZE, len(data.val))))
    truth, worst = np.asarray(scores_model(model).predict_on_batch(images)), rows[0]["name"]
    alone = scores_model(simulated(model, spoiled, [name for name in names if name != worst]))
    found = np.asarray(alone.predict_on_batch(images))
    assert rows[0]["error"] == pytest.approx(np.square(found - truth).mean(), rel=0.1)
    assert rows[0]["miou"] == pytest.approx(iou(masks, found.argmax(axis=-1)), abs=0.01)
    change = rows[0]["miou"] - iou(masks, truth.argmax(axis=-1))
    assert rows[0]["change"] == pytest.approx(change, abs=1e-3)
    assert change < -0.01


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_training_for_integers_mends_what_they_broke(data, trained, tmp_path):
    """Ranges a sixth as wide as they should be; the weights and the ranges find a way."""
    model = load_model(trained)
    images, masks = next(MaskBatches(data.train, SIZE, 32).epoch(0))
    limits = {name: (low / 6, high / 6) for name, (low, high) in ranges_of(model, images).items()}

    def loss(network) -> float:
        scores = scores_model(network)(images.astype(np.float32))
        told = loss_of(len(CLASSES))(keras.ops.convert_to_tensor(masks), scores)
        return float(keras.ops.convert_to_numpy(told).mean())

    broken = loss(simulated(model, limits))
    settings = Settings(epochs=6, batch_size=8, learning_rate=0.01, warmup_epochs=0)
    result, quantization, network = train_quantized(
        model, data, settings, tmp_path, checkpoint.State({}), limits, fit=fit_segmenter, reporter=silent
    )
    assert {"val_miou", "val_pixel_accuracy"} <= set(result.state.history[-1])
    assert loss(network) < 0.8 * broken
    assert quantization.ranges["stem"][1] > 1.2 * limits["stem"][1]
    # A map that is resized keeps the steps of what it was, trained or not.
    assert quantization.ranges["output_resize"] == quantization.ranges["logits"]
    # What the card will say is what was trained.
    np.testing.assert_allclose(
        simulated(model, quantization.ranges).predict_on_batch(images[:8]),
        network.predict_on_batch(images[:8]),
        atol=1e-5,
    )


# -- pruning --------------------------------------------------------------------------------------------------------


def of_every_network() -> list:
    """A short one with two heads, and whole ones, which are slow to build, with every head."""
    heads = ("lraspp", "deeplabv3_plus")
    short = [pytest.param(SHORT, head, id=f"short-{head}", marks=pytest.mark.backend) for head in heads]
    whole = [
        pytest.param(network(name), head, id=f"{name}-{head}", marks=pytest.mark.long)
        for name in ("v1", "v2", "v3_small", "v4_conv_small")
        for head in SEGMENTATION_HEADS
    ]
    return short + whole


@pytest.mark.parametrize(("table", "head"), of_every_network())
def test_removing_channels_that_carry_nothing_changes_nothing(table, head):
    """Every third channel, of the network and of the head, but for what tells classes."""
    model, images, layers = made(table, head), pixels(4), written(table, head)
    channels = channel_groups(layers)
    kept = {
        index: np.flatnonzero(np.arange(group.size) % 3) for index, group in enumerate(channels.groups) if group.movable
    }
    silence(model, layers, kept)
    smaller, left = remove_channels(model, table, ALPHA, kept, SEGMENTATION_HEADS[head])
    assert smaller.count_params() < 0.65 * model.count_params()
    assert any(layer.startswith(("context", "aspp")) for layer, _ in left.channels)
    expected = np.asarray(model.predict_on_batch(images))
    assert expected.std(axis=(0, 1, 2)).max() > 0.03
    np.testing.assert_allclose(smaller.predict_on_batch(images), expected, atol=1e-4)


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
@pytest.mark.parametrize("name", ["v1", "v2", "v3_small", "v3_large", "v4_conv_small"])
def test_the_smaller_segmenter_is_as_large_as_asked_and_its_table_says(name, head):
    table = network(name)
    layers = written(table, head)
    channels, whole = channel_groups(layers), cost(layers).macs
    kept = choose(layers, channels, random_scores(channels), 0.6 * whole, floors(channels))
    counts = {name: len(indices) for index, indices in kept.items() for name in channels.groups[index].makers}
    left = written(replace(table, channels=tuple(sorted(counts.items()))), head)
    assert 0.5 * whole < cost(left).macs <= 0.6 * whole
    found = {layer.name: layer for layer in left}
    assert found["logits"].output_shape == layers[-1].output_shape
    for layer in left:  # whatever is added or weighed has as many channels on both sides
        if layer.kind in ("add", "multiply"):
            assert len({found[each].output_shape[2] for each in layer.inputs}) == 1, layer.name


@pytest.mark.parametrize(("table", "head"), [(SHORT, "deeplabv3_plus"), (SHORT_V3, "lraspp")])
def test_a_pruned_model_is_the_one_that_its_table_builds(table, head):
    form, model, images = SEGMENTATION_HEADS[head], made(table, head), pixels(4)

    def scores(model, channels) -> dict[int, np.ndarray]:
        return importance(model, channels, "bn")

    settled = []
    pruner = Pruner(model, table, ALPHA, scores, settled.append, form)
    smaller, left = pruner.at(0.86 * pruner.macs)
    assert settled[-1] is smaller
    layers = layers_of(left, form, (SIZE, SIZE, 3), 4, ALPHA)
    assert cost(layers).macs <= 0.86 * pruner.macs
    assert sum(int(np.prod(variable.shape)) for variable in smaller.trainable_variables) == cost(layers).params
    again = built(left, form, (SIZE, SIZE, 3), 4, ALPHA)
    again.set_weights(smaller.get_weights())
    np.testing.assert_array_equal(again.predict_on_batch(images), smaller.predict_on_batch(images))


@pytest.mark.backend
@pytest.mark.parametrize("head", ["lraspp", "deeplabv3_plus"])
def test_taylor_asks_the_loss_of_the_segmenter(head, data):
    form = segmentation_head(head)
    layers = layers_of(SHORT, form, (SIZE, SIZE, 3), len(CLASSES), ALPHA)
    model, channels = shaken(segmenter(SHORT, form, (SIZE, SIZE, 3), len(CLASSES), ALPHA)), channel_groups(layers)
    before = model.get_weights()
    found = importance(model, channels, "taylor", Segmenters(data, form).looked_at(SIZE))
    assert set(found) == {index for index, group in enumerate(channels.groups) if group.movable}
    assert all(np.isfinite(each).all() and each.max() > 0 for each in found.values())
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))


def test_taylor_does_not_ask_about_pixels_that_are_ignored(data):
    """Where nobody says what a pixel shows, no channel matters."""
    form = segmentation_head("lraspp")
    layers = layers_of(SHORT, form, (SIZE, SIZE, 3), len(CLASSES), ALPHA)
    model = segmenter(SHORT, form, (SIZE, SIZE, 3), len(CLASSES), ALPHA)
    images = pixels(4)
    found = importance(model, channel_groups(layers), "taylor", [(images, np.full(images.shape[:3], 255, np.uint8))])
    assert max(each.max() for each in found.values()) == 0


# -- the verb -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_compress_writes_a_segmenter_trained_for_int8(trained, cli, tmp_path):
    before, out = (trained / "card.json").read_bytes(), tmp_path / "small"
    status, text, err = cli("compress", trained, "--out", out, "--epochs", 3, "--max-drop", 5, "--json")
    assert status == 0, err
    card = json.loads(text)
    assert card == card_of(out)
    assert (trained / "card.json").read_bytes() == before
    assert (card["task"], card["head"], card["quantization"]["method"]) == ("segment", "lraspp", "qat")
    assert (card["output_stride"], card["fast"]) == (16, False)
    for unused in ("label_smoothing", "mosaic", "teacher"):  # of other models
        assert unused not in card["training"]
    # What it was trained to be good at it still is to be good at.
    assert [card["training"][name] for name in ("dice", "class_weights", "clip_norm")] == [0.25, True, 10.0]
    assert card["training"]["batch_size"] == 8
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], stage["epochs"]) == ("qat", 3)
    float32, calibrated, after = card["compression"]["files"]
    assert [(row["when"], row["precision"]) for row in (float32, calibrated, after)] == [
        ("before", "float32"),
        ("before", "int8"),
        ("after", "int8"),
    ]
    assert after["miou"] >= calibrated["miou"] - 0.02
    assert abs(card["quantization"]["metrics"]["miou"] - after["miou"]) < 0.002  # simulated, and of the file
    assert abs(stage["miou"] - after["miou"]) < 0.002
    page = (out / "report.html").read_text()
    assert "Before and after" in page
    assert "Simulated in Keras" in page
    (entry,) = card["artifacts"]
    status, text, err = cli("evaluate", out / entry["file"], "--json")
    assert (status, json.loads(text)["miou"]) == (0, entry["metrics"]["miou"]), err
    # Exported again, the file is the same: its ranges are the trained ones.
    status, text, err = cli("export", out, "--precision", "int8", "--max-drop", 5, "--json")
    assert status == 0, err
    (again,) = json.loads(text)["artifacts"]
    assert again["files"] == entry["files"]


@pytest.mark.long
def test_compress_calibrates_a_segmenter(trained, cli, tmp_path):
    out = tmp_path / "small"
    status, text, err = cli("compress", trained, "--out", out, "--int8", "ptq", "--max-drop", 5)
    assert status == 0, err
    assert "mIoU" in text
    assert re.search(r"mIoU +[0-9.]+%  \w[\w ]*, equalized, biases corrected\n", err), err
    card = card_of(out)
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], len(stage["trials"])) == ("ptq", 8)
    assert {"miou", "error", "chosen"} <= set(stage["trials"][0])
    assert card["compression"]["files"][-1]["miou"] == card["artifacts"][0]["metrics"]["miou"]
    assert card["training"] == card_of(trained)["training"]


@pytest.mark.long
def test_a_pruned_segmenter_is_an_ordinary_one(trained, data, cli, tmp_path):
    out, before = tmp_path / "small", card_of(trained)
    status, text, err = cli("compress", trained, "--out", out, "--prune", 0.7, "--prune-steps", 1, "--prune-epochs", 2,
                            "--int8", "none", "--max-drop", 100)  # fmt: skip
    assert status == 0, err
    assert "mIoU" in text
    card = card_of(out)
    assert card["cost"]["macs"] <= 0.7 * before["cost"]["macs"]
    assert [row["macs"] for row in card["compression"]["files"]] == [before["cost"]["macs"], card["cost"]["macs"]]
    (stage,) = card["compression"]["stages"]
    assert (stage["stage"], stage["miou"]) == ("prune", pytest.approx(card["metrics"]["miou"], abs=1e-3))
    status, text, err = cli("evaluate", out, "--json")
    assert (status, json.loads(text)["miou"]) == (0, card["metrics"]["miou"]), err
    status, text, err = cli("export", out, "--precision", "int8", "--max-drop", 10)
    assert status == 0, err
    status, text, err = cli("benchmark", out, "--rounds", 1, "--seconds", 0.05, "--json")
    assert (status, len(json.loads(text)["rows"])) == (0, 3), err
    cv2.imwrite(str(tmp_path / "image.png"), pixels(1)[0])
    status, text, err = cli("predict", out, tmp_path / "image.png", "--json")
    assert status == 0, err
    assert sum(each["pixels"] for each in json.loads(text)["images"][0]["classes"]) == SIZE**2
    # What other trainings start from.
    form = segmentation_head("lraspp")
    table = as_trained(SHORT, out, ALPHA, form)
    assert dict(table.channels) == card["channels"]
    again = built(table, form, (SIZE, SIZE, 3), len(CLASSES), ALPHA)
    start_from(again, out, data.classes, table, ALPHA)
    images = pixels(4)
    np.testing.assert_allclose(again.predict_on_batch(images), load_model(out).predict_on_batch(images), atol=1e-6)
    write_card(out, card | {"channels": {"aspp0": 8}})
    with pytest.raises(UserError, match="damaged, channels: 'aspp0' is no convolution"):
        as_trained(SHORT, out, ALPHA, form)


def test_what_pruning_left_of_a_head_means_nothing_to_another(tmp_path):
    left = {"block3_pointwise": 8, "context": 16, "context_gate": 16}
    table = replace(SHORT, channels=tuple(left.items()))
    card = cards.begin(table, ALPHA, SIZE, list(CLASSES), "", head=segmentation_head("lraspp", 8))

    def channels(wanted) -> dict[str, int]:
        return dict(cards.as_trained(SHORT, card, tmp_path, ALPHA, wanted).channels)

    assert channels(segmentation_head("lraspp")) == left  # weights fit every output stride
    assert channels(segmentation_head("deeplabv3_plus")) == channels(None) == {"block3_pointwise": 8}


@pytest.mark.long
def test_a_table_tells_which_layers_integers_hurt(trained, cli, tmp_path):
    out = tmp_path / "found"
    status, text, err = cli("compress", trained, "--sensitivity", "--out", out)
    assert status == 0, err
    assert "mIoU" in text
    lines = (out / "sensitivity.csv").read_text().splitlines()
    assert lines[0] == "name,kind,miou,change,error,sqnr"
    assert {"stem", "coarse", "context_weigh"} <= {line.split(",")[0] for line in lines}
    assert (out / "sensitivity.png").stat().st_size > 10_000


def test_what_segmenters_do_not_take_is_told_before_anything_is_written(trained, cli, tmp_path):
    out = tmp_path / "small"
    for words, told in [
        (("--teacher", trained), "--teacher is for classifiers; this model learns from masks alone"),
        (("--keep-float", "block99"), "--keep-float block99"),
        (("--to", "savedmodel"), "computes in float32"),
        (("--hint", 1), "--hint is about what a teacher says"),
    ]:
        one_line(cli("compress", trained, "--out", out, *words), told)
        assert not out.exists(), words


def test_masks_to_learn_from_are_needed(trained, cli, tmp_path):
    """All that the card names may be there to be measured on."""
    card, images = card_of(trained), tmp_path / "images"
    shutil.copytree(trained.parent / "shapes" / "val", images)
    shutil.copy(trained.parent / "shapes" / "classes.txt", images)
    (tmp_path / "run").mkdir()
    data = load_masks(images, val_fraction=1.0)
    card["data"] |= {"source": data.source, "val_fraction": 1.0, "fingerprint": data.fingerprint}
    write_card(tmp_path / "run", card)
    told = "its card names no images with masks to train and to measure on"
    one_line(cli("compress", tmp_path / "run", "--out", tmp_path / "small"), told)
