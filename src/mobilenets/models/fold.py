"""Merging what one operation can do as well as two."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mobilenets.models import keras
from mobilenets.models.operations import LINEAR, Op

Convert = Callable[[Any], Any]  # a variable, array or tensor -> what the graph holds


def fold(ops: list[Op], array: Convert) -> list[Op]:
    """Merges what one operation can do as well as two."""
    folded: dict[str, Op] = {}
    renamed: dict[str, str] = {}  # an operation that was merged -> the one that it became part of
    readers: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    for op in ops:
        op = replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        before = folded.get(op.inputs[0])
        # What others read as well must stay as it is.
        alone = before is not None and readers[_last(renamed, before.name)] == 1
        merged = _merge(before, op) if alone else None
        if merged is None:
            folded[op.name] = op
            continue
        if merged.name == op.name:  # the one before is gone with its name
            del folded[before.name]
            folded[op.name] = merged
            continue
        folded[before.name] = merged
        renamed[op.name] = before.name
    return _fold_scales(list(folded.values()), array)


def _fold_scales(ops: list[Op], array: Convert) -> list[Op]:
    """Moves factors of channels into the convolution that reads them, and those of attention into its queries."""
    found = {op.name: op for op in ops}
    readers = [name for op in ops for name in op.inputs]
    for op in ops:
        before = found.get(op.inputs[0])
        if before is None or readers.count(before.name) > 1:
            continue
        if op.kind in ("conv", "depthwise") and before.kind == "affine" and before.activation is None:
            factors = array(before.kernel)
            kernel = _as_computed(op.kernel) * (factors[:, None] if op.kind == "conv" else factors)
            found[op.name] = replace(op, kernel=kernel)
            # The rest stays before the convolution, whose padding must be zeros after it, not before.
            found[before.name] = replace(before, kernel=None, bias=before.bias / before.kernel)
        if op.kind == "attention" and before.kind == "conv" and before.activation is None:
            scale = (before.shape[-1] / op.heads) ** -0.5
            found[before.name] = replace(before, kernel=before.kernel * scale, bias=before.bias * scale)
    return list(found.values())


def _as_computed(kernel: Any) -> Any:
    """The same kernel; a compiled graph shall not multiply the constants on its two sides first and round otherwise."""
    return kernel if isinstance(kernel, np.ndarray) else keras.ops.minimum(kernel, np.inf)


def _last(renamed: dict[str, str], name: str) -> str:
    """The operation merged last into ``name``: it is the one whose output others read."""
    return next((merged for merged in reversed(renamed) if renamed[merged] == name), name)


def _merge(before: Op, op: Op) -> Op | None:
    """One operation that does what the two do, or None."""
    linear = before.kind in LINEAR and before.activation is None
    if op.kind == "affine" and linear:
        return replace(before, kernel=before.kernel * op.kernel, bias=before.bias * op.kernel + op.bias)
    if op.kind == "activation" and before.activation is None and before.kind in (*LINEAR, "add", "affine"):
        return replace(before, activation=op.activation)
    if op.kind in ("conv", "depthwise") and before.kind == "pad" and not any(op.margins):
        return replace(op, inputs=before.inputs, margins=before.margins)
    return None
