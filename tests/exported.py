"""A small model with all its files, made once for every test that spoils a copy of them."""

import functools
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.architectures import NETWORKS, V1
from mobilenets.data import load
from mobilenets.deployment.latency import summary
from mobilenets.deployment.targets import PRECISIONS, TARGETS
from mobilenets.deployment.worker import Worker
from once import once

HERE = [
    target for target, kind in TARGETS.items() if all(importlib.util.find_spec(package) for package in kind.packages)
]


def exported(place: Path) -> Path:
    """A model directory with a file for every target and precision that can be written here."""
    return once(place / "exported", _export)


def _export(directory: Path) -> None:
    from mobilenets.deployment import export, verify
    from mobilenets.training.classify import train
    from mobilenets.training.settings import Settings

    settings = Settings(epochs=4, batch_size=32, warmup_epochs=1)
    train(load("digits"), directory, V1, 0.25, 32, settings, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "measure_latency", short_latency)
        export.export(directory, HERE, PRECISIONS)


def elastic_run(place: Path) -> Path:
    """What ``mobilenets train digits --alpha 0.125,0.25 --size 16,32`` makes in three epochs."""

    def make(directory: Path) -> None:
        from mobilenets.training.classify import train
        from mobilenets.training.settings import Settings

        settings = Settings(epochs=3, batch_size=32)
        train(load("digits"), directory / "run", V1, [0.125, 0.25], [16, 32], settings, quiet=True)

    return once(place / "elastic", make) / "run"


def copy(place: Path, directory: Path, *files: str) -> Path:
    """A copy that a test may spoil, with those of the files in ``export/`` alone whose names begin so."""
    target = directory / "model"
    shutil.copytree(exported(place), target, ignore=shutil.ignore_patterns("export", "pictures", ".candidate*"))
    (target / "export").mkdir()
    card = card_of(target)
    kept = [entry for entry in card["artifacts"] if Path(entry["file"]).name in files]
    for name in ["export/labels.txt", *(name for entry in kept for name in entry["files"])]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(exported(place) / name, target / name)
    write_card(target, card | {"artifacts": kept})
    return target


def shortened(place: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model that a test may spoil, of a V1 with six blocks instead of 13, which is what ``v1`` then means.

    For what has to trace and train several networks: half of the layers take half of the time.
    """
    monkeypatch.setitem(NETWORKS, "v1", replace(V1, blocks=V1.blocks[:6]))

    def make(directory: Path) -> None:
        from mobilenets.training.classify import train
        from mobilenets.training.settings import Settings

        settings = Settings(epochs=6, batch_size=32, warmup_epochs=1)
        train(load("digits"), directory / "run", NETWORKS["v1"], 0.25, 32, settings, quiet=True)

    return shutil.copytree(once(place / "shortened", make) / "run", directory / "model")


def short_latency(worker: Worker, batch: int = 1) -> dict[str, Any]:
    """What `measure_latency` gives, in a hundredth of the time: these tests are not about how fast files are."""
    return summary([worker.times(batch, 0.02)]) | {"threads": worker.about["threads"]}


def quick_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `mobilenets compress` train on a quarter of the digits and hardly look at the time that files take."""
    import importlib

    from mobilenets import compress_table
    from mobilenets.deployment import verify
    from mobilenets.deployment.latency import interleaved

    module = importlib.import_module("mobilenets.training.kinds")
    whole = module.data_of

    def quarter(*arguments: Any) -> Any:
        data = whole(*arguments)
        return replace(data, train=data.train.some(320))

    monkeypatch.setattr(module, "data_of", quarter)
    monkeypatch.setattr(verify, "measure_latency", short_latency)
    monkeypatch.setattr(compress_table, "interleaved", functools.partial(interleaved, rounds=1, seconds=0.02))


def card_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "card.json").read_text())


def write_card(directory: Path, card: dict[str, Any]) -> None:
    (directory / "card.json").write_text(json.dumps(card))


def samples(folder: Path, count: int = 6) -> Path:
    """A folder of digits as PNG files."""
    from PIL import Image

    folder.mkdir(parents=True)
    for index, image in enumerate(load("digits").val.images[:: 360 // count][:count]):
        Image.fromarray(np.asarray(image)).save(folder / f"{index}.png")
    return folder


def one_line(found: tuple[int, str, str], *words: str) -> str:
    """Checks that a command failed as every mistake must; returns what it said."""
    status, out, err = found
    assert (status, out) == (2, ""), err
    assert err.count("\n") == 1, err
    assert err.startswith("mobilenets: error: ")
    for word in words:
        assert word in err
    return err
