"""What `mobilenets predict` writes: under which names, and never over what is not its own."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from exported import one_line
from mobilenets.deployment import find, pictures, segment, segment_video
from mobilenets.deployment.artifacts import Artifact
from mobilenets.errors import UserError
from test_segment import picture, trained  # noqa: F401, a fixture

NO_TEXT = os.fsdecode(b"photo\xff")


def photo(path: Path) -> Path:
    """A photo; whatever its name, which OpenCV could not write."""
    image, _ = picture(np.random.default_rng(7), 96, 80, 4)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_originals_behind_links_are_not_written_over(trained, cli, tmp_path):  # noqa: F811
    photo(tmp_path / "store/a.png")
    (tmp_path / "album").mkdir()
    (tmp_path / "album/a.png").symlink_to("../store/a.png")
    before = contents(tmp_path)
    one_line(cli("predict", trained, tmp_path / "album", "--out", tmp_path / "store"), "images are read from there")
    assert contents(tmp_path) == before


def test_what_a_link_leads_to_is_not_written_over(tmp_path):
    """Even if it is a picture of another call."""
    link = tmp_path / "album/x.png"
    link.parent.mkdir()
    link.symlink_to(photo(tmp_path / "here/photo_cut_out.png"))
    files = [tmp_path / "photo.jpg", link]
    assert segment._names(files, tmp_path / "here", ["_cut_out"]) == ["photo_1", "x"]


@pytest.mark.parametrize("name", ["photo.png", "photo_mask.png", "photo_cut_out.png"])
def test_only_pictures_of_another_call_are_written_over(trained, cli, tmp_path, monkeypatch, name):  # noqa: F811
    photo(tmp_path / "camera/photo.png")
    photo(tmp_path / "here" / name)
    monkeypatch.chdir(tmp_path / "here")
    words = ("predict", trained, "../camera", "--cut-out", "--out")
    before = contents(tmp_path)
    one_line(cli(*words, "."), f"error: {name}: is there already, and not from predict", "--out")
    assert contents(tmp_path) == before
    for _ in range(2):
        status, _, err = cli(*words, "found")
        assert status == 0, err
    assert sorted(path.name for path in Path("found").iterdir()) == ["photo.png", "photo_cut_out.png", "photo_mask.png"]


def test_a_cut_out_takes_no_file_of_the_working_directory(trained, cli, tmp_path, monkeypatch):  # noqa: F811
    photo(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        status, _, err = cli("predict", trained, "photo.png", "--cut-out")
        assert status == 0, err
    photo(tmp_path / "photo_cut_out.png")
    before = contents(tmp_path)
    one_line(cli("predict", trained, "photo.png", "--cut-out"), "photo_cut_out.png: is there already", "--out")
    assert contents(tmp_path) == before


def test_what_stands_in_the_way_need_not_be_a_file(tmp_path):
    own = Path(pictures.write(np.zeros((8, 8, 3), np.uint8), tmp_path / "own.png"))
    pictures.require_own([own, tmp_path / "none.png"])
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("none.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("folder", "dangling", "pipe"):
        with pytest.raises(UserError, match=f"{name}.png: is there already"):
            pictures.require_own([tmp_path / f"{name}.png"])


def test_numbered_pictures_are_not_written_over_others(tmp_path):
    files = [Path("x/street.jpg"), Path("y/house.jpg")]
    pictures.require_own_numbered(tmp_path / "none", files)
    pictures.write(np.zeros((8, 8, 3), np.uint8), tmp_path / pictures.numbered(files[0], 0))
    for other in ("0002_street.png", "0001_tree.png", "notes.txt"):  # which no picture will be called
        (tmp_path / other).write_text("")
    pictures.require_own_numbered(tmp_path, files)
    (tmp_path / "0000_house.png").write_text("")  # if the first cannot be read, the second is the first
    with pytest.raises(UserError, match="0000_house.png: is there already"):
        pictures.require_own_numbered(tmp_path, files)


def test_a_detector_writes_over_its_own_pictures_alone(tmp_path, monkeypatch):
    """With a network that finds nothing, so that none need be trained."""

    @contextmanager
    def loaded(*_):
        yield [lambda images: np.tile(np.float32([0, 0, 0, 0, 0, -1]), (len(images), 5, 1))], 64, 4

    files = [photo(tmp_path / "x" / f"{'ä' * 125}.png"), photo(tmp_path / "x/street.png")]
    monkeypatch.setattr(find, "loaded", loaded)
    monkeypatch.setattr(find, "model_and_images", lambda *_: (Artifact(Path("m.tflite"), "litert", ["car"]), files))
    for _ in range(2):
        written = [Path(each["picture"]) for each in find.find_objects("m.tflite", [], tmp_path / "out")["images"]]
        assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert [path.name[:8] for path in written] == ["0000_äää", "0001_str"]
    photo(written[1])
    before = contents(tmp_path)
    with pytest.raises(UserError, match="0001_street.png: is there already, and not from predict"):
        find.find_objects("m.tflite", [], tmp_path / "out")
    assert contents(tmp_path) == before


def test_names_are_cut_where_a_picture_has_a_longer_one(trained, cli, tmp_path):  # noqa: F811
    for end in ("a", "b"):
        photo(tmp_path / "long" / f"{'ä' * 125}{end}.png")  # 255 bytes
    words = ("predict", trained, tmp_path / "long", "--cut-out", "--json", "--out", tmp_path / "found")
    status, out, err = cli(*words)
    assert status == 0, err
    written = {Path(entry[key]) for entry in json.loads(out)["images"] for key in ("picture", "mask", "cut_out")}
    assert written == set((tmp_path / "found").iterdir())
    assert len(written) == 6
    for path in written:
        assert path.name.startswith("ä" * 110)
        assert len(os.fsencode(path.name)) <= 255


def test_a_name_is_cut_between_characters():
    assert pictures.fitting("ä" * 100, ".png") == "ä" * 100
    assert pictures.fitting("ä" * 127, ".png") == "ä" * 125  # of 251 bytes, the last is half a letter
    assert pictures.fitting(os.fsdecode(b"\xff") * 255, "_mask.png") == os.fsdecode(b"\xff") * 246
    name = pictures.numbered(Path("x" * 251 + ".jpg"), 12)
    assert len(name) <= 255
    assert name.startswith("0012_xxx")


def test_a_name_that_is_no_text_loses_nothing(trained, cli, tmp_path):  # noqa: F811
    path = photo(tmp_path / f"{NO_TEXT}.png")
    words = ("predict", trained, path, "--out", tmp_path / "found")
    status, out, err = cli(*words, "--json")
    assert status == 0, err
    (entry,) = json.loads(out)["images"]
    assert entry["file"] == str(path)
    assert Path(entry["mask"]).is_file()
    status, out, err = cli(*words)
    assert status == 0, err
    assert "photo\\udcff" in out


def test_a_video_whose_name_is_no_text_is_refused(trained, cli, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / f"{NO_TEXT}.avi").write_bytes(b"RIFF")
    # It would end the process of the tests.
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: pytest.fail("OpenCV does not survive this name"))
    with pytest.raises(UserError, match="photo\ufffd.avi: this name is no UTF-8"):
        segment_video._opened(tmp_path / f"{NO_TEXT}.avi")
    one_line(cli("predict", trained, tmp_path / f"{NO_TEXT}.avi", "--cut-out"), "must be renamed")


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.full((1, 64, 64), 3, np.uint8), "not maps of 3 classes"),
        (np.full((1, 64, 64, 3), np.nan, np.float32), "no probabilities"),
    ],
)
def test_what_is_no_map_of_the_classes_is_refused(trained, cli, tmp_path, monkeypatch, given, told, tiles):  # noqa: F811
    @contextmanager
    def loaded(*_):
        yield [lambda images: given.repeat(len(images), axis=0)], 64, 4

    monkeypatch.setattr(segment, "loaded", loaded)
    one_line(cli("predict", trained, photo(tmp_path / "photo.png"), *["--tiles"] * tiles), told)
