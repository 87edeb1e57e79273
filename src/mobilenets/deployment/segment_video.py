"""``mobilenets predict --cut-out`` with a video: each of its frames without the background."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.data.images import MAX_PIXELS
from mobilenets.data.masks import has_background
from mobilenets.data.names import shown
from mobilenets.data.store import stretched
from mobilenets.deployment.artifacts import check_maps
from mobilenets.deployment.pictures import fitting
from mobilenets.deployment.predict import loaded, results, to_run
from mobilenets.deployment.segment import opacity
from mobilenets.errors import UserError
from mobilenets.files import explain, temporary_beside
from mobilenets.quiet import quiet

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
TOGETHER = 64  # frames in memory at a time, at most
# What is called a video may be a list of addresses, which FFmpeg would open.
_OPTIONS = "protocol_whitelist;file|format_whitelist;avi,matroska,mov"


def is_video(path: Path | str) -> bool:
    """Whether a path has the suffix of a video."""
    return Path(path).suffix.lower() in SUFFIXES


def cut_out_videos(
    model: Path | str,
    paths: list[Path | str],
    out: Path | str | None = None,
    runtime: str = "auto",
    precision: str | None = None,
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes the frames of videos as PNG whose background is transparent, as much as the network takes it for that.

    Args:
        model: a model directory of a segmenter, or one of its exported files.
        paths: videos: .avi, .m4v, .mkv, .mov, .mp4 or .webm.
        out: where a directory ``NAME_cut_out`` of each is made; None takes the working directory. Frames are called
            ``000001.png`` and so on.
        runtime: as of `mobilenets.deployment.segment.segment_images`.
        precision: likewise.
        report: called with a video's name, and how many of how many frames are done; their number is what the file
            says.

    Returns:
        ``runtime`` and ``file``; ``videos``, each with ``file``, ``width``, ``height``, ``frames``,
        ``frames_per_second`` and ``cut_out``, the directory.

    Raises:
        UserError: the model or a video is missing, a video cannot be read, its directory is there already, or there
            is no background to cut out of.
    """
    chosen = to_run(model, runtime, precision, lambda: sum(_opened(path)[1]["frames"] for path in paths))
    if not has_background(tuple(chosen.classes)):
        raise UserError(f"--cut-out: {model} knows no background; its first class must be called so")
    folders = [Path(out or ".") / f"{fitting(Path(path).stem, '_cut_out')}_cut_out" for path in paths]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"{folder}: would be made of two videos; give them one after the other, each its --out")
        if folder.exists():
            raise UserError(f"{folder}: is there already; remove it, or choose another place with --out")
    videos = []
    with loaded(chosen, TOGETHER) as (runs, size, batch):

        def masks(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
            def read(frame: np.ndarray) -> np.ndarray:
                return stretched(frame, size, size)

            for output in results(frames, read, runs, batch):
                check_maps(chosen.path, output[None], len(chosen.classes))
                yield output

        for path, folder in zip(paths, folders, strict=True):
            capture, about = _opened(path)
            done = 0
            with _making(folder) as place:
                for frames in _frames(capture):
                    for frame, output in zip(frames, masks(frames), strict=True):
                        done += 1
                        _write(frame, opacity(output, *frame.shape[1::-1]), place / f"{done:06}.png")
                        if report:
                            report(Path(path).name, done, max(done, about["frames"]))
                if not done:
                    raise UserError(f"{path}: no frame of this video can be read")
            videos.append(about | {"frames": done, "cut_out": str(folder)})
    return {"runtime": chosen.runtime, "file": str(chosen.path), "videos": videos}


def _opened(path: Path | str) -> tuple[Any, dict[str, Any]]:
    """A video, and what it says of itself."""
    import cv2

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # OpenCV would crash the process
        raise UserError(f"{shown(str(path))}: this name is no UTF-8; a video must be renamed to be read") from None
    before = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _OPTIONS
    try:
        with quiet():  # what it prints of a file that is no video, an error says in one line
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        del os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"]
        if before is not None:
            os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = before
    if not capture.isOpened():
        raise UserError(f"{path}: no video that can be read ({', '.join(SUFFIXES)})")
    keys = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    width, height, frames = (int(capture.get(key)) for key in keys)
    if width * height > MAX_PIXELS:
        raise UserError(f"{path}: frames of {width} x {height} pixels; at most {MAX_PIXELS:,} pixels are read")
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    about = {"file": str(path), "width": width, "height": height, "frames": max(1, frames), "frames_per_second": rate}
    return capture, about


def _frames(capture: Any) -> Iterator[list[np.ndarray]]:
    """Some RGB frames at a time."""
    import cv2

    frames: list[np.ndarray] = []
    pixels = 0
    while True:
        there, frame = capture.read()
        if there:
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            pixels += frame.shape[0] * frame.shape[1]
        if frames and (not there or len(frames) == TOGETHER or pixels >= MAX_PIXELS):
            yield frames
            frames, pixels = [], 0
        if not there:
            return


@contextmanager
def _making(folder: Path) -> Iterator[Path]:
    """Yields a directory beside ``folder`` that takes its place when the block ends well, and is removed if not."""
    temporary = temporary_beside(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise explain(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(frame: np.ndarray, seen: np.ndarray, path: Path) -> None:
    import cv2

    # Little is gained by packing photographs harder, which takes most of the time.
    picture = cv2.cvtColor(np.dstack([frame, seen]), cv2.COLOR_RGBA2BGRA)
    _, encoded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(encoded.tobytes())
