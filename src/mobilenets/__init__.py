"""From a folder of images to a small model that is measured to fit the device it runs on.

from mobilenets import mobilenet_v1
model = mobilenet_v1(input_shape=(224, 224, 3), num_classes=10, width_multiplier=0.5)
"""

import os

__version__ = "0.1.0"

# TensorFlow's C++ prints dozens of lines that no user can act on; errors still come through as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_FAMILY = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "mobilenet_v3_large_minimalistic",
    "mobilenet_v3_small_minimalistic",
    "mobilenet_v4_conv_small",
    "mobilenet_v4_conv_medium",
    "mobilenet_v4_conv_large",
    "mobilenet_v4_hybrid_medium",
    "mobilenet_v4_hybrid_large",
)
_FROM = {
    "DeadlinePredictor": "mobilenets.selection.deadline",
    "classifier": "mobilenets.models.builder",
    "load_elastic": "mobilenets.models.elastic",
    "load_model": "mobilenets.models.saving",
    **dict.fromkeys(_FAMILY, "mobilenets.models.family"),
}
__all__ = ["__version__", *_FROM]


def __getattr__(name: str):
    # Keras takes seconds to import, and `mobilenets --help` or `info` have no use for it.
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return __all__
