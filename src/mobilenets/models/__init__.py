"""Tables -> Keras models, and model directories."""

import os

from mobilenets.errors import UserError
from mobilenets.quiet import quiet

# TensorFlow has oneDNN's kernels switched on by itself where a processor has AVX-512 VNNI or the like. Older ones train
# MobileNets faster with them too (benchmarks/train_throughput.py). Whoever has said 0 or 1 keeps that.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "true")
try:
    with quiet():
        import keras as keras
except ModuleNotFoundError as error:
    if error.name not in ("jax", "torch"):
        raise
    raise UserError(f"Keras' backend, {error.name}, is not installed; pip install 'mobilenets[{error.name}]'") from None
