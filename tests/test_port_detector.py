"""torchvision's SSDLite on MobileNet V3 Large, with random weights: same numbers in, same objects out."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import peers
from mobilenets import architectures
from mobilenets.architectures import HEADS, cost, write_out_detector
from mobilenets.data.coco_classes import coco_classes, label_names
from mobilenets.errors import UserError
from mobilenets.evaluation.suppression import suppress
from mobilenets.models.boxes import anchors_of
from mobilenets.models.detector import raw_model
from mobilenets.models.port_detector import fill_detector
from mobilenets.models.porting import slots_of
from mobilenets.models.saving import load_model
from mobilenets.models.sources import source_of
from mobilenets.training.ported import write_ported, write_ported_dense
from test_family_parity import pixels

SIZE = 320
SHAPE = (SIZE, SIZE, 3)
REDUCED = architectures.network("v3-large-reduced")
HEAD = HEADS["ssdlite"]
SOURCE = source_of("torchvision", REDUCED, HEAD)
OPTIONS = {"least": 0.001, "overlap": 0.55, "most": 300, "candidates": 300}  # torchvision's
LABELS = list(coco_classes())
GAPS = [label for label in range(1, 91) if label not in LABELS]
SIDES, ANCHORS = (20, 10, 5, 3, 2, 1), 6  # of the maps, and at each of their locations
LOCATIONS = ANCHORS * sum(side**2 for side in SIDES)
SCORES = "head.classification_head.module_list"


def converted(network=REDUCED):
    return network.converted(SOURCE.conventions(network))


# -- without PyTorch -----------------------------------------------------------------------------------------------


def test_half_the_channels_from_the_last_stride_on():
    whole, reduced = (
        {layer.name: layer.output_shape for layer in architectures.write_out(network)}
        for network in (architectures.V3_LARGE, REDUCED)
    )
    assert whole.keys() == reduced.keys()
    assert reduced["block13_expand"] == whole["block13_expand"] == (14, 14, 672)
    halved = [name for name in whole if whole[name] != reduced[name]]
    assert all(whole[name][2] == 2 * reduced[name][2] for name in halved)
    assert reduced["block15_project"] == (7, 7, 80)
    assert reduced["block16"] == (7, 7, 480)
    assert "section 6.3" in REDUCED.paper


def test_parameters_are_those_torchvision_publishes():
    assert cost(write_out_detector(REDUCED, HEAD, SHAPE, 90).layers).params == 3_440_060


def test_names_of_labels():
    names = coco_classes()
    assert len(names) == len(set(names.values())) == 80
    assert (names[1], names[13], names[90]) == ("person", "stop sign", "toothbrush")
    assert GAPS == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert label_names(90) == names
    assert label_names(2) == {1: "class 1", 2: "class 2"}


@pytest.mark.parametrize("name", ["keras", "timm", "timm-tf"])
def test_other_programs_do_not_have_the_reduced_network(name):
    with pytest.raises(UserError, match=f"--from {name}: it has no MobileNet V3 Large reduced"):
        source_of(name, REDUCED)


@pytest.mark.parametrize(
    ("name", "net", "head"),
    [
        ("timm", "v3_large", "ssdlite"),
        ("torchvision", "v2", "ssdlite"),
        ("torchvision", "v3_large_minimalistic", "ssdlite"),
        ("torchvision", "v3_large", "anchor_free"),
    ],
)
def test_detectors_that_nobody_publishes_are_refused(name, net, head):
    with pytest.raises(UserError, match=f"--from {name}: no .* detectors come from torchvision, with --head ssdlite"):
        source_of(name, architectures.network(net), HEADS[head])


def arrays(classes: int) -> dict[str, np.ndarray]:
    """What a checkpoint holds, by our own table: zeros, and ones for variances."""
    network = converted()
    layers = write_out_detector(network, HEAD, SHAPE, classes).layers
    return {
        slot.theirs: np.full(slot.shape, float(slot.theirs.endswith("running_var")), np.float32)
        for slot in slots_of(network, layers, SOURCE)
    }


FIRST = "backbone.features.0.0.0.weight"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop(FIRST), f"1 arrays are missing, the first '{FIRST}'"),
        (lambda tensors: tensors.update(other=np.zeros(3)), "1 are not of this network, the first 'other'"),
        (lambda tensors: tensors.update({FIRST: np.zeros((8, 3, 3, 3))}), f"'{FIRST}' has shape \\(8, 3, 3, 3\\), not"),
        (lambda tensors: tensors.pop(f"{SCORES}.0.1.bias"), f"has no '{SCORES}.0.1', the layer that tells classes"),
        (lambda tensors: tensors.update({f"{SCORES}.0.1.bias": np.zeros(20)}), "has 20 numbers, which are no classes"),
        (lambda tensors: tensors.update({f"{SCORES}.0.1.bias": np.zeros(6)}), "has 6 numbers, which are no classes"),
        (lambda tensors: tensors.update({f"{SCORES}.0.1.bias": np.zeros(30)}), r"0.1.weight' has shape \(18, 672, 1"),
    ],
)
def test_a_checkpoint_that_is_not_exactly_this_detector_is_refused(change, why):
    tensors = arrays(2)
    change(tensors)
    with pytest.raises(UserError, match=why) as caught:
        fill_detector(tensors, converted(), HEAD, SOURCE, 1.0, SHAPE, "file.pth")
    assert str(caught.value).startswith("file.pth: ")
    assert str(caught.value).endswith(
        "not the weights of MobileNet V3 Large reduced with SSDLite at this --alpha from that program"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"network": architectures.V3_LARGE}, r"has shape \(80, 672, 1, 1\), not \(160, 672, 1, 1\)"),
        ({"width_multiplier": 0.5}, "arrays are missing|has shape"),
        ({"size": 224}, "--size 224: leaves 5 maps of features, and these weights were trained on 6"),
        ({"source": "caffe"}, "--from caffe: no SSDLite detector"),
        ({"normalization": "none"}, "--normalization must be one of imagenet, inception"),
        ({"classes": "names.txt"}, "names 3 classes, but the weights tell 2 apart"),
    ],
)
def test_what_cannot_be_ported_leaves_nothing_behind(tmp_path, options, why):
    save_file(arrays(2), tmp_path / "weights.safetensors")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    options = {"network": REDUCED, "head": HEAD, "source": "torchvision"} | options
    if "classes" in options:
        options["classes"] = tmp_path / options["classes"]
    with pytest.raises(UserError, match=why) as caught:
        write_ported_dense(tmp_path / "weights.safetensors", tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# -- torchvision's own definition ----------------------------------------------------------------------------------


def reference(classes: int):
    """torchvision's detector with random weights that tells much apart, as a trained one does."""
    peers.import_torchvision()
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes + 1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    torch_outputs(model.train(), pixels(SIZE, 4))
    with torch.no_grad():
        # Near what it has seen, so that the signal is kept, but nothing that 0, 1 or another layer's would pass for.
        for norm in norms:
            deviation = norm.running_var.sqrt()
            norm.running_mean.add_(deviation * torch.empty_like(deviation).normal_(0, 0.2))
            norm.running_var.mul_(torch.empty_like(deviation).uniform_(0.5, 2))
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
        numbers, logits, _ = torch_outputs(model.eval(), pixels(SIZE, 1))
        last = 0
        for index, side in enumerate(SIDES):
            first, last = last, last + side**2 * ANCHORS
            for branch, values, spread in ((model.head.regression_head, numbers, 1), (scores_of(model), logits, 2)):
                convolution = branch.module_list[index][1]
                convolution.weight.mul_(spread / values[:, first:last].std())
                convolution.bias.normal_(0, 0.5)
    return model


def scores_of(model):
    return model.head.classification_head


def tensors_of(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items() if "num_batches" not in name}


def torch_images(images: np.ndarray) -> list:
    import torch

    return list(torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float())


def torch_outputs(model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers that say where (images, locations, 4), logits (…, classes), and boxes 0..1 of the image (…, 4)."""
    import torch

    with torch.no_grad():
        inputs, _ = model.transform(torch_images(images))
        features = list(model.backbone(inputs.tensors).values())
        found = model.head(features)
        anchors = model.anchor_generator(inputs, features)
        boxes = torch.stack(
            [
                model.box_coder.decode_single(numbers, places) / SIZE
                for numbers, places in zip(found["bbox_regression"], anchors, strict=True)
            ]
        )
    return found["bbox_regression"].numpy(), found["cls_logits"].numpy(), boxes.clamp(0, 1).numpy()


def nms(boxes, scores, limit):
    """What torchvision's compiled operator does."""
    import torch

    corners, order = boxes.double().numpy(), np.argsort(-scores.numpy(), kind="stable")
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(corners[best, :2], corners[order, :2])
        high = np.minimum(corners[best, 2:], corners[order, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        order = order[shared <= limit * (areas[best] + areas[order] - shared)]
    return torch.tensor(kept, dtype=torch.int64)


def torch_found(model, images: np.ndarray, monkeypatch) -> list[np.ndarray]:
    """What torchvision reports in each image, as `suppress` returns it, but with its labels."""
    import torch
    from torchvision.ops import boxes

    monkeypatch.setattr(boxes, "nms", nms)
    with torch.no_grad():
        found = model(torch_images(images))
    return [
        np.column_stack([each["boxes"].numpy() / SIZE, each["scores"].numpy(), each["labels"].numpy()])
        for each in found
    ]


def assert_same(measured: np.ndarray, expected: np.ndarray, labels: list[int]) -> None:
    """Two lists of objects, of which those with nearly the same score may have changed places."""
    assert len(measured) == len(expected)
    measured = np.column_stack([measured[:, :5], np.array(labels)[measured[:, 5].astype(int)]])
    np.testing.assert_allclose(measured[:, 4], expected[:, 4], rtol=0, atol=1e-4)
    left = list(expected)
    for row in measured:
        near = [index for index, other in enumerate(left) if row[5] == other[5] and np.allclose(row, other, atol=1e-4)]
        assert near, f"{row} was not found by torchvision"
        left.pop(near[0])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return pixels(SIZE, 3)


@pytest.fixture(scope="module")
def coco():
    """A detector of COCO's 90 labels. As trained ones, it says nothing of those that no object has."""
    model = reference(90)
    import torch

    with torch.no_grad():
        for scores in scores_of(model).module_list:
            scores[1].bias.view(ANCHORS, 91)[:, GAPS] = -100
    return model


@pytest.fixture(scope="module")
def ported(coco):
    model, names = fill_detector(tensors_of(coco), converted(), HEAD, SOURCE, 1.0, SHAPE, "memory")
    assert names == list(coco_classes().values())
    return model


@pytest.mark.peers
def test_names_are_torchvisions():
    peers.import_torchvision()
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    theirs = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    assert [theirs[label] for label in LABELS] == list(coco_classes().values())
    assert {theirs[label] for label in GAPS} == {"N/A"}
    assert (len(theirs), theirs[0]) == (91, "__background__")


@pytest.mark.peers
def test_anchors_are_torchvisions(coco, images):
    import torch

    levels = write_out_detector(converted(), HEAD, SHAPE, 1).levels
    with torch.no_grad():
        inputs, _ = coco.transform(torch_images(images[:1]))
        corners = coco.anchor_generator(inputs, list(coco.backbone(inputs.tensors).values()))[0].numpy() / SIZE
    ours = anchors_of([(*level.shape, level.anchors) for level in levels])
    assert ours.shape == corners.shape == (LOCATIONS, 4)
    np.testing.assert_allclose(ours[:, :2] - ours[:, 2:] / 2, corners[:, :2], rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours[:, :2] + ours[:, 2:] / 2, corners[:, 2:], rtol=0, atol=1e-6)


@pytest.mark.peers
def test_boxes_and_scores_are_torchvisions(coco, ported, images):
    numbers, logits, boxes = torch_outputs(coco, images)
    raw = raw_model(ported).predict_on_batch(images)
    kept = logits[..., [0, *LABELS]]
    for measured, expected in ((raw[..., :4], numbers), (raw[..., 4:], kept)):
        assert np.abs(expected[0] - expected[1]).max() > 0.1
        np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    output = ported.predict_on_batch(images)
    assert output.shape == (3, LOCATIONS, 84)
    np.testing.assert_allclose(output[..., :4], boxes, rtol=0, atol=1e-4)
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    assert scores[..., LABELS].max() > 0.5
    np.testing.assert_allclose(output[..., 4:], scores[..., LABELS], rtol=0, atol=1e-4)


@pytest.mark.peers
def test_objects_found_are_torchvisions(coco, ported, images, monkeypatch):
    for output, expected in zip(ported.predict_on_batch(images), torch_found(coco, images, monkeypatch), strict=True):
        assert len(expected) == 300
        assert_same(suppress(output, **OPTIONS), expected, LABELS)


@pytest.mark.peers
def test_own_classes_on_the_whole_network(images, monkeypatch, tmp_path):
    """As whoever starts from torchvision's ImageNet weights gets it: nothing is halved, and no label is missing."""
    peers.import_torchvision()
    import torch
    from torchvision.models import mobilenet_v3_large
    from torchvision.models.detection import ssdlite

    # Told of ImageNet weights, it would fetch them; all that they change is that nothing is halved.
    monkeypatch.setattr(ssdlite, "mobilenet_v3_large", lambda reduced_tail, **options: mobilenet_v3_large(**options))
    model = reference(5)
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "model.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    card = write_ported_dense(
        tmp_path / "model.pth",
        tmp_path / "run",
        architectures.V3_LARGE,
        HEAD,
        "torchvision",
        classes=tmp_path / "names.txt",
    )
    assert card["classes"] == ["a", "b", "c", "d", "e"]
    output = load_model(tmp_path / "run").predict_on_batch(images)
    for each, expected in zip(output, torch_found(model, images, monkeypatch), strict=True):
        assert_same(suppress(each, **OPTIONS), expected, [1, 2, 3, 4, 5])


@pytest.mark.peers
def test_a_model_directory_of_coco(coco, ported, images, tmp_path):
    import torch

    torch.save(coco.state_dict(), tmp_path / "coco.pth")
    arguments = tmp_path / "coco.pth", tmp_path / "run", REDUCED, HEAD, "torchvision"
    card = write_ported_dense(*arguments, command="mobilenets weights")
    assert card == json.loads((tmp_path / "run" / "card.json").read_text())
    assert (card["task"], card["network"], card["head"]) == ("detect", "v3_large_reduced", "ssdlite")
    assert card["classes"] == list(coco_classes().values())
    assert card["input_shape"] == list(SHAPE)
    known = {"padding": "symmetric", "epsilon": 1e-3, "mean": [127.5], "std": [127.5], "dilated_step": False}
    assert card["conventions"] == known
    assert card["origin"]["program"] == "torchvision"
    np.testing.assert_array_equal(
        load_model(tmp_path / "run").predict_on_batch(images), ported.predict_on_batch(images)
    )
    with pytest.raises(UserError, match="already holds a model"):
        write_ported_dense(*arguments)
    # As a classifier it is refused, in one line.
    with pytest.raises(UserError, match="has no 'classifier.3'"):
        write_ported(tmp_path / "coco.pth", tmp_path / "other", REDUCED, "torchvision")
