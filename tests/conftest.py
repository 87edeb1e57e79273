"""Shared by all tests."""

import json
import os
import shutil
import subprocess
import sys

# Before anything imports Keras: two threads' worth of logging belongs to no test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from exported import samples
from once import once


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the command line in this process: ``cli("info", "v1") -> (status, stdout, stderr)``."""
    from mobilenets.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mobilenets", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "140")
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A directory that all processes of a run of the tests share: what takes long is made once in it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def job(place):
    """The main job on handwritten digits, each verb in a process of its own as a user runs it.

    Gives the model directory, and what was printed: ``keras`` and ``file`` (metrics), ``artifact``, ``predictions``.
    """

    def make(directory):
        def printed(*words):
            command = [sys.executable, "-m", "mobilenets", *map(str, words), "--json"]
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""  # nothing of TensorFlow's
            return json.loads(done.stdout)

        settings = ("--alpha", 0.25, "--size", 32, "--epochs", 20, "--batch-size", 32, "--warmup", 2)
        card = printed("train", "digits", *settings, "--out", "run")
        (artifact,) = printed("export", "run")["artifacts"]
        samples(directory / "run" / "samples")
        found = printed("predict", "run", directory / "run" / "samples", "--runtime", "litert")
        known = {
            "keras": card["metrics"],
            "file": artifact["metrics"],
            "artifact": artifact,
            "predictions": found["images"],
        }
        (directory / "printed.json").write_text(json.dumps(known))

    made = once(place / "job", make)
    return made / "run", json.loads((made / "printed.json").read_text())


@pytest.fixture
def model(job, tmp_path):
    """A copy of that model directory that a test may spoil."""
    return shutil.copytree(job[0], tmp_path / "model")
