"""Shared by all tests."""

import json
import os
import shutil
import subprocess
import sys

# Before anything imports Keras: two threads' worth of logging belongs to no test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

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
def demo(place):
    """What `mobilenets demo --json` prints, in a process of its own as a user runs it, and where."""

    def make(directory):
        done = subprocess.run(
            [sys.executable, "-m", "mobilenets", "demo", "--json"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # nothing of TensorFlow's
        (directory / "printed.json").write_text(done.stdout)

    made = once(place / "demo", make)
    return made / "runs" / "demo", json.loads((made / "printed.json").read_text())


@pytest.fixture
def model(demo, tmp_path):
    """A copy of the demo's model directory that a test may spoil."""
    return shutil.copytree(demo[0], tmp_path / "model")
