"""Detectors: their tables, the Keras models built from them, and boxes as numbers."""

import numpy as np
import pytest

from mobilenets.architectures import FAMILY, HEADS, cost, head, network, write_out_detector
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.boxes import anchors_of, decode, encode
from mobilenets.models.detector import detector, raw_model, shared
from mobilenets.models.saving import load_model, save_model
from mobilenets.models.tasks import in_head

V1 = network("v1")


def numpy(values) -> np.ndarray:
    return keras.ops.convert_to_numpy(values)


@pytest.mark.parametrize("form", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("table", FAMILY, ids=lambda table: table.name)
def test_every_network_takes_every_head(table, form):
    written = write_out_detector(table, form, (96, 96, 3), 3, 0.5)
    found = {layer.name: layer for layer in written.layers}
    assert len(found) == len(written.layers)
    for level in written.levels:
        height, width = level.shape
        boxes, scores = found[level.boxes], found[level.scores]
        assert boxes.output_shape == (height, width, 4 * len(level.anchors))
        assert scores.output_shape == (height, width, (3 + form.background) * len(level.anchors))
    read = {name for layer in written.layers for name in layer.inputs}
    ends = {name for level in written.levels for name in (level.boxes, level.scores)}
    assert set(found) - read == ends  # nothing is computed for nobody
    assert all(layer.inputs[0] in found or layer.inputs == ("image",) for layer in written.layers)


def test_the_maps_of_ssdlite_are_those_of_the_paper():
    written = write_out_detector(network("v3_large"), head("ssdlite"), (320, 320, 3), 90)
    assert [level.shape for level in written.levels] == [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    assert written.locations == 3234  # as torchvision's ssdlite320 has
    found = {layer.name: layer for layer in written.layers}
    # What the block that strides from 16 to 32 has widened: 112 channels, six times.
    assert found["level0_boxes_depthwise"].input_shape == (20, 20, 672)


def test_the_maps_of_an_anchor_free_head_begin_at_stride_8():
    written = write_out_detector(V1, head("anchor-free"), (320, 320, 3), 5, 0.5)
    assert [level.shape for level in written.levels] == [(40, 40), (20, 20), (10, 10), (5, 5)]
    assert written.locations == 40 * 40 + 20 * 20 + 10 * 10 + 5 * 5


@pytest.mark.parametrize("form", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("size", [8, 16, 33, 96])
def test_small_and_odd_images_have_maps_too(form, size):
    written = write_out_detector(V1, form, (size, size, 3), 1, 0.25)
    assert len(written.levels) >= 2
    model = detector(V1, form, (size, size, 3), 1, 0.25)
    assert model.output_shape == (None, written.locations, 5)


def test_an_unknown_head_is_named():
    with pytest.raises(UserError, match="--head yolo: unknown; choose of ssdlite, anchor_free"):
        head("yolo")


@pytest.mark.parametrize("form", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    "name",
    [pytest.param("v1", marks=pytest.mark.backend), "v3_small", pytest.param("v4_conv_small", marks=pytest.mark.long)],
)
def test_a_model_gives_boxes_and_scores(name, form, tmp_path):
    model = detector(network(name), form, (96, 64, 3), 3, 0.25)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3)).astype(np.float32)
    found = model.predict_on_batch(images)
    written = write_out_detector(network(name), form, (96, 64, 3), 3, 0.25)
    assert found.shape == (2, written.locations, 7)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == cost(written.layers).params
    boxes, scores = found[..., :4], found[..., 4:]
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    save_model(model, tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "model.keras").predict_on_batch(images), found)


@pytest.mark.backend
def test_before_training_an_anchor_free_head_expects_little():
    model = detector(V1, head("anchor-free"), (64, 64, 3), 4, 0.25)
    scores = model.predict_on_batch(np.zeros((1, 64, 64, 3), np.float32))[..., 4:]
    assert scores.mean() == pytest.approx(0.01, rel=0.5)


@pytest.mark.backend
def test_the_maps_of_an_anchor_free_head_begin_alike():
    model = detector(V1, head("anchor-free"), (64, 64, 3), 3, 0.25)
    names = [f"tower{layer}{part}/kernel" for layer in range(2) for part in ("_depthwise", "")]
    names += ["boxes/kernel", "scores/kernel", "scores/bias"]
    assert sorted(group[0] for group in shared(model)) == sorted(f"level0_{name}" for name in names)
    assert all(group == [group[0].replace("level0", f"level{level}") for level in range(4)] for group in shared(model))
    model.get_layer("level2_tower0").kernel.assign(np.zeros((1, 1, 32, 32)))
    assert "level0_tower0/kernel" not in [path for group in shared(model) for path in group]
    assert len(shared(model)) == len(names) - 1
    assert not shared(detector(V1, head("ssdlite"), (64, 64, 3), 3, 0.25))


@pytest.mark.backend
def test_the_resolution_multiplier_resizes_inside():
    model = detector(V1, head("anchor-free"), (96, 96, 3), 2, 0.25, 0.5)
    written = write_out_detector(V1, head("anchor-free"), (48, 48, 3), 2, 0.25)
    assert model.input_shape == (None, 96, 96, 3)
    assert model.output_shape == (None, written.locations, 6)


def test_raw_outputs_share_the_models_weights():
    model = detector(V1, head("ssdlite"), (64, 64, 3), 2, 0.25)
    raw = raw_model(model)
    assert {id(weight) for weight in raw.weights} == {id(weight) for weight in model.weights}
    assert raw.output_shape[-1] == 4 + 3


def test_layers_of_the_head_are_told_from_the_networks():
    model = detector(V1, head("anchor-free"), (64, 64, 3), 2, 0.25)
    heads = [layer.name for layer in model.layers if in_head(layer.name)]
    assert heads[0] in ("lateral0", "lateral1", "lateral2")
    assert not any(name.startswith(("stem", "block")) for name in heads)
    assert "detections" in heads
    assert "image" not in heads


# -- boxes as numbers -----------------------------------------------------------------------------------------------


def some_boxes(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    first, sides = rng.uniform(0, 0.7, (count, 2)), rng.uniform(0.02, 0.3, (count, 2))
    return np.concatenate([first, first + sides], axis=1).astype(np.float32)


LEVELS = [(4, 5, [(0.2, 0.2), (0.3, 0.1)]), (2, 2, [(0.5, 0.5), (0.6, 0.4)])]


@pytest.mark.backend
def test_boxes_survive_encoding_and_decoding():
    anchors = anchors_of(LEVELS)
    boxes = some_boxes(len(anchors))
    numbers = encode(keras.ops.convert_to_tensor(boxes), keras.ops.convert_to_tensor(anchors))
    again = numpy(decode("offsets", numbers, keras.ops.convert_to_tensor(anchors)))
    np.testing.assert_allclose(again, boxes, atol=1e-5)


def test_offsets_are_those_of_the_paper():
    # SSD, section 2.2: (cx - dx) / dw, (cy - dy) / dh, log(w / dw), log(h / dh), by variances of 0.1 and 0.2.
    anchors = np.float32([[0.5, 0.5, 0.2, 0.4]])
    numbers = numpy(encode(np.float32([[0.42, 0.3, 0.62, 0.8]]), anchors))
    np.testing.assert_allclose(numbers, [[0.02 / 0.2 / 0.1, 0.05 / 0.4 / 0.1, 0, np.log(0.5 / 0.4) / 0.2]], atol=1e-5)


def test_distances_reach_to_the_four_sides():
    anchors = np.float32([[0.5, 0.25, 0.1, 0.2]])  # the centre of a location, and a step across and down
    numbers = np.log(np.float32([[1, 0.5, 2, 3]]))
    np.testing.assert_allclose(numpy(decode("distances", numbers, anchors)), [[0.4, 0.15, 0.7, 0.85]], atol=1e-6)


def test_anchors_stand_row_by_row():
    anchors = anchors_of(LEVELS)
    assert anchors.shape == (4 * 5 * 2 + 2 * 2 * 2, 4)
    np.testing.assert_allclose(anchors[:3], [[0.1, 0.125, 0.2, 0.2], [0.1, 0.125, 0.3, 0.1], [0.3, 0.125, 0.2, 0.2]])
    np.testing.assert_allclose(anchors[-1], [0.75, 0.75, 0.6, 0.4])


def test_wild_numbers_stay_numbers():
    anchors = anchors_of(LEVELS)
    for encoding in ("offsets", "distances"):
        found = numpy(decode(encoding, np.full((len(anchors), 4), 1e4, np.float32), anchors))
        assert np.isfinite(found).all()
