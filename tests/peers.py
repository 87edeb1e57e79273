"""timm, for comparisons, also where torchvision cannot be imported."""

import importlib.util
import sys
import types
from unittest import mock

import pytest


def import_timm():
    """Imports timm; skips the test where it or PyTorch is missing.

    Its networks need nothing of torchvision, but importing it does, and torchvision's wheels do not load with every
    build of PyTorch; stand-ins take its place there.
    """
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if "timm" not in sys.modules:
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):
            _stand_in()
    import timm

    return timm


class _Anything(types.ModuleType):
    """A package that holds whatever it is asked for."""

    __path__: tuple = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return mock.MagicMock(name=name)


def _stand_in() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name in (
        "",
        ".datasets",
        ".io",
        ".models",
        ".models.feature_extraction",
        ".ops",
        ".ops.misc",
        ".transforms",
        ".transforms.functional",
        ".transforms.v2",
        ".transforms.v2.functional",
        ".utils",
    ):
        sys.modules[f"torchvision{name}"] = _Anything(f"torchvision{name}")
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
