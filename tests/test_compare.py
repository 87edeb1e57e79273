"""``info --compare``: every network in one table."""

import csv
import json
import os
import stat
from pathlib import Path

from mobilenets.architectures import CLASSICS, FAMILY
from mobilenets.compare import published

FACTS = Path(__file__).parent / "facts"


def test_every_network_of_the_family_and_both_classics_are_there(cli):
    status, out, _ = cli("info", "--compare")
    assert status == 0
    for network in (*FAMILY, *CLASSICS):
        assert network.title.removeprefix("MobileNet ") in out
    assert "300.77 M" in out
    assert "71.8 %" in out


def test_accuracies_are_those_of_the_facts():
    ours = {(row["network"], row["width_multiplier"], row["resolution"]): row["top1"] for row in published()}
    facts = {}
    for name, column in (("v1", "top1_float"), ("v2", "top1_float")):
        for row in csv.DictReader((FACTS / f"mobilenet_{name}_imagenet.csv").open()):
            facts[name, float(row["width_multiplier"]), int(row["resolution"])] = float(row[column])
    for row in csv.DictReader((FACTS / "mobilenet_v3_v4_imagenet.csv").open()):
        name, _, alpha = row["network"].rpartition("_") if row["network"][1] == "3" else (row["network"], "", "1")
        facts[name, float(alpha), int(row["resolution"])] = float(row["top1"])
    assert facts.items() <= ours.items()
    assert all(row["source"] for row in published())


def test_json_and_plot(cli, tmp_path):
    status, out, _ = cli("info", "--compare", "--plot", tmp_path / "family.png", "--json")
    assert status == 0
    rows = json.loads(out)
    assert len(rows) > 40
    assert {"macs", "params", "peak_activation_bytes", "top1", "source"} <= set(rows[0])
    assert (tmp_path / "family.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_told_in_one_line(cli, tmp_path):
    for arguments, word in (
        (("--plot", tmp_path / "family.png"), "give both"),
        (("--compare", "--plot", tmp_path / "family.docx"), "must end in one of .png"),
        (("--compare", "--plot", "/proc/family.png"), "cannot be written"),
    ):
        status, out, err = cli("info", *arguments)
        assert (status, out) == (2, "")
        assert word in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    os.mkfifo(tmp_path / "pipe.png")  # as a device, which a file would replace for everybody
    assert "is a device or a pipe" in cli("info", "--compare", "--plot", tmp_path / "pipe.png")[2]
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)
    assert "at most 100" in cli("info", "v1", "--alpha", "1e308")[2]
