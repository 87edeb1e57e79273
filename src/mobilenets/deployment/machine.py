"""What numbers were measured on: without it a latency means nothing."""

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from mobilenets import __version__
from mobilenets.card import processor

# Instructions that decide how fast convolutions are; names as Linux lists them, x86 and ARM.
FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
PACKAGES = ("ai-edge-litert", "onnxruntime", "openvino", "tensorflow", "tensorflow-cpu", "keras", "numpy")


def fingerprint() -> dict[str, Any]:
    """This machine: processor, cores that this process may use, instructions, memory in bytes, system, versions."""
    return {
        "processor": processor(),
        "cores": cores(),
        "flags": [flag for flag in FLAGS if flag in _flags()],
        "memory_bytes": _memory("MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "mobilenets": __version__,
        "versions": versions(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of the runtimes that are installed."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def free_share() -> float:
    """Share of the machine's memory that is free for new processes; 1 where the system does not tell."""
    total, free = _memory("MemTotal"), _memory("MemAvailable")
    return free / total if total and free is not None else 1.0


def _flags() -> set[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                return set(line.split(":", 1)[1].split())
    return set()


def _memory(field: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None
