"""torchvision and timm, for comparisons, with any build of PyTorch."""

import importlib
import importlib.util

import pytest

_LIBRARIES = []  # declared operators last as long as the library that holds them


def import_torchvision():
    """Imports torchvision; skips the test where it or PyTorch is missing.

    The compiled part of its wheels does not load with every build of PyTorch, and without it the import ends at two
    operators that are looked up by name. No classifier calls them, so it is enough that they are declared.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    if not _LIBRARIES and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
    return importlib.import_module("torchvision")


def import_timm():
    """Imports timm, which imports torchvision; skips the test where either is missing."""
    import_torchvision()
    return pytest.importorskip("timm", reason="timm is not installed")
