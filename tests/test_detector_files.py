"""Written files of detectors against the Keras model: same images in, same boxes and scores out, also suppressed."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mobilenets.architectures import HEADS, Network, network
from mobilenets.compression.scheme import integer_form, make_scheme
from mobilenets.deployment import tflite_boxes
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.decode_boxes import suppressed
from mobilenets.deployment.partitions import partitions
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.deployment.tflite_file import write_tflite
from mobilenets.errors import UserError
from mobilenets.evaluation.suppression import suppress
from mobilenets.models import keras
from mobilenets.models.builder import classifier
from mobilenets.models.detector import detector, raw_model
from mobilenets.models.graph import deviations, graph_of
from mobilenets.models.operations import Graph
from test_deployment_files import operators, pixels

SIZE = 64
CLASSES = 3
DETECTORS = [("v1", "anchor_free"), ("v1", "ssdlite"), ("v3_small", "anchor_free")]
OUTSIDE = -30.0  # an offset that moves a box of the left half out of the image
RUNTIMES = {"litert": ".tflite", "onnxruntime": ".onnx", "openvino": ".onnx", "tensorflow": ""}


@cache
def build(name: str, head: str) -> keras.Model:
    return made(network(name), head)


def made(table: Network, head: str) -> keras.Model:
    """A detector with random statistics, which identities would hide, whose scores are rare as trained ones are.

    Half of the boxes of the first anchor of `SSDLite`'s first map lie outside the image and have no area.
    """
    keras.utils.set_random_seed(0)
    model = detector(table, HEADS[head], (SIZE, SIZE, 3), CLASSES, 0.25)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("moving_mean", "beta", "bias"):
                weight.assign(rng.normal(0, 0.2, weight.shape))
            elif weight.name in ("moving_variance", "gamma"):
                weight.assign(rng.uniform(0.7, 1.5, weight.shape))
            elif weight.name == "kernel" and len(weight.shape) == 4:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                fan = np.prod(weight.shape[:2] if depthwise else weight.shape[:3])
                weight.assign(rng.normal(0, (2 / fan) ** 0.5, weight.shape))
    ends = [layer for layer in model.layers if layer.name.startswith("level") and layer.name.endswith(("xes", "res"))]
    outputs = keras.Model(model.input, [layer.output for layer in ends]).predict_on_batch(pixels())
    for layer, output in zip(ends, map(np.asarray, outputs), strict=True):
        kernel, bias = layer.get_weights()
        spread, middle = (0.4, 0.2) if layer.name.endswith("boxes") else (1.5, -3.0)
        bias = (bias - output.mean(axis=(0, 1, 2))) * spread / output.std() + middle
        if head == "ssdlite" and layer.name == "level0_boxes":
            bias[0] = OUTSIDE
        layer.set_weights([kernel * spread / output.std(), bias])
    return model


@cache
def boxes_and_scores(name: str, head: str) -> np.ndarray:
    """What Keras computes for `pixels`."""
    found = np.asarray(build(name, head).predict_on_batch(pixels()))
    assert np.abs(found[0] - found[1]).max() > 0.1  # the images are told apart
    assert found[..., :4].std() > 0.2
    assert 0.2 < found[..., 4:].max() < 1
    assert (found[..., 0] == found[..., 2]).any() == (head == "ssdlite")
    return found


@cache
def writer(name: str, head: str) -> Writer:
    return Writer(build(name, head), list(pixels()))


def run(name: str, head: str, variant: Variant, directory: Path) -> np.ndarray:
    for package in TARGETS[variant.target].packages:
        pytest.importorskip(package)
    runner = load(writer(name, head).write(variant, directory), TARGETS[variant.target].runtime, 1)
    assert runner.batch == variant.batch
    return runner(pixels())


@pytest.mark.parametrize(
    ("name", "head", "target"),
    # A SavedModel takes ten seconds, and nothing of it depends on the network.
    [(*which, target) for which in DETECTORS for target in TARGETS if target != "savedmodel" or which[0] == "v1"],
)
def test_float32_files_find_what_keras_finds(name, head, target, tmp_path):
    found = run(name, head, Variant(target, batch=TARGETS[target].batch), tmp_path)
    np.testing.assert_allclose(found, boxes_and_scores(name, head), atol=1e-4)


@pytest.mark.parametrize(("name", "head"), DETECTORS[:2])
@pytest.mark.parametrize("target", ["litert", "onnx", "openvino"])
def test_half_precision_nearly_so(name, head, target, tmp_path):
    found = run(name, head, Variant(target, "float16", batch=TARGETS[target].batch), tmp_path)
    assert 1e-6 < np.abs(found - boxes_and_scores(name, head)).max() < 5e-3


@pytest.mark.parametrize(("name", "head"), DETECTORS[:2])
@pytest.mark.parametrize("target", ["litert", "onnx"])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_any_batch(name, head, target, precision, tmp_path):
    one, three, any_number = (
        run(name, head, Variant(target, precision, batch=batch), tmp_path) for batch in (1, 3, None)
    )
    np.testing.assert_allclose(three, one, atol=1e-5)
    np.testing.assert_allclose(any_number, one, atol=1e-5)


@pytest.mark.backend
@pytest.mark.parametrize("head", HEADS)
def test_images_that_are_no_squares(head, tmp_path):
    """Rows and columns, and x and y, are told apart."""
    keras.utils.set_random_seed(0)
    model = detector(network("v1"), HEADS[head], (64, 96, 3), CLASSES, 0.25)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    expected = np.asarray(model.predict_on_batch(images))
    for target in ("litert", "onnx"):
        if all(pytest.importorskip(package) for package in TARGETS[target].packages):
            path = Writer(model).write(Variant(target, batch=TARGETS[target].batch), tmp_path)
            np.testing.assert_allclose(load(path, threads=1)(images), expected, atol=1e-4, err_msg=target)


def test_more_lists_than_xnnpack_joins_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(tflite_boxes, "JOINED", 2)
    found = run("v1", "anchor_free", Variant("litert"), tmp_path)
    assert [kind for kind, _ in operators(tmp_path / "model.tflite")].count("CONCATENATION") == 3 + 3 + 1
    np.testing.assert_allclose(found, boxes_and_scores("v1", "anchor_free"), atol=1e-4)


# -- integers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "head"), DETECTORS)
@pytest.mark.parametrize("target", ["litert", "onnx", "openvino"])
def test_integers_find_nearly_the_same(name, head, target, tmp_path):
    """Random weights, for which eight bits are harder than for trained ones."""
    found = run(name, head, Variant(target, "int8", batch=TARGETS[target].batch), tmp_path)
    expected = boxes_and_scores(name, head)
    score = expected[..., 4:].max(axis=-1)
    best = score >= np.quantile(score, 0.9)
    moved = np.abs(found - expected)[best]
    assert np.quantile(moved[:, :4], 0.95) < 0.025
    assert moved[:, :4].max() < 0.1
    assert moved[:, 4:].mean() < 0.03
    scores = expected[..., 4:]
    noise = np.square(found[..., 4:] - scores).mean()
    assert scores.var() > (20 if target == "litert" else 15) * noise  # 13 and 12 dB: with 8 and with 7 bits a weight


def convolutions(model: keras.Model) -> int:
    kinds = keras.layers.Conv2D | keras.layers.DepthwiseConv2D
    return sum(isinstance(layer, kinds) for layer in model.layers)


@pytest.mark.parametrize(("name", "head"), DETECTORS)
def test_every_convolution_of_a_litert_file_is_of_integers(name, head, tmp_path):
    """As are additions and resized maps between them; all is floating behind the last ones."""
    run(name, head, Variant("litert", "int8"), tmp_path)
    found = operators(tmp_path / "model_int8.tflite")
    weighted = [types for kind, types in found if kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert len(weighted) == convolutions(build(name, head))
    assert all(types == ["INT8", "INT8", "INT32", "INT8"] for types in weighted)
    resized = [types for kind, types in found if kind == "RESIZE_BILINEAR"]
    assert resized == [["INT8", "INT32", "INT8"]] * (2 if head == "anchor_free" else 0)
    assert partitions(tmp_path / "model_int8.tflite") == 1


@pytest.mark.parametrize(("name", "head"), DETECTORS[:2])
def test_every_convolution_of_an_onnx_file_is_of_integers(name, head, tmp_path):
    """What ONNX Runtime and OpenVINO make of the files."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    run(name, head, Variant("onnx", "int8", batch=None), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "model_int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == convolutions(build(name, head))
    assert not {"Conv", "FusedConv"} & set(kinds)
    openvino = pytest.importorskip("openvino")
    path = writer(name, head).write(Variant("openvino", "int8"), tmp_path)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = [info for info in nodes if "Convolution" in info["layerType"].astype(str)]
    assert len(found) == convolutions(build(name, head))
    assert all("I8" in info["primitiveType"].astype(str).upper() for info in found)


@pytest.mark.parametrize(("name", "head"), DETECTORS)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_xnnpack_takes_a_file_in_one_piece(name, head, precision, tmp_path):
    path = writer(name, head).write(Variant("litert", precision), tmp_path)
    assert partitions(path) == 1


# -- one box an object ----------------------------------------------------------------------------------------------


def written(graph: Graph, runtime: str, path: Path, **options) -> Path:
    path = path.with_suffix(RUNTIMES[runtime])
    if runtime == "litert":
        write_tflite(graph, path, **options)
    elif runtime == "tensorflow":
        from mobilenets.deployment.savedmodel_file import write_savedmodel

        write_savedmodel(graph, path)
    else:
        pytest.importorskip("onnx")
        pytest.importorskip(runtime)
        from mobilenets.deployment.onnx_file import write_onnx

        write_onnx(graph, path, batch=1, **options)
    return path


@pytest.mark.parametrize(
    ("head", "runtime", "limits"),
    [
        ("anchor_free", "litert", {}),
        ("anchor_free", "onnxruntime", {}),
        ("anchor_free", "openvino", {"least": 0.2}),
        ("ssdlite", "litert", {"least": 0.15, "overlap": 0.4}),
        ("ssdlite", "onnxruntime", {"least": 0.15, "overlap": 0.4}),
        ("ssdlite", "openvino", {"most": 7}),
        ("ssdlite", "tensorflow", {"least": 0.15, "overlap": 0.4}),
    ],
)
def test_a_file_suppresses_as_suppress_does(head, runtime, limits, tmp_path):
    graph = suppressed(graph_of(build("v1", head)), **limits)
    # With two threads LiteRT's own way to take several classes forgets one of them.
    runner = load(written(graph, runtime, tmp_path / "model"), runtime, 2)
    most = limits.get("most", 100)
    for image, raw in zip(pixels(), boxes_and_scores("v1", head), strict=True):
        (found,) = runner(image[None])
        expected = suppress(raw, **limits)
        assert len(expected) == most or limits.get("least", 0) > 0.1
        np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-5)
        assert (found[len(expected) :] == [0, 0, 0, 0, 0, -1]).all()
        assert found.shape == (most, 6)


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_a_file_that_finds_nothing_says_so(runtime, tmp_path):
    graph = suppressed(graph_of(build("v1", "anchor_free")), least=0.9999, most=5)
    found = load(written(graph, runtime, tmp_path / "model"), runtime, 1)(pixels()[:1])
    assert found.tolist() == [[[0, 0, 0, 0, 0, -1]] * 5]


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_file_of_integers_suppresses_too(runtime, tmp_path):
    """With the scheme of the same graph without it."""
    graph = integer_form(graph_of(build("v1", "anchor_free")))
    scheme = make_scheme(graph, calibrate(graph, list(pixels()), 1))
    raw = load(written(graph, runtime, tmp_path / "raw", scheme=scheme), runtime, 1)(pixels())
    path = written(suppressed(graph, least=0.05), runtime, tmp_path / "model", scheme=scheme)
    found = load(path, runtime, 1)(pixels())
    for rows, outputs in zip(found, raw, strict=True):
        expected = suppress(outputs, least=0.05)
        rows = rows[rows[:, 5] >= 0]
        assert len(rows) == len(expected) > 0
        # Integers make many scores equal, and which of those comes first is left open.
        np.testing.assert_allclose(rows[:, 4], expected[:, 4], atol=0.01)
        same = np.isclose(rows[:, None], expected, rtol=0, atol=1e-5).all(axis=2).any(axis=1)
        assert same.mean() > 0.9
    if runtime == "litert":
        assert partitions(path) == 2  # before TFLite_Detection_PostProcess and behind it


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
@pytest.mark.parametrize("batch", [2, None])
def test_such_files_take_one_image_a_call(runtime, batch, tmp_path):
    graph = suppressed(graph_of(build("v1", "anchor_free")))
    write = write_tflite
    if runtime == "onnxruntime":
        pytest.importorskip("onnx")
        from mobilenets.deployment.onnx_file import write_onnx as write
    with pytest.raises(UserError, match="takes one image a call"):
        write(graph, tmp_path / "model", batch=batch)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limits", [{"least": 0}, {"least": 1.5}, {"overlap": -0.1}, {"overlap": 2}, {"most": 0}])
def test_limits_out_of_their_range(limits):
    with pytest.raises(UserError, match="suppression takes"):
        suppressed(graph_of(build("v1", "anchor_free")), **limits)


def test_a_classifier_has_no_boxes():
    with pytest.raises(UserError, match="reports none"):
        suppressed(graph_of(classifier(network("v1"), (32, 32, 3), 10, 0.25)))


# -- the graph ------------------------------------------------------------------------------------------------------


def test_the_graph_of_a_detector():
    model = build("v1", "ssdlite")
    graph = graph_of(model)
    (op,) = [op for op in graph.ops if op.kind == "detections"]
    assert graph.output is op
    assert op.shape == model.output_shape[1:]
    assert op.anchors.shape == (op.shape[0], 4)
    assert (op.encoding, op.background) == ("offsets", True)
    assert [graph.shape(name)[1] for name in op.inputs] == [4, CLASSES + 1]


def test_a_live_graph_reads_a_detector_too():
    model = build("v1", "anchor_free")
    live, still = graph_of(model, deviations(model)), graph_of(model)
    assert [(op.name, op.kind, op.inputs, op.shape) for op in live.ops] == [
        (op.name, op.kind, op.inputs, op.shape) for op in still.ops
    ]


def test_lists_that_are_joined_otherwise_are_refused():
    with pytest.raises(UserError, match="'raw'.*axis 1"):
        graph_of(raw_model(build("v1", "anchor_free")))
    image = keras.Input((8, 8, 3))
    with pytest.raises(UserError, match="'flat'.*only a map can be reshaped"):
        graph_of(keras.Model(image, keras.layers.Reshape((192,), name="flat")(image)))
