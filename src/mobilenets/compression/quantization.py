"""What a card says of how its model is computed in int8, where it was trained for that."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mobilenets.card import CARD
from mobilenets.compression.scheme import ENDING, WEIGHT_BITS, Ranges, Scheme, is_bytes, make_scheme
from mobilenets.errors import UserError
from mobilenets.models.operations import Graph

KEY = "quantization"  # in the card


@dataclass(frozen=True)
class Quantization:
    """Ranges that belong to a model's weights.

    Attributes:
        method: ``qat``, trained together with the weights; otherwise how they were calibrated.
        ranges: operation of `integer_form` of the model's graph -> least and greatest value of its output.
        floats: operations that are computed in float32.
        weight_bits: of `mobilenets.compression.scheme.make_scheme`.
        metrics: of the model as it is computed in integers, simulated in Keras.
    """

    method: str
    ranges: Ranges
    floats: Sequence[str] = ()
    weight_bits: int = 8
    metrics: dict[str, Any] = field(default_factory=dict)

    def scheme(self, graph: Graph) -> Scheme:
        """How a graph is computed in integers; of `integer_form` or, for OpenVINO, `whole_mean`.

        Raises:
            UserError: there is no range for one of its operations.
        """
        found: Ranges = {}
        for op in graph.ops:
            # Where the activation has not been taken apart, its range is that of the whole.
            names = (f"{op.name}_{op.activation}", op.name)
            name = next((name for name in names if name in self.ranges), None)
            if name is None and op.kind not in ENDING and not is_bytes(op):
                raise UserError(f"{CARD}: {KEY} has no range for {op.name!r}; it belongs to another model")
            if name:
                found[op.name] = self.ranges[name]
        return make_scheme(graph, found, self.floats, self.weight_bits)

    def asdict(self) -> dict[str, Any]:
        """The entry of the card."""
        return asdict(self) | {"ranges": {name: list(limits) for name, limits in self.ranges.items()}}


def read_quantization(card: dict[str, Any], directory: Path) -> Quantization | None:
    """What a card says of it; None where the model was not trained for int8.

    Raises:
        UserError: the card says nonsense.
    """
    entry = card.get(KEY)
    if entry is None:
        return None
    try:
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in entry["ranges"].items()}
        good = all(math.isfinite(low) and math.isfinite(high) and low <= high for low, high in ranges.values())
        floats, bits = entry.get("floats", []), entry.get("weight_bits", 8)
        good &= isinstance(floats, list) and all(isinstance(name, str) for name in floats) and bits in (*WEIGHT_BITS, 7)
        good &= isinstance(entry["method"], str) and isinstance(entry.get("metrics", {}), dict)
    except (TypeError, ValueError, KeyError, AttributeError):
        good = False
    if not good:
        raise UserError(f"{directory / CARD}: damaged, {KEY} must hold the ranges that the model was trained with")
    return Quantization(entry["method"], ranges, tuple(floats), bits, entry.get("metrics", {}))
