"""Files that are written whole or not at all."""

import io
import json
import os
import sys

import pytest

from mobilenets.display import json_out
from mobilenets.errors import UserError
from mobilenets.files import LONGEST_NAME, write_text, writing


@pytest.mark.parametrize("suffix", [".png", "." + "x" * 200])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, suffix):
    path = tmp_path / f"{'x' * (LONGEST_NAME - len(suffix))}{suffix}"
    write_text(path, "first")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_written_at_the_same_time_do_not_meet(tmp_path):
    with writing(tmp_path / "a.txt") as one, writing(tmp_path / "a.txt") as other:
        assert one != other
        assert one.parent == other.parent == tmp_path
        assert one.suffix == other.suffix == ".txt"
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.txt").read_text() == "one"


@pytest.mark.parametrize("name", ["", ".", "..", "/", "there"])
def test_a_directory_is_no_file_to_write(tmp_path, monkeypatch, name):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a directory; name a file"), writing(name):
        pytest.fail("nothing can be written there")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_sheet_for_a_directory_is_refused_in_one_line(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = cli("data", "digits", "--sheet", ".")
    assert status == 2
    assert err == "mobilenets: error: .: is a directory; name a file\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_json_whatever_can_be_printed(monkeypatch, encoding):
    value = {"name": "caf\u00e9 \U0001f600", "file": os.fsdecode(b"\xff.png")}
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding, errors="backslashreplace"))
    json_out(value)
    sys.stdout.flush()
    assert json.loads(printed.getvalue().decode(encoding)) == value
