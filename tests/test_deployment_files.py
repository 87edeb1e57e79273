"""Written files against the Keras model: same images in, same probabilities out, whatever network and format."""

from pathlib import Path

import numpy as np
import pytest

from mobilenets.architectures import FAMILY, network
from mobilenets.compression.quantization import Quantization
from mobilenets.compression.scheme import integer_form, make_scheme, packed
from mobilenets.deployment.calibrate import calibrate
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import TARGETS, Variant, Writer
from mobilenets.models import keras
from mobilenets.models.builder import at_size, classifier
from mobilenets.models.graph import graph_of
from mobilenets.models.layers import LayerScale

SIZE = 64
NETWORKS = [each.name for each in FAMILY]
TORCH = {"padding": "symmetric", "epsilon": 1e-5, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def pixels(size: int = SIZE, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 206, (count, 4, 4, 3)).repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)
    return (patches[:, :size, :size] + rng.integers(0, 50, (count, size, size, 3))).astype(np.uint8)


def shaken(model: keras.Model) -> keras.Model:
    """Random statistics, which identities would hide, and logits that tell images apart without being sure.

    Variances are those that such kernels give, or greater, and residual branches small: otherwise values would grow
    from block to block until float32 overflows.
    """
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("moving_mean", "beta", "bias"):
                weight.assign(rng.normal(0, 0.2, weight.shape))
            elif weight.name == "moving_variance":
                weight.assign(rng.uniform(0.7, 1.6, weight.shape))
            elif weight.name == "gamma":
                low, high = (0.2, 0.5) if isinstance(layer, LayerScale) else (0.5, 1.5)
                weight.assign(rng.uniform(low, high, weight.shape))
            elif weight.name == "kernel" and len(weight.shape) == 4:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                fan = np.prod(weight.shape[:2] if depthwise else weight.shape[:3])
                weight.assign(rng.normal(0, (2 / fan) ** 0.5, weight.shape))
    logits = keras.Model(model.input, model.get_layer("logits").output)
    found = np.asarray(logits.predict_on_batch(pixels(model.input_shape[1])))
    kernel, bias = model.get_layer("logits").get_weights()
    scale = 1 / (found - found.mean(axis=0)).std()
    model.get_layer("logits").set_weights([kernel * scale, (bias - found.mean(axis=0)) * scale])
    return model


def build(name: str, size: int = SIZE, alpha: float = 0.5, rho: float = 1.0, conventions: dict | None = None):
    table = network(name).converted(conventions) if conventions else network(name)
    keras.utils.set_random_seed(0)
    return shaken(classifier(table, (size, size, 3), 10, alpha, rho))


def probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    found = np.asarray(model.predict_on_batch(images))
    assert np.abs(found[0] - found[1]).max() > 0.02  # the images are told apart
    return found


def run(model: keras.Model, variant: Variant, directory, images: np.ndarray, calibration: int = 5) -> np.ndarray:
    for package in TARGETS[variant.target].packages:
        pytest.importorskip(package)
    path = Writer(model, list(images[:calibration])).write(variant, directory)
    runner = load(path, TARGETS[variant.target].runtime, 2)
    assert runner.batch == variant.batch
    assert runner.input_dtype == variant.input_dtype
    return runner(images)


def some_on_every_backend(names: list[str]) -> list:
    """One network of each kind on whatever backend is tested; the others, whose layers are the same, on the default.

    The larger ones, which have more of the same blocks, take ten seconds each, the largest a quarter of a minute.
    """
    marks = dict.fromkeys(("v1", "v3_small", "v4_conv_small"), pytest.mark.backend)
    marks["v4_hybrid_medium"] = [pytest.mark.backend, pytest.mark.long]
    marks |= dict.fromkeys(("v3_large", "v4_conv_medium"), pytest.mark.long)
    marks |= dict.fromkeys(("v4_conv_large", "v4_hybrid_large"), pytest.mark.slow)
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


def slow_where(condition: bool, *values: str):
    return pytest.param(*values, marks=pytest.mark.slow if condition else ())


@pytest.mark.parametrize("name", some_on_every_backend(NETWORKS))
def test_float32_files_compute_what_keras_computes(name, tmp_path):
    model, images = build(name), pixels()
    expected = probabilities(model, images)
    for target, kind in TARGETS.items():
        if all(pytest.importorskip(package) for package in kind.packages):
            found = run(model, Variant(target, batch=kind.batch), tmp_path, images)
            # Attention makes more of the last digit.
            np.testing.assert_allclose(found, expected, atol=3e-4 if "hybrid" in name else 1e-4, err_msg=target)


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_the_two_classics_too(name, tmp_path):
    model, images = build(name, size=32, alpha=0.25), pixels(32)
    expected = probabilities(model, images)
    for target in ("litert", "onnx", "savedmodel"):
        found = run(model, Variant(target, batch=TARGETS[target].batch), tmp_path, images)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=target)


@pytest.mark.parametrize(
    ("name", "target"),
    # A SavedModel takes ten seconds, and what it does with half precision does not depend on the network.
    [
        slow_where(target == "savedmodel" and name != "v1", name, target)
        for name in ("v1", "v2", "v3_small")
        for target in TARGETS
    ],
)
def test_half_precision_nearly_so_and_in_half_the_bytes(name, target, tmp_path):
    model, images = build(name, alpha=0.25), pixels()
    expected = probabilities(model, images)
    found = run(model, Variant(target, "float16", batch=None), tmp_path, images)
    assert 1e-7 < np.abs(found - expected).max() < 0.05
    if target in ("litert", "onnx"):
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        run(model, Variant(target, batch=None), tmp_path, images)
        assert sizes[0] < 0.6 * max(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_any_batch(target, precision, tmp_path):
    model, images = build("v2", alpha=0.35), pixels()
    found = [run(model, Variant(target, precision, batch=batch), tmp_path, images) for batch in (1, 3, None)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)
    np.testing.assert_allclose(found[2], found[0], atol=1e-5)
    if precision == "float32":
        np.testing.assert_allclose(found[0], probabilities(model, images), atol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_float_images_are_pixel_values_too(target, precision, tmp_path):
    model, images = build("v1", alpha=0.25), pixels()
    found = [run(model, Variant(target, precision, dtype, None), tmp_path, images) for dtype in ("uint8", "float32")]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_the_conventions_of_pytorch(target, tmp_path):
    for size in (64, 65):
        model, images = build("v2", size, conventions=TORCH), pixels(size)
        found = run(model, Variant(target, batch=None), tmp_path, images)
        np.testing.assert_allclose(found, probabilities(model, images), atol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_the_resolution_multiplier_resizes_inside_the_file(target, tmp_path):
    model, images = build("v1", 96, rho=0.75), pixels(96)
    found = run(model, Variant(target, batch=None), tmp_path, images)
    np.testing.assert_allclose(found, probabilities(model, images), atol=1e-4)


def test_nothing_is_resized_where_the_images_have_the_resolution_already():
    model = build("v1", 96, rho=0.75)
    assert "resize" in {op.kind for op in graph_of(model).ops}
    small = at_size(model, 72)
    assert "resize" not in {op.kind for op in graph_of(small).ops}
    images = pixels(96)
    resized = np.asarray(keras.ops.image.resize(images.astype(np.float32), (72, 72), "bilinear"))
    np.testing.assert_allclose(small.predict_on_batch(resized), model.predict_on_batch(images), atol=1e-5)


def test_dilation_survives(tmp_path):
    table = network("v2")
    model = shaken(classifier(table, (64, 64, 3), 10, 0.35, output_stride=8))
    images = pixels()
    for target in TARGETS:
        found = run(model, Variant(target, batch=TARGETS[target].batch), tmp_path, images)
        np.testing.assert_allclose(found, probabilities(model, images), atol=1e-4, err_msg=target)


# -- integers -------------------------------------------------------------------------------------------------------


def converted(model: keras.Model, images: np.ndarray, integers: bool = True) -> bytes:
    """What TensorFlow's converter makes of a model."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's converter needs its backend")
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if integers:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


@pytest.mark.long
@pytest.mark.parametrize("name", [slow_where(name == "v2", name) for name in ("v1", "v2", "v3_small", "v4_conv_small")])
def test_integers_are_as_good_as_those_of_tensorflows_converter(name, tmp_path):
    """Random weights, for which eight bits are harder than for trained ones; same images to calibrate on."""
    model, images = build(name), pixels(count=64)  # fewer leave it to chance who is nearer
    expected = probabilities(model, images)
    (tmp_path / "theirs.tflite").write_bytes(converted(model, images[:16]))
    found = {
        "litert": run(model, Variant("litert", "int8"), tmp_path, images, 16),
        "onnx": run(model, Variant("onnx", "int8", batch=None), tmp_path, images, 16),
        "openvino": run(model, Variant("openvino", "int8"), tmp_path, images, 16),
        "theirs": load(tmp_path / "theirs.tflite")(images),
    }
    errors = {who: np.sqrt(((values - expected) ** 2).mean()) for who, values in found.items()}
    # A bit less of the weights costs little: most of the error is that of activations.
    for who, most in (("litert", 1.1), ("onnx", 1.3), ("openvino", 1.3)):
        assert errors[who] < most * errors["theirs"], who
    if name != "v3_small":  # whose float parts round otherwise in either runtime
        limits = calibrate(integer_form(graph_of(model)), list(images[:16]))
        writer = Writer(model, [], Quantization("qat", limits, weight_bits=7))
        same_weights = load(writer.write(Variant("litert", "int8"), tmp_path))(images)
        same = np.isclose(same_weights, found["onnx"], rtol=0, atol=1e-5).all(axis=1)
        assert same.mean() > 0.9  # a sum that lies between two integers is rounded up in one and down in the other


def operators(path) -> list[tuple[str, list[str]]]:
    """Name and types of inputs and outputs of every operator of a ``.tflite`` file, by the generated reader."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (graph,) = model.subgraphs
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: key for key, value in vars(schema.TensorType).items() if isinstance(value, int)}
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        tensors = [graph.tensors[index] for index in (*operator.inputs, *operator.outputs)]
        found.append((names[code.builtinCode], [types[tensor.type] for tensor in tensors]))
    return found


def layers_of(model: keras.Model) -> int:
    kinds = keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense
    return sum(isinstance(layer, kinds) for layer in model.layers)


@pytest.mark.parametrize("name", ["v1", "v2", "v3_small"])
def test_every_convolution_and_the_head_of_a_litert_file_are_integers(name, tmp_path):
    model = build(name)
    run(model, Variant("litert", "int8"), tmp_path, pixels())
    found = operators(tmp_path / "model_int8.tflite")
    weighted = [types for kind, types in found if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert len(weighted) == layers_of(model)
    assert all(types == ["INT8", "INT8", "INT32", "INT8"] for types in weighted)
    floats = {kind for kind, types in found if types[-1] == "FLOAT32"}
    assert floats <= {"DEQUANTIZE", "SOFTMAX", "HARD_SWISH", "ADD", "MUL"}
    if name != "v3_small":  # whose hard sigmoid is an addition and a multiplication
        assert floats == {"DEQUANTIZE", "SOFTMAX"}


@pytest.mark.parametrize("name", ["v1", "v2", "v3_small"])
def test_every_convolution_and_the_head_of_an_onnx_file_are_integers(name, tmp_path):
    """What ONNX Runtime makes of the file is what it computes."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(name)
    run(model, Variant("onnx", "int8", batch=None), tmp_path, pixels())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(tmp_path / "model_int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") + kinds.count("QGemm") == layers_of(model)
    assert not {"Conv", "Gemm", "MatMul", "FusedConv"} & set(kinds)


@pytest.mark.parametrize("name", ["v1", "v2", "v3_small"])
def test_openvino_computes_every_convolution_in_integers(name, tmp_path):
    """What it makes of the file, the first convolution and hard swish included."""
    openvino = pytest.importorskip("openvino")
    model = build(name)
    run(model, Variant("openvino", "int8"), tmp_path, pixels())
    compiled = openvino.Core().compile_model(
        str(tmp_path / "model_int8.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = [info for info in nodes if "Convolution" in info["layerType"].astype(str)]
    assert len(found) == sum(
        isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) for layer in model.layers
    )
    assert all("I8" in info["primitiveType"].astype(str).upper() for info in found)


@pytest.mark.parametrize("name", ["v1", "v2", "v3_large", "v4_conv_small"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_xnnpack_takes_a_file_in_one_piece(name, precision, tmp_path):
    from mobilenets.deployment.partitions import partitions

    model = build(name)
    run(model, Variant("litert", precision), tmp_path, pixels())
    path = next(tmp_path.glob("*.tflite"))
    assert partitions(path) == 1


# -- weights of seven bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_two_products_of_weights_and_bytes_fit_into_16_bits(target, tmp_path):
    """But in depthwise convolutions, which no runtime adds up in pairs; elsewhere 255 * 127 twice would not."""
    onnx, openvino = pytest.importorskip("onnx"), pytest.importorskip("openvino")
    writer = Writer(build("v1"), list(pixels()))
    path = writer.write(Variant(target, "int8", batch=TARGETS[target].batch), tmp_path)
    if target == "onnx":
        values = [onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer]
    else:
        graph = openvino.Core().read_model(str(path)).get_ops()
        values = [each.get_data() for each in graph if each.get_type_name() == "Constant"]
    kernels = [each for each in values if each.dtype == np.int8 and each.ndim > 1]
    depthwise = [each for each in kernels if each.shape[-1] > 1 and each.size == each.shape[0] * 9]
    others = [each for each in kernels if not any(each is one for one in depthwise)]
    assert (len(depthwise), len(others)) == (13, 15)
    assert {int(np.abs(each.astype(int)).max()) for each in depthwise} == {127}
    assert {int(np.abs(each.astype(int)).max()) for each in others} == {63}


# -- weights of four bits -------------------------------------------------------------------------------------------


def four_bits(model: keras.Model, target: str, directory) -> tuple[Path, Path, int]:
    """Files with weights of eight and of four bits, and how many weights have four."""
    for package in TARGETS[target].packages:
        pytest.importorskip(package)
    graph = integer_form(graph_of(model))
    limits = calibrate(graph, list(pixels()))
    variant = Variant(target, "int8", batch=TARGETS[target].batch)
    eight, four = (
        Writer(model, [], Quantization("qat", limits, weight_bits=bits)).write(variant, directory / str(bits))
        for bits in (8, 4)
    )
    narrow = make_scheme(graph, limits, weight_bits=4).narrow
    return eight, four, sum(op.kernel.size for op in graph.ops if op.name in narrow)


@pytest.mark.parametrize(
    "name", ["v1", *(pytest.param(name, marks=pytest.mark.long) for name in ("v3_small", "v4_conv_small"))]
)
def test_a_litert_file_holds_four_bits_a_weight(name, tmp_path):
    """In matrix products, which XNNPACK takes together with all the rest."""
    from ai_edge_litert import schema_py_generated as schema

    from mobilenets.deployment.partitions import partitions

    eight, four, weights = four_bits(build(name), "litert", tmp_path)
    assert eight.stat().st_size - four.stat().st_size == pytest.approx(weights / 2, rel=0.01)
    products = [types for kind, types in operators(four) if kind == "FULLY_CONNECTED"]
    assert all(types == ["INT8", "INT4", "INT32", "INT8"] for types in products)
    others = [types for kind, types in operators(four) if kind in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert all(types == ["INT8", "INT8", "INT32", "INT8"] for types in others)
    assert len(products) + len(others) == layers_of(build(name))
    assert partitions(four) == 1
    codes = schema.ModelT.InitFromPackedBuf(four.read_bytes(), 0).operatorCodes
    versions = {code.builtinCode: code.version for code in codes}
    assert versions[schema.BuiltinOperator.FULLY_CONNECTED] == 10  # the first with four bits


def test_an_onnx_file_holds_four_bits_a_weight(tmp_path):
    """ONNX Runtime makes eight of them as it loads the file, and computes in integers as ever."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build("v1")
    eight, four, weights = four_bits(model, "onnx", tmp_path)
    assert eight.stat().st_size - four.stat().st_size == pytest.approx(weights / 2, rel=0.02)
    held = onnx.load(four).graph.initializer
    assert sum(np.prod(each.dims) for each in held if each.data_type == onnx.TensorProto.INT4) == weights
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(four), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") + kinds.count("QGemm") == layers_of(model)
    assert not {"Conv", "Gemm", "Cast"} & set(kinds)


def test_an_openvino_file_holds_four_bits_a_weight(tmp_path):
    openvino = pytest.importorskip("openvino")
    eight, four, weights = four_bits(build("v1"), "openvino", tmp_path)
    sizes = [path.with_suffix(".bin").stat().st_size for path in (eight, four)]
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, rel=0.01)
    compiled = openvino.Core().compile_model(str(four), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = [info for info in nodes if info["layerType"].astype(str) in ("Convolution", "FullyConnected")]
    assert len(found) > 1
    assert all("I8" in info["primitiveType"].astype(str).upper() for info in found)


def test_two_values_of_four_bits_share_a_byte():
    values = np.int8([[1, -1, 7], [-7, -8, 0], [3, 2, 5]])
    assert packed(values).tolist() == [0xF1, 0x97, 0x08, 0x23, 0x05]
    assert packed(values.T).tolist() == [0x91, 0xF3, 0x28, 0x07, 0x05]


# -- the container --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_operators_have_the_versions_that_tensorflows_converter_gives_them(tmp_path):
    """Older runtimes on devices refuse by version what they do not know."""
    from ai_edge_litert import schema_py_generated as schema

    def versions(content: bytes) -> dict[int, int]:
        codes = schema.ModelT.InitFromPackedBuf(content, 0).operatorCodes
        return {code.builtinCode: code.version for code in codes}

    model, images = build("v1", alpha=0.25), pixels()
    for precision in ("float32", "int8"):
        theirs = versions(converted(model, images, precision == "int8"))
        run(model, Variant("litert", precision), tmp_path, images)
        name = "model.tflite" if precision == "float32" else "model_int8.tflite"
        ours = versions((tmp_path / name).read_bytes())
        kinds = schema.BuiltinOperator
        for kind in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED, kinds.MEAN):
            assert ours[kind] == theirs[kind], (precision, kind)


def test_constants_are_aligned_as_the_format_asks(tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    run(build("v1", alpha=0.25), Variant("litert"), tmp_path, pixels())
    content = (tmp_path / "model.tflite").read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
