"""Looking at every file of a folder before training: is it a whole image, and which bytes is it."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mobilenets.data import images

_BLOCK = 16  # files a task, so that a million files are not a million tasks
# A scan that took longer than this is remembered, since every verb has to look at the same folder again.
_WORTH_KEEPING = 3.0  # seconds


@dataclass(frozen=True)
class Scanned:
    """What was found in one file.

    Attributes:
        digest: SHA-256 of its bytes, hexadecimal; "" where they could not be read.
        reason: Why it cannot be used as an image; None if it can.
    """

    digest: str
    reason: str | None


def scan(root: Path, paths: Sequence[Path], progress: Callable[[int, int], None] | None = None) -> list[Scanned]:
    """Decodes every file, in parallel, to see that it is whole.

    What a long scan found is kept in the user's cache directory and used again for files whose size and time
    of change are the same.

    Args:
        root: The folder that all of them lie in.
        paths: The files.
        progress: Called with (files done, files in all) now and then.

    Returns:
        One result per file, in the order of ``paths``.
    """
    begun = time.time()
    memory = _memory_of(root)
    known = _recall(memory)
    names = [str(path.relative_to(root)) for path in paths]
    stamps = [_stamp(path) for path in paths]
    results: list[Scanned | None] = [None] * len(paths)
    for index, (name, stamp) in enumerate(zip(names, stamps, strict=True)):
        entry = known.get(name)
        if stamp is not None and entry is not None and entry[:2] == stamp:
            results[index] = Scanned(entry[2], entry[3])

    fresh = [index for index, result in enumerate(results) if result is None]
    blocks = [fresh[at : at + _BLOCK] for at in range(0, len(fresh), _BLOCK)]
    done = len(paths) - len(fresh)
    pool = ThreadPoolExecutor(threads())
    try:
        for block, found in zip(
            blocks, pool.map(lambda block: [_look(paths[index]) for index in block], blocks), strict=True
        ):
            for index, result in zip(block, found, strict=True):
                results[index] = result
            done += len(block)
            if progress:
                progress(done, len(paths))
    finally:
        pool.shutdown(cancel_futures=True)

    if memory is not None and time.time() - begun > _WORTH_KEEPING:
        entries = {
            name: [*stamp, result.digest, result.reason]
            for name, stamp, result in zip(names, stamps, results, strict=True)
            # A file changed just now may change again within one tick of the file system's clock.
            if stamp is not None
            and result.digest
            and stamp[1] < (begun - 2) * 1e9
            # Want of memory is the machine's verdict of that moment, not the file's.
            and not (result.reason or "").startswith("not enough memory")
        }
        _remember(memory, entries)
    return results


def threads() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _look(path: Path) -> Scanned:
    digest = ""
    try:
        data = images.read(path)
        digest = hashlib.sha256(data).hexdigest()
        images.verify(data)
    except images.ImageError as error:
        return Scanned(digest, str(error))
    return Scanned(digest, None)


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _memory_of(root: Path) -> Path | None:
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        return None
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:20]
    return Path(base) / "mobilenets" / f"scan-{name}.json"


def _version() -> str:
    """What a verdict depends on besides the file: this code and the decoder."""
    import PIL

    return f"1 Pillow {PIL.__version__}"


def _recall(memory: Path | None) -> dict[str, list]:
    if memory is None:
        return {}
    try:
        content = json.loads(memory.read_text())
        return content["files"] if content["version"] == _version() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remember(memory: Path, entries: dict[str, list]) -> None:
    # It only saves time: a read-only home or a full disk is no reason to stop.
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_name(f"{memory.name}.{os.getpid()}.part")
        try:
            temporary.write_text(json.dumps({"version": _version(), "files": entries}))
            temporary.replace(memory)
        finally:
            temporary.unlink(missing_ok=True)
