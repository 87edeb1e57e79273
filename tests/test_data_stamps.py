"""The scenes of Tux Paint's stamps."""

import numpy as np
import pytest

from mobilenets.data import load, stamps
from mobilenets.errors import UserError

needs_stamps = pytest.mark.skipif(not stamps._DEBIAN.exists(), reason="tuxpaint-stamps-default is not installed")


@pytest.fixture(scope="module")
def data():
    return load("stamps")


@needs_stamps
def test_seven_balanced_classes_of_scenes(data):
    assert data.classes == ("bird", "fish", "flower", "fruit", "mammal", "roadsign", "vegetable")
    for part, count in (("train", 2100), ("val", 700)):
        split = getattr(data, part)
        assert split.images.shape == (count, 128, 128, 3)
        assert split.images.dtype == np.uint8
        assert np.bincount(split.labels).tolist() == [count // 7] * 7
    # Neither empty nor alike.
    assert data.train.images[:50].std(axis=(1, 2, 3)).min() > 10
    assert len({image.tobytes() for image in data.train.images[:200]}) == 200


@needs_stamps
def test_scenes_are_the_same_every_time(data):
    again = load("stamps")
    assert again.fingerprint == data.fingerprint
    np.testing.assert_array_equal(again.val.images, data.val.images)


@needs_stamps
def test_no_cutout_is_in_both_parts():
    total = 0
    for name in stamps.CLASSES:
        train = {cutout.name for cutout in stamps.held_out(name, False)}
        val = {cutout.name for cutout in stamps.held_out(name, True)}
        assert train
        assert val
        assert not train & val
        assert not any(word in file for file in train | val for word in ("_mirror", "_flip", "cartoon", "toys"))
        total += len(train | val)
    assert total > 190


@needs_stamps
def test_objects_lie_inside_their_scene():
    rng = np.random.default_rng(0)
    white = stamps.Cutout("white", np.full((300, 200, 4), 255, np.uint8))
    for _ in range(20):
        scene = stamps._scene(white, rng)
        # Light varies, but a white sheet stays one colour: its rows and columns are counted by that.
        values, counts = np.unique(scene.reshape(-1, 3), axis=0, return_counts=True)
        sheet = (scene == values[counts.argmax()]).all(axis=-1)
        assert 0.1 < sheet.mean() < 0.7


def test_where_they_are_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(stamps, "_DEBIAN", tmp_path)
    stamps.cutouts.cache_clear()
    with pytest.raises(UserError, match="tuxpaint-stamps-default"):
        load("stamps")
    stamps.cutouts.cache_clear()
