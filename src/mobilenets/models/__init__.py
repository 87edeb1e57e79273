"""Tables -> Keras models, and model directories."""

import os

from mobilenets.errors import UserError
from mobilenets.quiet import quiet

try:
    with quiet():
        import keras as keras
except ModuleNotFoundError as error:
    if error.name not in ("jax", "torch", "tensorflow"):
        raise
    backend = os.environ.get("KERAS_BACKEND", error.name)
    raise UserError(
        f"KERAS_BACKEND={backend}: {error.name} is not installed; pip install 'mobilenets[{backend}]'"
    ) from None
