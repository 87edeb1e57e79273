"""Starting from the ImageNet weights that `keras.applications` publishes."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import keras

from mobilenets.architectures import Network
from mobilenets.errors import UserError
from mobilenets.files import expanded, write_json
from mobilenets.models.checkpoints import APPLICATIONS, tensors_of
from mobilenets.models.porting import fill
from mobilenets.models.sources import SOURCES

# Widths and resolutions at which weights are published.
_WIDTHS = {
    "v1": (0.25, 0.5, 0.75, 1.0),
    "v2": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    "v3_large": (0.75, 1.0),
    "v3_small": (0.75, 1.0),
    "v3_large_minimalistic": (1.0,),
    "v3_small_minimalistic": (1.0,),
}
_SIZES = {"v1": (128, 160, 192, 224), "v2": (96, 128, 160, 192, 224)}


def imagenet_model(network: Network, width_multiplier: float, size: int) -> keras.Model:
    """Fetches a classifier of the 1000 ImageNet classes, from Keras' cache where it has been fetched before.

    Args:
        network: V1, V2 or V3, by Keras' conventions.
        width_multiplier: one of those that are published.
        size: pixels of the images; the weights of the nearest published resolution are taken.

    Raises:
        UserError: none are published for that network and width, there is no connection, or what the cache holds is
            not what was fetched.
    """
    widths = _WIDTHS.get(network.name, ())
    if width_multiplier not in widths:
        listed = ", ".join(f"{width:g}" for width in widths)
        why = f"only at --alpha {listed}" if widths else "none"
        raise UserError(
            f"--weights imagenet: keras.applications publishes {why} of {network.title}; port a file of another "
            "program with `mobilenets weights`"
        )
    published = min(_SIZES.get(network.name, (224,)), key=lambda other: (abs(other - size), -other))
    function, options = APPLICATIONS[network.name]
    try:
        source = getattr(keras.applications, function)(
            (published, published, 3), alpha=width_multiplier, weights="imagenet", **options
        )
    except Exception as error:  # urllib's, ssl's and Keras' own, among them a bare Exception
        why = " ".join(str(error).split())[:160]
        raise UserError(
            "--weights imagenet: not in Keras' cache and not to be fetched; connect to the internet, or port a file "
            f"with `mobilenets weights` ({why})"
        ) from error
    _check(source, f"{network.name}-{width_multiplier:g}-{published}")
    return fill(tensors_of(source), network, SOURCES["keras"], width_multiplier, size, "--weights imagenet")


def _check(model: keras.Model, name: str) -> None:
    """Compares weights with those of the first time they were loaded.

    Keras itself checks V3's files against a known hash, but publishes none for V1 and V2.
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    path = Path(os.environ.get("KERAS_HOME") or expanded("~/.keras")) / "models" / "mobilenets.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (ValueError, OSError):
        known = {}
    known, before = (dict(known), len(known)) if isinstance(known, dict) else ({}, 0)
    if known.setdefault(name, digest.hexdigest()) != digest.hexdigest():
        raise UserError(
            f"--weights imagenet: {name} is not what was fetched the first time; remove it from {path.parent} "
            f"(and {path.name}) to fetch it again"
        )
    if len(known) > before:
        with suppress(UserError):  # a cache that cannot be written was filled by someone else
            write_json(path, known)
