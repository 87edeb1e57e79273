"""Folders of images: every layout that is read, and every one that is refused."""

import os
import shutil
import struct
import sys
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

import folders
from mobilenets.data import ImageData, images, load, scan
from mobilenets.data.folder import find_images
from mobilenets.data.names import natural_key, shown
from mobilenets.errors import UserError

refused = partial(folders.refused, load)


def put(path: Path, height: int = 20, width: int = 30) -> Path:
    """Writes an image that no other path has."""
    seed = zlib.crc32(os.fsencode(path))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower() if path.suffix else ".png"
    path.write_bytes(cv2.imencode(suffix, pixels)[1].tobytes())
    return path


def fill(root: Path, **counts: int) -> Path:
    """Writes ``count`` images into each class: ``fill(root, cat=5)``."""
    for name, count in counts.items():
        for index in range(count):
            put(root / name / f"{index}.jpg")
    return root


def names(data: ImageData, part: str, root: Path) -> dict[str, list[str]]:
    """The files of ``part`` by class, relative to ``root``."""
    split = getattr(data, part)
    result = {name: [] for name in data.classes}
    for path, label in zip(split.images, split.labels, strict=True):
        result[data.classes[label]].append(path.relative_to(root).as_posix())
    return result


def test_one_folder_per_class(tmp_path):
    root = fill(tmp_path / "photos", cat=10, dog=5)
    data = load(root)
    assert (data.name, data.source, data.native_size, data.flip) == ("photos", str(root), None, True)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.train.labels).tolist() == [8, 4]
    assert np.bincount(data.val.labels).tolist() == [2, 1]
    assert all(path.is_absolute() and path.is_file() for path in data.train.images)
    every = [*data.train.images, *data.val.images]
    assert sorted(every) == sorted(root.rglob("*.jpg"))
    assert data.problems == data.notes == ()


def test_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch):
    fill(tmp_path / "photos", cat=2, dog=2)
    monkeypatch.chdir(tmp_path)
    data = load("photos")
    monkeypatch.chdir("/")
    assert data.source == "photos"
    assert all(path.is_file() for path in data.train.images)


@pytest.mark.parametrize("val", ["val", "validation", "valid", "test", "Val"])
def test_train_and_val(tmp_path, val):
    fill(tmp_path / "train", cat=4, dog=3)
    fill(tmp_path / val, cat=2, dog=1)
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (7, 3)
    assert all(path.is_relative_to(tmp_path / val) for path in data.val.images)
    assert bool(data.notes) == (val not in ("val", "Val"))


def test_val_comes_before_test(tmp_path):
    for part in ("train", "test", "val"):
        fill(tmp_path / part, cat=2, dog=2)
    data = load(tmp_path)
    assert all(path.is_relative_to(tmp_path / "val") for path in data.val.images)
    assert any("test/" in note for note in data.notes)


@pytest.mark.parametrize("empty", [False, True])
def test_train_alone_is_split(tmp_path, empty):
    fill(tmp_path / "train", cat=10, dog=10)
    if empty:
        (tmp_path / "val" / "cat").mkdir(parents=True)
    data = load(tmp_path)
    assert (len(data.train), len(data.val)) == (16, 4)


def test_a_class_called_train(tmp_path):
    assert load(fill(tmp_path, train=2, bus=2, val=2)).classes == ("bus", "train", "val")


def test_images_deep_inside_a_class_and_litter(tmp_path):
    fill(tmp_path, cat=2, dog=2)
    put(tmp_path / "cat" / "2024" / "spring" / "a.PNG")
    for litter in (".hidden", "__MACOSX", ".ipynb_checkpoints", "@eaDir"):
        put(tmp_path / litter / "x.jpg")
        put(tmp_path / "cat" / litter / "x.jpg")
    put(tmp_path / "cat" / "._0.jpg")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "cat" / "readme.txt").write_text("x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) == 5
    assert data.problems == data.notes == ()


def test_classes_are_in_natural_order_and_of_any_script(tmp_path):
    fill(tmp_path, **dict.fromkeys(("class10", "class9", "Äpfel", "猫", "été", "Zebra", "ant", "1_000"), 2))
    assert load(tmp_path).classes == ("1_000", "ant", "class9", "class10", "Zebra", "Äpfel", "été", "猫")


def test_a_name_that_another_begins_with(tmp_path):
    fill(tmp_path, **dict.fromkeys(("cat2", "cat", "cat10", "Cat", "cat02x", "7"), 2))
    assert load(tmp_path).classes == ("7", "Cat", "cat", "cat2", "cat02x", "cat10")
    assert sorted(["9" * 5000, "1", "0" * 9 + "2"], key=natural_key) == ["1", "0" * 9 + "2", "9" * 5000]
    assert shown("cat\ud800") == "cat\ufffd"


def test_an_image_beside_the_classes_of_train_is_a_stray_one(tmp_path):
    for part in ("train", "val"):
        fill(tmp_path / part, cat=2, dog=2)
    put(tmp_path / "train" / "stray.jpg")
    data = load(tmp_path)
    assert (data.classes, len(data.train), len(data.val)) == (("cat", "dog"), 4, 4)
    assert any("1 image" in note for note in data.notes)


def test_what_this_program_wrote_among_the_images_is_no_data(tmp_path):
    fill(tmp_path, cat=2, dog=2)
    before = load(tmp_path)
    for file in ("card.json", "checkpoint.npz"):
        put(tmp_path / "runs" / file[:4] / "pictures" / "worst.png")
        (tmp_path / "runs" / file[:4] / file).touch()
    put(tmp_path / "contact_sheet.png")
    data = load(tmp_path)
    assert (data.classes, data.fingerprint) == (("cat", "dog"), before.fingerprint)
    assert len(find_images([tmp_path])) == 4
    fill(tmp_path / "runs" / "card", cat=2, dog=2)
    assert load(tmp_path / "runs" / "card").classes == ("cat", "dog", "pictures")  # as it is asked for itself


def test_a_link_to_itself_is_a_broken_file(tmp_path):
    fill(tmp_path, cat=3, dog=3)
    (tmp_path / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (problem,) = load(tmp_path).problems
    assert problem.path.endswith("loop.jpg")


def test_paths_that_cannot_be(tmp_path, cli):
    for path in (f"~nobody{'x' * 20}/photos", str(tmp_path / ("x" * 300))):
        status, out, err = cli("data", path)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1


def test_names_are_composed_and_printable(tmp_path):
    fill(tmp_path / "train", **{"e\u0301te\u0301": 2, "dog\x1b[31m": 2})  # decomposed, as macOS stores it
    fill(tmp_path / "val", **{"été": 1, "dog\x1b[31m": 1})
    assert load(tmp_path).classes == ("dog\ufffd[31m", "été")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
def test_a_class_whose_name_is_not_utf8(tmp_path):
    fill(tmp_path, cat=2)
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe/1.jpg")))
    put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe/2.jpg")))
    data = load(tmp_path)
    assert data.classes == ("cat", "\ufffd\ufffd")
    "".join(data.classes).encode()


@pytest.mark.skipif(not hasattr(os, "symlink") or sys.platform == "win32", reason="needs symbolic links")
def test_links(tmp_path):
    root = fill(tmp_path / "photos", cat=3, dog=3)
    fill(tmp_path / "elsewhere", bird=3)
    (root / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    data = load(root)
    assert data.classes == ("bird", "cat", "dog")
    assert len(data.train) + len(data.val) == 9
    assert [(problem.path, problem.reason) for problem in data.problems] == [
        (str(root / "dog" / "gone.jpg"), "no such file")
    ]


def break_files(folder: Path) -> dict[str, str]:
    """Writes one broken file of every kind; returns what should be said of them."""
    jpeg = put(folder / "whole.jpg", 60, 80).read_bytes()
    png = put(folder / "whole.png", 60, 80).read_bytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    broken = {
        "bomb.png": (
            png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:],
            "too large: 60000x60000 pixels",
        ),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "empty.jpg": (b"", "empty file"),
        "text.jpg": (b"not a picture", "not an image"),
        "zeros.bmp": (bytes(100), "not an image (only zero bytes)"),
    }
    for name, (content, _) in broken.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in broken.items()}


def test_broken_files_are_skipped_and_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(Path("photos"), cat=3, dog=3)
    broken = break_files(Path("photos/dog"))
    data = load("photos")
    assert {problem.path: problem.reason for problem in data.problems} == {
        str(Path("photos/dog") / name): reason for name, reason in broken.items()
    }
    used = {path.name for path in (*data.train.images, *data.val.images)}
    assert not used & broken.keys()
    assert len(data.train) + len(data.val) == 8


def test_a_class_left_empty_is_an_error(tmp_path):
    fill(tmp_path, cat=3)
    broken = break_files(tmp_path / "dog")
    (tmp_path / "dog" / "whole.jpg").unlink()
    (tmp_path / "dog" / "whole.png").unlink()
    refused(tmp_path, "class 'dog' has no usable training image", "bomb.png: too large", f"{len(broken) - 3} more")


def test_nothing_usable_in_val(tmp_path):
    fill(tmp_path / "train", cat=2, dog=2)
    put(tmp_path / "val" / "cat" / "a.jpg").write_bytes(b"")
    refused(tmp_path, "none of the images set aside for validation is usable")


def test_no_such_folder(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(put(tmp_path / "a.jpg"), "is a file", "one folder of images per class")


def test_empty_folders(tmp_path):
    refused(tmp_path, "no images inside", "CLASS")
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    refused(tmp_path, "no images inside", "CLASS")
    (tmp_path / "dog" / "a.heic").write_bytes(b"x")
    refused(tmp_path, "no images inside", "1 .heic file", "JPEG, PNG, WebP, BMP and GIF")


def test_images_without_classes(tmp_path):
    put(tmp_path / "1.jpg")
    put(tmp_path / "2.jpg")
    refused(tmp_path, "holds 2 images directly, without a class", f"{tmp_path}/CLASS/*.jpg")


def test_one_class_only(tmp_path):
    refused(fill(tmp_path, cat=5), "only one class, 'cat'", "at least two")
    refused(fill(tmp_path / "x" / "train", cat=5).parent, "only one class, 'cat'")


def test_a_folder_within_a_folder(tmp_path):
    fill(tmp_path / "photos", cat=2, dog=2)
    refused(tmp_path, "only one class, 'photos'", f"did you mean {tmp_path / 'photos'}?")


def test_val_without_train(tmp_path):
    fill(tmp_path / "val", cat=2, dog=2)
    refused(tmp_path, "has val/ but no train/")


def test_a_class_in_val_that_is_not_in_train(tmp_path):
    fill(tmp_path / "train", cat=2, dog=2)
    fill(tmp_path / "val", cat=1, bird=1)
    refused(tmp_path, "class 'bird' is not in train/", "'cat', 'dog'")


def test_a_class_missing_from_val_is_noted(tmp_path):
    fill(tmp_path / "train", cat=2, dog=2, bird=2)
    fill(tmp_path / "val", cat=1)
    data = load(tmp_path)
    assert any("no validation image of 'bird', 'dog'" in note for note in data.notes)
    assert len(data.val) == 1


def test_too_few_images(tmp_path):
    refused(fill(tmp_path, cat=1, dog=1), "too few images")
    data = load(fill(tmp_path, cat=2))
    assert (len(data.train), len(data.val)) == (2, 1)
    assert any("only one usable image of 'dog'" in note for note in data.notes)


def test_everything_can_be_set_aside(tmp_path):
    data = load(fill(tmp_path, cat=2, dog=3), val_fraction=1)
    assert (len(data.train), len(data.val)) == (0, 5)


@pytest.mark.parametrize("fraction", [0, 1.01, -0.5, 7])
def test_val_fraction_out_of_range(tmp_path, fraction):
    refused(fill(tmp_path, cat=2, dog=2), "val_fraction", val_fraction=fraction)


def test_notes_on_what_is_not_used(tmp_path):
    fill(tmp_path, cat=3, dog=3)
    (tmp_path / "empty").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("x")
    (tmp_path / "cat" / "b.heic").write_bytes(b"x")
    put(tmp_path / "loose.jpg")
    notes = "\n".join(load(tmp_path).notes)
    assert f"{tmp_path / 'empty'} is empty" in notes
    assert f"{tmp_path / 'docs'} holds no image, only 1 .txt file" in notes
    assert "1 .heic file" in notes
    assert "1 image directly in" in notes


def test_notes_on_identical_files(tmp_path):
    fill(tmp_path / "train", cat=3, dog=3)
    fill(tmp_path / "val", cat=2, dog=2)
    shutil.copy(tmp_path / "train" / "cat" / "0.jpg", tmp_path / "val" / "cat" / "again.jpg")
    shutil.copy(tmp_path / "train" / "cat" / "1.jpg", tmp_path / "train" / "dog" / "cat.jpg")
    notes = load(tmp_path).notes
    assert any("in training too" in note and "1 of 5" in note and "again.jpg" in note for note in notes)
    assert any("in more than one class: 1 image" in note and "dog/cat.jpg" in note for note in notes)


def test_the_split_is_stratified_and_repeats_itself(tmp_path):
    root = fill(tmp_path / "a", cat=50, dog=20, bird=2)
    first = names(load(root, seed=3), "val", root)
    assert {name: len(files) for name, files in first.items()} == {"bird": 1, "cat": 10, "dog": 4}
    assert names(load(root, seed=3), "val", root) == first
    assert names(load(root, seed=4), "val", root) != first
    copy = tmp_path / "moved" / "b"
    shutil.copytree(root, copy)
    assert names(load(copy, seed=3), "val", copy) == first
    data = load(root, val_fraction=0.5)
    assert np.bincount(data.val.labels).tolist() == [1, 25, 10]


def test_more_images_leave_the_other_classes_alone(tmp_path):
    root = fill(tmp_path, cat=30, dog=20)
    before = names(load(root), "val", root)
    put(root / "cat" / "new.jpg")
    put(root / "bird" / "1.jpg")
    put(root / "bird" / "2.jpg")
    after = names(load(root), "val", root)
    assert after["dog"] == before["dog"]
    assert len(set(after["cat"]) ^ set(before["cat"])) <= 2


def test_the_fingerprint_changes_with_names_bytes_and_split_only(tmp_path):
    root = fill(tmp_path / "a", cat=6, dog=6)
    first = load(root).fingerprint
    assert len(first) == 64
    assert load(root).fingerprint == first
    shutil.copytree(root, tmp_path / "b")
    assert load(tmp_path / "b").fingerprint == first
    (root / "cat" / "readme.txt").write_text("x")
    assert load(root).fingerprint == first
    assert load(root, seed=1).fingerprint != first
    first_image = root / "cat" / "0.jpg"
    first_image.write_bytes(first_image.read_bytes() + b"\0")
    changed = load(root).fingerprint
    assert changed != first
    (root / "dog" / "0.jpg").rename(root / "dog" / "zero.jpg")
    assert load(root).fingerprint not in (first, changed)


def test_progress(tmp_path):
    calls = []
    load(fill(tmp_path, cat=30, dog=10), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (40, 40)
    assert calls == sorted(calls)


def test_a_long_scan_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "_WORTH_KEEPING", -1.0)
    root = fill(tmp_path / "photos", cat=4, dog=4)
    (root / "cat" / "broken.jpg").write_bytes(b"x")
    for path in root.rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))  # long ago
    looked: list[bytes] = []
    verify = images.verify
    monkeypatch.setattr(images, "verify", lambda data: (looked.append(data), verify(data)))

    first = load(root)
    assert len(looked) == 9
    second = load(root)
    assert len(looked) == 9
    assert (second.fingerprint, second.problems) == (first.fingerprint, first.problems)

    put(root / "dog" / "0.jpg", 21)  # another size, another time
    third = load(root)
    assert len(looked) == 10
    assert third.fingerprint != first.fingerprint
    load(root)
    assert len(looked) == 11  # it has only just changed: not taken on trust yet

    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text('{"version": [')
    assert load(root).fingerprint == third.fingerprint


def test_a_short_scan_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load(fill(tmp_path / "photos", cat=2, dog=2))
    assert not (tmp_path / "cache").exists()


def test_find_images(tmp_path):
    root = fill(tmp_path, b=2, a=1)
    put(root / "10.png")
    put(root / "9.png")
    put(root / ".hidden.png")
    (root / "notes.txt").write_text("x")
    found = find_images([root / "notes.txt", root])
    assert [path.relative_to(root).as_posix() for path in found] == [
        "notes.txt",
        "9.png",
        "10.png",
        "a/0.jpg",
        "b/0.jpg",
        "b/1.jpg",
    ]
    assert find_images([str(root / "a" / "0.jpg")]) == [root / "a" / "0.jpg"]
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([root / "absent.jpg"])
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="no image in this folder"):
        find_images([root / "empty"])
