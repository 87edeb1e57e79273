"""torchvision's LR-ASPP and DeepLabv3 on MobileNet V3 Large, with random weights: same numbers in, same map out."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import peers
from mobilenets import architectures
from mobilenets.architectures import segmentation_head, write_out_segmenter
from mobilenets.card import read_card
from mobilenets.data.mask_classes import VOC_CLASSES
from mobilenets.errors import UserError
from mobilenets.models.port_segmenter import fill_segmenter
from mobilenets.models.porting import slots_of
from mobilenets.models.saving import load_model
from mobilenets.models.segmenter import scores_model
from mobilenets.models.sources import source_of
from test_family_parity import pixels

SIZE = 160
SHAPE = (SIZE, SIZE, 3)
LARGE = architectures.V3_LARGE
HEADS = ("lraspp_wide", "deeplabv3")


def source(head: str):
    return source_of("torchvision", LARGE, segmentation_head(head))


def converted(head: str):
    return LARGE.converted(source(head).conventions(LARGE))


# -- without PyTorch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "net", "head"),
    [
        ("timm", "v3_large", "lraspp_wide"),
        ("torchvision", "v2", "deeplabv3"),
        ("torchvision", "v3_large", "lraspp"),
        ("torchvision", "v3_large", "deeplabv3_plus"),
    ],
)
def test_segmenters_that_nobody_publishes_are_refused(name, net, head):
    with pytest.raises(UserError, match=f"--from {name}: no .* segmenters come from torchvision, with --head lraspp-w"):
        source_of(name, architectures.network(net), segmentation_head(head))


def arrays(classes: int) -> dict[str, np.ndarray]:
    """What a checkpoint of LR-ASPP holds, by our own table: zeros, and ones for variances."""
    layers = write_out_segmenter(converted("lraspp_wide"), segmentation_head("lraspp-wide"), SHAPE, classes)
    return {
        slot.theirs: np.full(slot.shape, float(slot.theirs.endswith("running_var")), np.float32)
        for slot in slots_of(converted("lraspp_wide"), layers, source("lraspp_wide"))
    }


FIRST = "backbone.0.0.weight"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop(FIRST), f"1 arrays are missing, the first '{FIRST}'"),
        (lambda tensors: tensors.update(other=np.zeros(3)), "1 are not of this network, the first 'other'"),
        (lambda tensors: tensors.update({FIRST: np.zeros((8, 3, 3, 3))}), f"'{FIRST}' has shape \\(8, 3, 3, 3\\), not"),
        (
            lambda tensors: tensors.pop("classifier.low_classifier.bias"),
            "has no 'classifier.low_classifier', the layer",
        ),
        (lambda tensors: tensors.pop("classifier.cbr.1.weight"), "array 'classifier.cbr.1.weight' is missing"),
        (
            lambda tensors: tensors.update({"classifier.cbr.1.weight": np.zeros(7, np.float32)}),
            "arrays of its head have shapes that do not fit together",
        ),
    ],
)
def test_a_checkpoint_that_is_not_exactly_this_segmenter_is_refused(change, why):
    tensors = arrays(3)
    change(tensors)
    head = segmentation_head("lraspp-wide")
    with pytest.raises(UserError, match=why) as caught:
        fill_segmenter(tensors, converted("lraspp_wide"), head, source("lraspp_wide"), 1.0, SHAPE, "file.pth")
    assert str(caught.value).startswith("file.pth: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--net", "v3-small"), "--from torchvision: no LR-ASPP, wide on MobileNet V3 Small"),
        (("--net", "v3-large", "--alpha", 0.5), "arrays are missing|has shape"),
        (("--net", "v3-large", "--head", "deeplabv3"), "has no 'classifier.4', the layer that tells classes apart"),
        (("--net", "v3-large", "--classes", "names.txt"), "names 2 classes, but the weights tell 3 apart"),
    ],
)
def test_what_cannot_be_ported_leaves_nothing_behind(tmp_path, cli, monkeypatch, words, why):
    monkeypatch.chdir(tmp_path)
    save_file(arrays(3), "weights.safetensors")
    Path("names.txt").write_text("a\nb\n")
    status, _, err = cli(
        "weights", "weights.safetensors", "--from", "torchvision", "--task", "segment", "-o", "run", *words
    )
    assert status == 2
    assert re.search(why, err), err
    assert len(err.strip().splitlines()) == 1
    assert not Path("run").exists()


# -- torchvision's own definition ----------------------------------------------------------------------------------


def reference(head: str, classes: int):
    """torchvision's segmenter with random weights that tells much apart, as a trained one does."""
    peers.import_torchvision()
    import torch
    from torchvision.models import segmentation

    torch.manual_seed(0)
    make = {"lraspp_wide": "lraspp_mobilenet_v3_large", "deeplabv3": "deeplabv3_mobilenet_v3_large"}[head]
    model = getattr(segmentation, make)(weights=None, weights_backbone=None, num_classes=classes)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch_images(pixels(SIZE, 4)))
        for norm in norms:
            deviation = norm.running_var.sqrt()
            norm.running_mean.add_(deviation * torch.empty_like(deviation).normal_(0, 0.2))
            # Some so small that what is added to them counts.
            norm.running_var.mul_(torch.empty_like(deviation).uniform_(0.5, 2))
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
    return model.eval()


def torch_images(images: np.ndarray):
    import torch
    from torchvision.transforms.functional import normalize

    scaled = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2) / 255)).float()
    return normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.peers
@pytest.mark.parametrize("head", HEADS)
def test_maps_are_torchvisions(head, tmp_path, cli):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    model, images = reference(head, 21), pixels(SIZE, 2)
    with torch.no_grad():
        expected = model(torch_images(images))["out"].permute(0, 2, 3, 1).numpy()
    # As it is published: with the head that only training reads.
    auxiliary = {"aux_classifier.0.weight": torch.zeros(3)}
    torch.save(model.state_dict() | auxiliary, tmp_path / "model.pth")
    words = ("--net", "v3-large", "--from", "torchvision", "--task", "segment", "--head", head, "--size", SIZE)
    assert cli("weights", tmp_path / "model.pth", *words, "-o", tmp_path / "run")[0] == 0
    card = read_card(tmp_path / "run")
    assert (card["task"], card["head"], card["classes"]) == ("segment", head, list(VOC_CLASSES))
    assert card["conventions"]["dilated_step"] is True
    ours = scores_model(load_model(tmp_path / "run"))
    logits = ours.predict_on_batch(images)
    assert logits.shape == expected.shape == (2, SIZE, SIZE, 21)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.peers
def test_small_variances_are_ported_exactly():
    """torchvision's heads add another epsilon than its networks; where variances are small, that counts."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    model, images = reference("lraspp_wide", 4), pixels(SIZE, 2)
    with torch.no_grad():
        model.classifier.cbr[1].running_var.fill_(1e-4)
        expected = model(torch_images(images))["out"].permute(0, 2, 3, 1).numpy()
    tensors = {name: value.numpy() for name, value in model.state_dict().items() if "num_batches" not in name}
    head = segmentation_head("lraspp-wide")
    ours, _ = fill_segmenter(tensors, converted("lraspp_wide"), head, source("lraspp_wide"), 1.0, SHAPE, "memory")
    logits = scores_model(ours).predict_on_batch(images)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
