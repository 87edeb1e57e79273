"""Tables -> Keras models, and model directories."""

from mobilenets.errors import UserError
from mobilenets.quiet import quiet

try:
    with quiet():
        import keras as keras
except ModuleNotFoundError as error:
    if error.name not in ("jax", "torch"):
        raise
    raise UserError(f"Keras' backend, {error.name}, is not installed; pip install 'mobilenets[{error.name}]'") from None
