"""Shared by all tests."""

import os

# Before anything imports Keras: two threads' worth of logging belongs to no test's output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


@pytest.fixture
def cli(capsys, monkeypatch):
    """Runs the command line in this process: ``cli("info", "v1") -> (status, stdout, stderr)``."""
    import sys

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
