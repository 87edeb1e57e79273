"""Into how many pieces XNNPACK cuts a LiteRT file: between them values go back and forth."""

from pathlib import Path

from mobilenets.quiet import quiet


def partitions(path: Path | str) -> int | None:
    """Pieces of a ``.tflite`` file that XNNPACK computes; None where this version of LiteRT does not tell."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
    details = getattr(interpreter, "_get_ops_details", None)  # the only place that tells
    return None if details is None else sum(entry["op_name"] == "DELEGATE" for entry in details())
