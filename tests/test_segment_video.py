"""Videos whose background is cut out."""

import json
import shutil

import cv2
import numpy as np
import pytest

from exported import one_line
from test_segment import picture, trained  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of ten frames, and the masks of what it shows."""
    path, rng = tmp_path_factory.mktemp("videos") / "clip.avi", np.random.default_rng(5)
    frames = [picture(rng, 96, 80, 4) for _ in range(10)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (96, 80))
    assert writer.isOpened()
    for image, _ in frames:
        writer.write(image[..., ::-1])
    writer.release()
    return path, frames


def test_the_background_of_each_frame_is_cut_out(trained, clip, cli, tmp_path):  # noqa: F811
    path, frames = clip
    status, text, err = cli("predict", trained, path, "--cut-out", "--out", tmp_path / "out", "--json")
    assert status == 0, err
    (video,) = json.loads(text)["videos"]
    assert (video["frames"], video["width"], video["height"], video["frames_per_second"]) == (10, 96, 80, 12)
    folder = tmp_path / "out/clip_cut_out"
    assert video["cut_out"] == str(folder)
    names = sorted(found.name for found in folder.iterdir())
    assert names == [f"{number:06}.png" for number in range(1, 11)]
    for name, (image, mask) in zip(names, frames, strict=True):
        cut = cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED)
        assert cut.shape == (80, 96, 4)
        assert cut[mask > 0, 3].mean() > 128 > cut[mask == 0, 3].mean()
        discs = np.abs(cut[mask > 0, 2::-1].astype(int) - image[mask > 0]).mean()
        assert discs < 30  # JPEG's colours, and no other frame's
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["clip_cut_out"]
    one_line(cli("predict", trained, path, "--cut-out", "--out", tmp_path / "out"), "is there already", "--out")


def test_the_longest_name_of_a_video_is_cut(trained, clip, cli, tmp_path):  # noqa: F811
    path = shutil.copy(clip[0], tmp_path / f"{'ä' * 125}.avi")
    status, text, err = cli("predict", trained, path, "--cut-out", "--out", tmp_path / "out", "--json")
    assert status == 0, err
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == f"{'ä' * 123}_cut_out"
    assert json.loads(text)["videos"][0]["cut_out"] == str(folder)
    assert len(list(folder.iterdir())) == 10


def test_what_is_wrong_with_a_video_is_one_line(trained, clip, cli, tmp_path):  # noqa: F811
    path, _ = clip
    one_line(cli("predict", trained, path), "--cut-out")
    one_line(cli("predict", trained, path, "--cut-out", "--tiles"), "no --tiles")
    one_line(cli("predict", trained, path, tmp_path / "a.png", "--cut-out"), "videos and images")
    one_line(cli("predict", trained, tmp_path / "none.mp4", "--cut-out"), "none.mp4: no such file")
    one_line(cli("predict", trained, path, path, "--cut-out", "--out", tmp_path / "two"), "of two videos", "--out")
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(path.read_bytes()[:40])
    one_line(cli("predict", trained, damaged, "--cut-out", "--out", tmp_path / "out"), "damaged.avi")
    assert not (tmp_path / "out").exists()


def test_a_list_of_addresses_is_no_video(trained, clip, cli, tmp_path):  # noqa: F811
    path, _ = clip
    listed = tmp_path / "listed.mp4"
    listed.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n")
    one_line(cli("predict", trained, listed, "--cut-out", "--out", tmp_path / "out"), "listed.mp4: no video")
    joined = tmp_path / "joined.mp4"
    joined.write_text(f"ffconcat version 1.0\nfile {path}\n")
    one_line(cli("predict", trained, joined, "--cut-out", "--out", tmp_path / "out"), "joined.mp4: no video")
    assert not (tmp_path / "out").exists()
