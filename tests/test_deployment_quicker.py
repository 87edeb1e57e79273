"""Of two forms of a file the one that is faster here, and what the second form holds."""

from dataclasses import replace

import numpy as np
import pytest

from mobilenets.compression.scheme import integer_weights
from mobilenets.deployment import quicker
from mobilenets.deployment.runtimes import load
from mobilenets.deployment.targets import Variant, Writer
from mobilenets.models.operations import LINEAR
from test_deployment_files import build, pixels, probabilities


def _rounded(op, scheme) -> np.ndarray:
    made = integer_weights(op, scheme)
    return made.kernel * made.scale


@pytest.fixture(scope="module")
def swishing():
    """A network with activations that ONNX Runtime does not compute in integers."""
    return build("v3_small", size=64, alpha=0.5)


def test_weights_alone_in_int8_are_computed_with_in_float32(swishing, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from mobilenets.deployment.onnx_file import write_onnx

    images = pixels()
    writer = Writer(swishing, list(images[:5]))
    whole = writer.write(Variant("onnx", batch=None), tmp_path)
    path = writer.write(Variant("onnx", "int8", batch=None), tmp_path, weights_only=True)
    assert path.stat().st_size < 0.35 * whole.stat().st_size
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    # Weights are rounded and nothing else is.
    graph, scheme = writer.integer
    rounded = [replace(op, kernel=_rounded(op, scheme)) if op.kind in LINEAR else op for op in graph.ops]
    write_onnx(replace(graph, ops=tuple(rounded)), tmp_path / "rounded.onnx")
    found, expected = (load(file, "onnxruntime", 2)(images) for file in (path, tmp_path / "rounded.onnx"))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - probabilities(swishing, images)).max() > 1e-3
    # What no image changes is computed as the file is loaded, not in every call.
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    left = [node.input[0] for node in onnx.load(tmp_path / "optimized.onnx").graph.node if node.op_type == "Cast"]
    assert not [name for name in left if "kernel" in name]


@pytest.mark.parametrize(("integers_ms", "computed"), [(1.5, "float32"), (1.01, "int8"), (0.5, "int8")])
def test_of_two_forms_of_a_file_the_faster_is_written(integers_ms, computed, swishing, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(quicker, "interleaved", lambda *_, **__: [[[integers_ms] * 3] * 5, [[1.0] * 3] * 5])
    writer = Writer(swishing, list(pixels()[:5]))
    path, found = quicker.write_quicker(writer, Variant("onnx", "int8", batch=None), tmp_path)
    assert found == computed
    assert ("QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}) == (computed == "int8")
    assert list(tmp_path.iterdir()) == [path]


def test_where_integers_compute_all_nothing_is_timed(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setattr(quicker, "interleaved", None)
    writer = Writer(build("v1", size=32, alpha=0.25), list(pixels(32)[:5]))
    assert quicker.write_quicker(writer, Variant("onnx", "int8", batch=None), tmp_path)[1] == "int8"
    assert quicker.write_quicker(writer, Variant("litert", "int8"), tmp_path)[1] == "int8"
    assert quicker.write_quicker(writer, Variant("onnx", batch=None), tmp_path)[1] == "float32"
