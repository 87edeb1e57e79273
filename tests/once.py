"""What takes long to make, and is made once for all processes of a run of the tests."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 240  # seconds that a process waits for what another one makes


def once(directory: Path, make: Callable[[Path], None]) -> Path:
    """A directory that ``make`` fills, for whichever process asks first; others wait until it is there.

    Args:
        directory: where; what is made stands under its own name from the beginning.
        make: fills the empty directory.
    """
    done, began = directory.with_name(f"{directory.name}.done"), time.monotonic()
    try:
        directory.mkdir()
    except FileExistsError:
        while not done.is_file():
            assert time.monotonic() - began < PATIENCE, f"another process could not make {directory.name}"
            time.sleep(0.1)
        assert done.read_text() == "made", f"{directory.name} could not be made: {done.read_text()}"
        return directory
    said = "made"
    try:
        make(directory)
    except BaseException as error:
        said = repr(error)
        raise
    finally:
        written = done.with_suffix(".part")
        written.write_text(said)
        written.replace(done)  # at once, so that nobody reads half of it
    return directory
