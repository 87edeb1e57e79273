"""A file in a process of its own: what crashes there harms nobody, and its memory is its own.

The parent sends a line of JSON, and the bytes of an array behind it where there is one; so does the child answer.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobilenets.errors import UserError

PATIENCE = 600  # seconds for an answer; a batch of the slowest network takes some


class Worker:
    """A file loaded in another process; a context manager, and a callable like `Runner`.

    Args:
        path: the file.
        runtime: see `mobilenets.deployment.runtimes.load`.
        threads: None takes every core.

    Attributes:
        about: ``runtime``, ``input_shape``, ``input_dtype``, ``batch``, ``threads`` and ``load_seconds``.

    Raises:
        UserError: the file cannot be loaded, or its runtime ends the process.
    """

    def __init__(self, path: Path | str, runtime: str | None = None, threads: int | None = None) -> None:
        self.path = Path(path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # -P: nothing is imported from the working directory, which may be anybody's.
        command = [sys.executable, "-P", "-m", "mobilenets.deployment.worker"]
        command += [str(path), runtime or "", str(threads or 0)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=_environment()
        )
        try:
            self.about, _ = self._receive()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Runs any number of images (batch, height, width, channels), uint8; returns (batch, …), as `Runner` does."""
        return self._ask({"do": "run"}, images)[1]

    def times(self, batch: int, seconds: float) -> list[float]:
        """Milliseconds of each call with ``batch`` images, over and over until ``seconds`` have passed."""
        return self._ask({"do": "time", "batch": batch, "seconds": seconds})[0]["times"]

    def memory(self) -> dict[str, int | None]:
        """``peak`` of the process so far, and ``before`` the file was loaded, in bytes of physical memory."""
        return self._ask({"do": "memory"})[0]

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _ask(self, request: dict[str, Any], array: np.ndarray | None = None) -> tuple[dict[str, Any], Any]:
        with suppress(OSError):  # it has ended; reading tells how
            _send(self._process.stdin, request, array)
        return self._receive()

    def _receive(self) -> tuple[dict[str, Any], Any]:
        ended = threading.Event()  # by us

        def end() -> None:
            ended.set()
            self._process.kill()

        watch = threading.Timer(PATIENCE, end)
        watch.start()
        try:
            answer, array = _read(self._process.stdout)
        except (EOFError, ValueError):
            code = self._process.wait()
            if ended.is_set():
                raise UserError(f"{self.path}: its runtime gave no answer for {PATIENCE:g} seconds") from None
            how = f"by signal {-code}" if code < 0 else f"with status {code}"
            raise UserError(f"{self.path}: the process that ran it ended {how}{self._last_words()}") from None
        finally:
            watch.cancel()
        if "error" in answer:
            raise UserError(answer["error"])
        return answer, array

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1].strip()[:200]})" if lines else ""


def added(memory: dict[str, int | None]) -> int | None:
    """Bytes that loading and running a file took, of `Worker.memory`; None where the system does not tell."""
    return None if memory["peak"] is None or memory["before"] is None else memory["peak"] - memory["before"]


def _environment() -> dict[str, str]:
    # Threads that spin while they wait for work would take it from the process that feeds them.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_WAIT_POLICY": "passive"}
    # So says `mobilenets.models`, for training. Exported files run as TensorFlow by itself would run them.
    if environment.get("TF_ENABLE_ONEDNN_OPTS") == "true":
        del environment["TF_ENABLE_ONEDNN_OPTS"]
    return environment


def _send(stream: BinaryIO, message: dict[str, Any], array: np.ndarray | None = None) -> None:
    if array is not None:
        message = message | {"shape": array.shape, "dtype": array.dtype.name}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(np.ascontiguousarray(array).data.cast("B"))
    stream.flush()


def _read(stream: BinaryIO) -> tuple[dict[str, Any], np.ndarray | None]:
    line = stream.readline()
    if not line:
        raise EOFError
    message = json.loads(line)
    if "shape" not in message:
        return message, None
    dtype = np.dtype(message["dtype"])
    content = bytearray(int(np.prod(message["shape"])) * dtype.itemsize)
    view, got = memoryview(content), 0
    while got < len(content):
        count = stream.readinto(view[got:])
        if not count:
            raise EOFError
        got += count
    return message, np.frombuffer(content, dtype).reshape(message["shape"])


# -- the child ------------------------------------------------------------------------------------------------------


def main(path: str, runtime: str, threads: str) -> None:
    """Answers until its input ends."""
    # Whatever a runtime prints goes to the errors; answers alone go out.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from mobilenets.deployment.runtimes import RUNTIMES, load, require, runtime_of

    try:
        runtime = runtime or runtime_of(path)
        if runtime in RUNTIMES:
            require(RUNTIMES[runtime].package)
        before = _memory("VmRSS")
        began = time.perf_counter()
        runner = load(path, runtime, int(threads) or None)
        seconds = time.perf_counter() - began
    except UserError as error:
        _send(answers, {"error": str(error)})
        return
    about = {name: getattr(runner, name) for name in ("runtime", "input_shape", "input_dtype", "batch", "threads")}
    _send(answers, about | {"load_seconds": seconds})
    while True:
        try:
            request, images = _read(sys.stdin.buffer)
        except EOFError:
            return
        try:
            if request["do"] == "run":
                _send(answers, {}, runner(images))
            elif request["do"] == "time":
                _send(answers, {"times": _time(runner, request["batch"], request["seconds"])})
            else:
                _send(answers, {"before": before, "peak": _memory("VmHWM")})
        except UserError as error:
            _send(answers, {"error": str(error)})
        except Exception as error:  # each runtime has its own
            _send(answers, {"error": f"{path}: {RUNTIMES[runtime].title} failed ({str(error).splitlines()[0][:200]})"})


def _time(runner: Any, batch: int, seconds: float) -> list[float]:
    images = np.random.default_rng(0).integers(0, 256, (batch, *runner.input_shape), np.uint8)
    images = images.astype(runner.input_dtype)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        runner(images)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def _memory(field: str) -> int | None:
    """Bytes of physical memory, now (VmRSS) or at most (VmHWM); None where the system does not tell."""
    with suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
