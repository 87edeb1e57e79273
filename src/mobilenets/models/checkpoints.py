"""Reading other programs' weight files into plain arrays. The files are not trusted: nothing in them is run."""

import zipfile
from pathlib import Path

import keras
import numpy as np

from mobilenets.architectures import Network
from mobilenets.errors import UserError
from mobilenets.models.saving import LARGEST_MODEL, load_model

Tensors = dict[str, np.ndarray]

LARGEST_HEAD = 100_000  # classes; a damaged file may name a number that no memory holds
# Where training programs put the weights among other things; the averaged ones are the ones they evaluate.
_WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model")
APPLICATIONS = {
    "v1": ("MobileNet", {}),
    "v2": ("MobileNetV2", {}),
    "v3_large": ("MobileNetV3Large", {}),
    "v3_small": ("MobileNetV3Small", {}),
    "v3_large_minimalistic": ("MobileNetV3Large", {"minimalistic": True}),
    "v3_small_minimalistic": ("MobileNetV3Small", {"minimalistic": True}),
}


def read(path: Path | str, network: Network, width_multiplier: float) -> Tensors:
    """Reads a ``.pth``, ``.pt``, ``.safetensors``, ``.keras`` or ``.h5`` file.

    Args:
        path: the file.
        network: that it holds; only ``.h5``, which does not describe itself, needs to know.
        width_multiplier: likewise.

    Returns:
        Arrays by the names that the program gave them; of Keras' files, ``layer/variable``.

    Raises:
        UserError: the file is missing, too large, damaged, of another kind, or needs a package that is missing.
    """
    path = Path(path)
    readers = {
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
        ".keras": _read_keras,
        ".h5": lambda path: _read_h5(path, network, width_multiplier),
    }
    if path.suffix not in readers:
        raise UserError(f"{path}: weights must be one of {', '.join(readers)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size > LARGEST_MODEL:
        raise UserError(f"{path}: {path.stat().st_size >> 20} MiB, more than any network of the family; not opened")
    tensors = readers[path.suffix](path)
    broken = next((name for name, value in tensors.items() if not np.isfinite(value).all()), None)
    if broken:
        raise UserError(f"{path}: {broken!r} holds values that are not numbers")
    return tensors


def _read_torch(path: Path) -> Tensors:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: reading it needs PyTorch; install mobilenets[torch], or use .safetensors") from None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST_MODEL:
                    raise UserError(f"{path}: unpacks to more than any network of the family; not opened")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # its unpickler raises whatever it stumbles over, and refuses anything but tensors
        raise UserError(f"{path}: not a file of weights alone ({_first_line(error)})") from None
    for name in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: holds no dictionary of tensors; save `model.state_dict()`")
    # A view may repeat a number of the file as often as it likes.
    if 4 * sum(value.numel() for value in content.values()) > LARGEST_MODEL:
        raise UserError(f"{path}: unpacks to more than any network of the family; not opened")
    try:
        return {
            str(name).removeprefix("module."): value.detach().to(torch.float32).numpy()
            for name, value in content.items()
            if not str(name).endswith("num_batches_tracked")
        }
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: holds tensors that are no plain arrays ({_first_line(error)})") from None


def _read_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        content = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged or not a safetensors file ({_first_line(error)})") from None
    return {
        name: value.astype(np.float32) for name, value in content.items() if not name.endswith("num_batches_tracked")
    }


def _read_keras(path: Path) -> Tensors:
    return tensors_of(load_model(path))


def _read_h5(path: Path, network: Network, width_multiplier: float) -> Tensors:
    """Reads what `keras.applications` publishes: weights alone, in the order of the model that wrote them."""
    if network.name not in APPLICATIONS:
        raise UserError(f"{path}: keras.applications has no {network.title}; its weights come as .pth or .safetensors")
    function, options = APPLICATIONS[network.name]
    classes = _classes_in(path)
    try:
        model = getattr(keras.applications, function)(
            input_shape=(224, 224, 3), alpha=width_multiplier, weights=None, classes=classes, **options
        )
        model.load_weights(path)
    except Exception as error:
        raise UserError(
            f"{path}: not the weights of keras.applications.{function} at alpha {width_multiplier:g} with its head "
            f"({_first_line(error)})"
        ) from None
    return tensors_of(model)


def _classes_in(path: Path) -> int:
    """How many classes an HDF5 file of weights tells apart: the size of the last bias; 1000 where it does not say."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = [name.decode() if isinstance(name, bytes) else name for name in file.attrs.get("layer_names", [])]
            for layer in reversed(names):
                weights = [w.decode() if isinstance(w, bytes) else w for w in file[layer].attrs["weight_names"]]
                if weights:
                    count = int(file[layer][weights[-1]].shape[-1])
                    if not 1 <= count <= LARGEST_HEAD:
                        raise ValueError(f"{count} classes")
                    return count
    except (OSError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise UserError(f"{path}: damaged or not an HDF5 file of weights ({_first_line(error)})") from None
    return 1000


def tensors_of(model: keras.Model) -> Tensors:
    """A Keras model's weights as `read` gives those of a file."""
    tensors = {}
    for layer in model.layers:
        variables = ("gamma", "beta", "moving_mean", "moving_variance") if len(layer.weights) == 4 else _PLAIN
        for variable, weight in zip(variables, layer.weights, strict=False):
            tensors[f"{layer.name}/{variable}"] = keras.ops.convert_to_numpy(weight)
    return tensors


_PLAIN = ("kernel", "bias")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
