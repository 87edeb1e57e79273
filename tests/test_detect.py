"""Detectors as a user makes and uses them: data, train, evaluate, predict."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from exported import HERE, short_latency
from mobilenets.card import read_card
from once import once

CLASSES = {"red": (220, 30, 30), "blue": (30, 60, 220)}


def picture(rng: np.random.Generator, width: int, height: int, count: int) -> tuple[np.ndarray, list[list[float]]]:
    """Coloured rectangles on noise, and a line of YOLO text for each."""
    image = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
    lines = []
    for place in rng.permutation(4)[:count]:  # one in each quarter, so that none hides another
        label = int(rng.integers(len(CLASSES)))
        sides = rng.uniform(0.2, 0.4, 2)
        first = np.array([place % 2, place // 2]) / 2 + rng.uniform(0, 0.5 - sides)
        (left, top), (right, bottom) = np.round(first * (width, height)), np.round((first + sides) * (width, height))
        image[int(top) : int(bottom), int(left) : int(right)] = list(CLASSES.values())[label]
        middle, size = ((left + right) / 2 / width, (top + bottom) / 2 / height), (right - left, bottom - top)
        lines.append([label, *middle, size[0] / width, size[1] / height])
    return image, lines


def folder(directory: Path, train: int = 48, val: int = 16) -> Path:
    """A data set as YOLO text."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (directory / kind / part).mkdir(parents=True)
        for index in range(count):
            image, lines = picture(rng, 96, 80, int(rng.integers(0, 4)) if index else 3)
            cv2.imwrite(str(directory / f"images/{part}/{index}.png"), image[..., ::-1])
            text = "".join(
                " ".join(f"{value:.6f}" if place else str(value) for place, value in enumerate(line)) + "\n"
                for line in lines
            )
            (directory / f"labels/{part}/{index}.txt").write_text(text)
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(CLASSES))
    (directory / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")
    return directory


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("boxes") / "shapes")


def test_data_that_is_only_measured_is_described(tmp_path, shapes, cli):
    for kind in ("images", "labels"):
        shutil.copytree(shapes / kind / "val", tmp_path / "only" / kind)
    (tmp_path / "only" / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    options = ("--task", "detect", "--val-fraction", 1, "--sheet", tmp_path / "sheet.png")
    status, out, err = cli("data", tmp_path / "only", *options)
    assert status == 0, err
    assert "objects an image" not in out


@pytest.fixture(scope="session")
def trained(place) -> Path:
    """A detector that has learned a little, with its data beside it."""

    def make(directory: Path) -> None:
        from mobilenets.architectures import head, network
        from mobilenets.data.box_folder import load_boxes
        from mobilenets.training.dense import train_dense
        from mobilenets.training.settings import Settings

        data = load_boxes(folder(directory / "shapes"))
        settings = Settings(epochs=30, batch_size=8, learning_rate=0.1)
        train_dense(data, directory / "run", network("v1"), head("anchor-free"), 0.25, 64, settings, quiet=True)

    return once(place / "detector", make) / "run"


def test_a_detector_learns(trained):
    card = read_card(trained)
    assert (card["task"], card["head"], card["classes"]) == ("detect", "anchor_free", list(CLASSES))
    assert card["metrics"]["ap50"] > 0.6
    assert card["preprocessing"]["resize"] == "stretched to 64 x 64 pixels"
    assert card["data"]["train"] == 48
    assert card["resolution_multiplier"] == 0.2  # of 320 pixels
    rows = (trained / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,val_ap,val_ap50,val_f1,learning_rate,seconds"
    assert len(rows) == 31
    assert not (trained / "checkpoint.npz").exists()
    page = (trained / "report.html").read_text()
    for unused in ("label smoothing", "label_smoothing", "temperature"):  # of classifiers
        assert unused not in page
        assert unused not in card["training"]
    for name in ("confusion", "precision_recall", "worst", "curves", "augmented"):
        assert (trained / "pictures" / f"{name}.png").stat().st_size > 1000


def test_what_maps_share_they_still_share_after_training(trained):
    from mobilenets.models.detector import shared
    from mobilenets.models.saving import load_model

    assert len(shared(load_model(trained))) == 7


def test_a_process_that_knows_nothing_of_detectors_loads_one(trained):
    code = "import sys; from mobilenets.models.saving import load_model; print(load_model(sys.argv[1]).output_shape)"
    done = subprocess.run([sys.executable, "-c", code, trained], capture_output=True, text=True, check=False)
    assert done.stdout == "(None, 85, 6)\n", done.stderr


def test_evaluating_again_gives_the_same_figures(trained, cli):
    status, out, _ = cli("evaluate", trained, "--json")
    assert status == 0
    known = read_card(trained)["metrics"]
    assert {key: json.loads(out)[key] for key in ("ap", "ap50", "f1")} == pytest.approx(
        {key: known[key] for key in ("ap", "ap50", "f1")}, abs=1e-6
    )


def test_evaluating_prints_what_matters(trained, cli):
    status, out, _ = cli("evaluate", trained)
    assert status == 0
    for word in ("AP50", "recall", "red", "blue", "report.html"):
        assert word in out


def test_other_images_are_measured_without_a_trace(trained, shapes, cli):
    before = (trained / "card.json").read_bytes()
    status, out, _ = cli("evaluate", trained, "--data", shapes, "--json")
    assert status == 0
    assert json.loads(out)["images"] == 16
    assert (trained / "card.json").read_bytes() == before


def test_objects_are_found_in_images_of_any_shape(trained, cli, tmp_path):
    image, lines = picture(np.random.default_rng(7), 300, 200, 3)
    paths = {"usual": image, "tiny": image[:16, :16], "strip": cv2.resize(image, (10_000, 50))}
    for name, pixels in paths.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels[..., ::-1])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    status, out, err = cli("predict", trained, tmp_path, "--out", tmp_path / "found", "--threshold", 0.2, "--json")
    assert status == 0
    found = json.loads(out)
    assert [Path(entry["file"]).stem for entry in found["images"]] == ["strip", "tiny", "usual"]
    assert "broken.png" in err
    assert found["skipped"][0]["file"].endswith("broken.png")
    usual = found["images"][2]
    assert (usual["width"], usual["height"]) == (300, 200)
    assert len(usual["objects"]) >= len(lines)
    for each in usual["objects"]:
        left, top, right, bottom = each["box"]
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        assert each["score"] >= 0.2
    drawn = cv2.imread(usual["picture"])[..., ::-1]
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_the_threshold_is_the_best_one_unless_told(trained, cli, tmp_path):
    image, _ = picture(np.random.default_rng(8), 96, 80, 2)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    status, out, _ = cli("predict", trained, tmp_path / "image.png", "--json")
    assert status == 0
    assert json.loads(out)["threshold"] == read_card(trained)["metrics"]["threshold"]
    status, out, _ = cli("predict", trained, tmp_path / "image.png")
    assert status == 0
    assert "image.png" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mixup", 0.2), "--mixup is for other models"),
        (("--label-smoothing", 0.2), "--label-smoothing is for other models"),
        (("--head", "yolo"), "--head yolo: unknown; choose of ssdlite, anchor_free"),
        (("--freeze",), "--freeze trains the head alone, so it needs --weights"),
        (("--task", "yolo"), "--task must be classify, detect or segment, not 'yolo'"),
    ],
)
def test_what_detectors_do_not_take_is_named(shapes, cli, tmp_path, words, message):
    status, _, err = cli("train", shapes, "--task", "detect", "--out", tmp_path / "run", *words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_head_needs_the_task(shapes, cli, tmp_path):
    status, _, err = cli("train", "digits", "--head", "ssdlite", "--out", tmp_path / "run")
    assert status == 2
    assert "give --task detect" in err


def test_what_takes_classifiers_alone_says_so(trained, cli, tmp_path):
    status, _, err = cli("compress", trained, "--sensitivity", "--out", tmp_path / "out")
    assert status == 2
    assert "compress --sensitivity takes no detectors" in err


@pytest.fixture(scope="session")
def exported(trained, place) -> Path:
    """The same with its files."""

    def make(directory: Path) -> None:
        from mobilenets.deployment.export import export

        shutil.copytree(trained, directory / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mobilenets.deployment.verify.measure_latency", short_latency)
            export(directory / "run", HERE, ("float32", "int8"), max_drop=5)

    return once(place / "detector_files", make) / "run"


@pytest.mark.long
def test_files_find_what_the_model_finds(exported):
    card = read_card(exported)
    assert len(card["artifacts"]) == 2 * len(HERE)
    for entry in card["artifacts"]:
        lost = card["metrics"]["ap"] - entry["metrics"]["ap"]
        assert lost < (0.005 if entry["precision"] == "float32" else 0.05), entry["file"]
        assert entry["batch"] == 1
    assert {Path(entry["file"]).name for entry in card["artifacts"]} >= {"model.tflite", "model_int8.tflite"}


@pytest.mark.long
def test_a_file_gives_final_boxes(exported):
    from mobilenets.deployment.runtimes import load

    image, lines = picture(np.random.default_rng(7), 64, 64, 3)
    found = load(exported / "export" / "model.tflite")(image[None])
    assert found.shape == (1, 100, 6)
    boxes = found[0][found[0, :, 5] >= 0]
    assert len(boxes) >= len(lines)
    assert (np.diff(boxes[:, 4]) <= 0).all()
    assert set(boxes[:, 5]) <= {0, 1}


@pytest.mark.long
def test_a_file_is_evaluated_and_predicts_like_the_model(exported, cli, tmp_path):
    card = read_card(exported)
    status, out, _ = cli("evaluate", exported / "export" / "model.tflite", "--json")
    assert status == 0
    assert json.loads(out)["ap"] == pytest.approx(card["artifacts"][0]["metrics"]["ap"], abs=1e-6)
    image, _ = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    found = {}
    for runtime in ("keras", "litert"):
        status, out, _ = cli(
            "predict", exported, tmp_path / "image.png", "--runtime", runtime, "--precision", "float32", "--json"
        )
        assert status == 0
        found[runtime] = json.loads(out)["images"][0]["objects"]
    assert [each["class"] for each in found["litert"]] == [each["class"] for each in found["keras"]]
    for mine, other in zip(found["litert"], found["keras"], strict=True):
        assert mine["box"] == pytest.approx(other["box"], abs=0.5)
        assert mine["score"] == pytest.approx(other["score"], abs=1e-3)


@pytest.mark.long
def test_a_file_of_a_detector_finds_objects_and_draws_them(exported, cli, tmp_path):
    image, lines = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    file = exported / "export" / "model_int8.tflite"
    words = ("predict", file, tmp_path / "image.png", "--threshold", 0.1, "--json")
    status, out, err = cli(*words, "--out", tmp_path / "found")
    assert status == 0, err
    drawn = json.loads(out)
    assert drawn["runtime"] == "litert"
    assert len(drawn["images"][0]["objects"]) >= len(lines)
    assert Path(drawn["images"][0]["picture"]).is_file()
    status, out, _ = cli(*words)  # without pictures images are not decoded a second time, and boxes are the same
    assert status == 0
    assert json.loads(out)["images"][0] == drawn["images"][0] | {"picture": None}


@pytest.mark.long
def test_a_file_with_a_list_of_classes_is_enough(exported, shapes, cli, tmp_path):
    image, _ = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    found = []
    for name in ("model_int8.tflite", "labels.txt"):
        shutil.copy(exported / "export" / name, tmp_path / name)
    for file in (exported / "export" / "model_int8.tflite", tmp_path / "model_int8.tflite"):
        status, out, err = cli("predict", file, tmp_path / "image.png", "--threshold", 0.1, "--json")
        assert status == 0, err
        found.append(json.loads(out)["images"][0]["objects"])
    assert found[0] == found[1]
    status, out, err = cli("evaluate", tmp_path / "model_int8.tflite", "--data", shapes, "--json")
    assert status == 0, err
    entries = {entry["file"]: entry for entry in read_card(exported)["artifacts"]}
    assert json.loads(out)["ap"] == pytest.approx(entries["export/model_int8.tflite"]["metrics"]["ap"], abs=1e-6)


def test_options_of_classifiers_are_not_taken_and_ignored(trained, cli, tmp_path):
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((20, 20, 3), np.uint8))
    status, _, err = cli("predict", trained, tmp_path / "image.png", "--top", 2)
    assert status == 2
    assert "--top is for models that classify, and this one is there to detect" in err
    for verb, message in (("grid", "has one width and one resolution"), ("choose", "mobilenets grid")):
        status, _, err = cli(verb, trained)
        assert status == 2
        assert message in err


@pytest.mark.long
def test_files_are_timed_beside_their_ap(exported, cli, tmp_path):
    status, out, err = cli(
        "benchmark", exported, "--rounds", 1, "--seconds", 0.05, "--out", tmp_path / "times.json", "--json"
    )
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert {row["score"] for row in rows} == {"AP"}
    assert all(0 < row["accuracy"] <= 1 and row["macs"] > 1e5 for row in rows)


@pytest.mark.long
def test_a_detector_has_one_size(exported, cli):
    status, _, err = cli("export", exported, "--size", 96)
    assert status == 2
    assert "anchors are made for one size" in err


@pytest.mark.long
def test_one_image_with_500_boxes_and_one_class(cli, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    cells = np.stack(np.meshgrid(np.arange(25), np.arange(20)), axis=-1).reshape(-1, 2)
    for name in "abcd":
        image = rng.integers(0, 100, (200, 250, 3)).astype(np.uint8)
        lines = []
        for x, y in cells:
            image[y * 10 + 2 : y * 10 + 9, x * 10 + 2 : x * 10 + 9] = 255
            lines.append(f"0 {(x * 10 + 5.5) / 250:.5f} {(y * 10 + 5.5) / 200:.5f} {7 / 250:.5f} {7 / 200:.5f}\n")
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), image)
        (tmp_path / f"images/{name}.txt").write_text("".join(lines))
    (tmp_path / "classes.txt").write_text("cell\n")
    status, out, err = cli(
        "train",
        tmp_path,
        "--task",
        "detect",
        "--alpha",
        0.125,
        "--size",
        96,
        "--epochs",
        1,
        "--out",
        tmp_path / "run",
        "--json",
    )
    assert status == 0, err
    assert json.loads(out)["metrics"]["objects"] == 500
    assert json.loads(out)["classes"] == ["cell"]


@pytest.mark.long
def test_a_stopped_run_goes_on_to_the_same_end(shapes, tmp_path):
    from mobilenets.architectures import head, network
    from mobilenets.data.box_folder import load_boxes
    from mobilenets.training import loop
    from mobilenets.training.dense import train_dense
    from mobilenets.training.settings import Settings

    data, settings = load_boxes(shapes), Settings(epochs=3, batch_size=16, learning_rate=0.01)
    arguments = (network("v1"), head("ssdlite"), 0.125, 32, settings)
    whole = train_dense(data, tmp_path / "whole", *arguments, quiet=True)

    class Stop(Exception):
        pass

    def stopping(path, history, keep=loop.logs.write_history):
        keep(path, history)
        if len(history) == 2:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.logs, "write_history", stopping)
        with pytest.raises(Stop):
            train_dense(data, tmp_path / "stopped", *arguments, quiet=True)
    again = train_dense(data, tmp_path / "stopped", *arguments, resume=True, quiet=True)
    assert again["metrics"] == whole["metrics"]


def test_weights_of_a_classifier_start_the_network_and_leave_the_head(tmp_path):
    from mobilenets.architectures import V1, head
    from mobilenets.models.builder import classifier
    from mobilenets.models.detector import detector
    from mobilenets.models.saving import save_model
    from mobilenets.models.tasks import in_head
    from mobilenets.models.weights import start_from

    source = classifier(V1, (32, 32, 3), 4, 0.25)
    save_model(source, tmp_path / "model.keras")
    model = detector(V1, head("anchor-free"), (64, 64, 3), 2, 0.25)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    start_from(model, tmp_path / "model.keras", ("a", "b"), V1, 0.25)
    for layer in model.layers:
        wanted = before[layer.name] if in_head(layer.name) else source.get_layer(layer.name).get_weights()
        for value, expected in zip(layer.get_weights(), wanted, strict=True):
            np.testing.assert_array_equal(value, expected)
