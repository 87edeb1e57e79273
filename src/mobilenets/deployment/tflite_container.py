"""The containers of a ``.tflite`` file: tensors, buffers, operators, and how they are packed."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenets.compression.scheme import Scheme, is_bytes
from mobilenets.models.operations import IMAGE, Graph, Op

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int4": schema.TensorType.INT4,
}


class _Buffer(schema.BufferT):
    """Aligned to 16 bytes, as the format asks and the generated code forgets."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        content = None if self.data is None else np.ascontiguousarray(self.data).tobytes()
        if content is not None:
            builder.StartVector(1, len(content), 16)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if content is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class _Quantization(schema.QuantizationParametersT):
    """Scales and zero points. Those of weights are zeros of 8 bytes a channel, and are written once for each number of
    channels: a tenth of a small file.
    """

    def __init__(self, scale: np.ndarray, zero_point: np.ndarray, axis: int, written: dict[bytes, int]) -> None:
        super().__init__()
        self.scale, self.zeroPoint, self.quantizedDimension = scale, zero_point, axis
        self.written = written

    def Pack(self, builder: flatbuffers.Builder) -> int:
        key = self.zeroPoint.tobytes()
        if key not in self.written:
            self.written[key] = builder.CreateNumpyVector(self.zeroPoint)
        scale = builder.CreateNumpyVector(self.scale)
        schema.QuantizationParametersStart(builder)
        schema.QuantizationParametersAddScale(builder, scale)
        schema.QuantizationParametersAddZeroPoint(builder, self.written[key])
        schema.QuantizationParametersAddQuantizedDimension(builder, self.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)


class File:
    """What has been written so far."""

    def __init__(self, graph: Graph, input_dtype: str, batch: int | None, scheme: Scheme | None, half: bool) -> None:
        self.scheme = scheme or Scheme({}, frozenset())
        self.batch, self.half = batch, half
        self.buffers = [_Buffer()]  # the first is that of all tensors without content
        self.tensors: list[schema.TensorT] = []
        self.operators: list[schema.OperatorT] = []
        self.codes: dict[int | str, schema.OperatorCodeT] = {}
        self.zero_points: dict[bytes, int] = {}  # -> where they are in the file
        self.values: dict[tuple[str, bool], int] = {}  # (operation, in integers) -> tensor
        self.shapes = {IMAGE: graph.input_shape} | {op.name: op.shape for op in graph.ops}
        zero = next((self.scheme.points[op.name] for op in graph.ops if scheme and is_bytes(op)), None)
        point = zero if input_dtype == "uint8" else None
        self.image = self.tensor(IMAGE, graph.input_shape, input_dtype, point=point)
        self.input_dtype = input_dtype

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        content: np.ndarray | None = None,
        constant: bool = False,
        point: tuple[float, int] | None = None,
        scales: np.ndarray | None = None,
        axis: int = 0,
    ) -> int:
        """Adds a tensor: of the whole batch, unless it is constant, as it is with ``content``; int4 must be packed."""
        made = schema.TensorT()
        made.name, made.type = name.encode(), _TYPES[dtype]
        made.hasRank = True
        made.shape = list(shape)
        if content is None and not constant:
            made.shape = [self.batch or 1, *shape]
            if self.batch is None:
                made.shapeSignature = [-1, *shape]
        if content is not None:
            made.buffer = len(self.buffers)
            self.buffers.append(_Buffer(data=content))
        if point or scales is not None:
            scale = np.float32([point[0]]) if point else scales
            shift = 128 if dtype == "int8" else 0
            zero_point = np.int64([point[1] - shift]) if point else np.zeros(len(scales), np.int64)
            made.quantization = _Quantization(scale, zero_point, axis, self.zero_points)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, name: str, values: Any) -> int:
        values = np.asarray(values)
        return self.tensor(name, values.shape, values.dtype.name, values)

    def operator(self, code: str, inputs: list[int], output: int, options: Any = None, version: int = 1) -> None:
        """Adds an operation of the schema, with the least version that knows how it is used."""
        number = getattr(schema.BuiltinOperator, code)
        entry = self.codes.setdefault(number, schema.OperatorCodeT())
        entry.builtinCode, entry.deprecatedBuiltinCode = number, min(number, 127)
        entry.version = max(entry.version, version)
        made = schema.OperatorT()
        made.opcodeIndex = list(self.codes).index(number)
        made.inputs, made.outputs = inputs, [output]
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(made)

    def custom(self, name: str, inputs: list[int], outputs: list[int], options: bytes) -> None:
        """Adds an operation that is not of the schema; ``options`` is a flexbuffer."""
        number = schema.BuiltinOperator.CUSTOM
        entry = self.codes.setdefault(name, schema.OperatorCodeT())
        entry.builtinCode = entry.deprecatedBuiltinCode = number
        entry.customCode, entry.version = name.encode(), 1
        made = schema.OperatorT()
        made.opcodeIndex = list(self.codes).index(name)
        made.inputs, made.outputs = inputs, outputs
        made.customOptions = np.frombuffer(options, np.uint8)
        self.operators.append(made)

    def reshape(self, source: int, target: int, name: str, shape: tuple[int, ...]) -> None:
        """Adds a reshaping of each image's part to ``shape``."""
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, *shape]
        self.operator("RESHAPE", [source, self.constant(f"{name}_shape", np.int32([-1, *shape]))], target, options)

    def integer(self, op: Op) -> bool:
        """Whether an operation is computed in integers."""
        return op.name in self.scheme.integer

    def result(self, op: Op, integer: bool, name: str | None = None, shape: tuple[int, ...] | None = None) -> int:
        """A tensor for what an operation gives."""
        shape = op.shape if shape is None else shape
        if integer:
            index = self.tensor(name or op.name, shape, "int8", point=self.scheme.points[op.name])
        else:
            index = self.tensor(name or op.name, shape)
        self.values[op.name, integer] = index
        return index

    def read(self, name: str, integer: bool) -> int:
        """The tensor of an operation's output, converted where it was computed in the other kind of number."""
        if (name, integer) in self.values:
            return self.values[name, integer]
        shape = self.shapes[name]
        if name == IMAGE and not integer:
            index = self.image
            if self.input_dtype != "float32":
                index = self.tensor("pixels", shape)
                self.operator("CAST", [self.image], index, schema.CastOptionsT())
        elif integer:
            index = self.tensor(f"{name}_int8", shape, "int8", point=self.scheme.points[name])
            self.operator("QUANTIZE", [self.read(name, False)], index, schema.QuantizeOptionsT())
        else:
            index = self.tensor(f"{name}_float", shape)
            self.operator("DEQUANTIZE", [self.values[name, True]], index, schema.DequantizeOptionsT(), 2)
        self.values[name, integer] = index
        return index

    def weights(self, name: str, values: np.ndarray) -> int:
        """A constant tensor of weights, stored in half precision where asked for."""
        if not self.half:
            return self.constant(name, values.astype(np.float32))
        stored = self.constant(f"{name}_half", values.astype(np.float16))
        index = self.tensor(name, values.shape, constant=True)
        self.operator("DEQUANTIZE", [stored], index, schema.DequantizeOptionsT(), 3)
        return index

    def finish(self, targets: list[int], names: list[str]) -> bytes:
        """The file's bytes."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs, graph.name = [self.image], targets, b"main"
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named(IMAGE, self.image)]
        signature.outputs = [_named(name, index) for name, index in zip(names, targets, strict=True)]
        model = schema.ModelT()
        model.version, model.description = 3, b"mobilenets"
        model.operatorCodes, model.subgraphs = list(self.codes.values()), [graph]
        model.buffers, model.signatureDefs = self.buffers, [signature]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _named(name: str, index: int) -> schema.TensorMapT:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name.encode(), index
    return made
