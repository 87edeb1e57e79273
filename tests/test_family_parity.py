"""Every network against other programs' own, with random weights: same numbers in, same numbers out."""

import numpy as np
import pytest

import peers
from mobilenets import architectures
from mobilenets.architectures import FAMILY
from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.builder import logits_model
from mobilenets.models.checkpoints import tensors_of
from mobilenets.models.porting import fill
from mobilenets.models.sources import SOURCES

CLASSES = 10


def pixels(size: int, count: int = 2) -> np.ndarray:
    """Images of coarse patches under noise, so that they differ also where all pixels are averaged."""
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 206, (count, 4, 4, 3)).repeat(-(-size // 4), axis=1).repeat(-(-size // 4), axis=2)
    return (patches[:, :size, :size] + rng.integers(0, 50, (count, size, size, 3))).astype(np.float32)


def assert_equal(measured: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the largest logit, which must tell the images apart."""
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(measured, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(logits_model(model).predict_on_batch(images))


# -- keras.applications --------------------------------------------------------------------------------------------


def shake(model: keras.Model, seed: int = 0) -> None:
    """Random batch statistics, as 0 and 1 would hide a mix-up, and kernels that keep the signal."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            kernel, *bias = layer.get_weights()
            fan = np.prod(kernel.shape[:2] if "Depthwise" in type(layer).__name__ else kernel.shape[:3])
            layer.set_weights([rng.normal(0, (2 / fan) ** 0.5, kernel.shape), *bias])
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, shape),
                    rng.normal(0, 0.3, shape),
                    rng.normal(0, 0.2, shape),
                    rng.uniform(0.3, 2, shape),
                ]
            )


@pytest.mark.backend
@pytest.mark.parametrize("alpha", [1.0, *(pytest.param(alpha, marks=pytest.mark.long) for alpha in (0.35, 1.3))])
@pytest.mark.parametrize(
    ("name", "reference", "options"),
    [
        ("v2", "MobileNetV2", {}),
        ("v3_large", "MobileNetV3Large", {}),
        ("v3_small", "MobileNetV3Small", {}),
        ("v3_large_minimalistic", "MobileNetV3Large", {"minimalistic": True}),
        ("v3_small_minimalistic", "MobileNetV3Small", {"minimalistic": True}),
    ],
)
def test_keras_applications(name, reference, options, alpha):
    size = 96
    theirs = getattr(keras.applications, reference)(
        (size, size, 3), alpha=alpha, weights=None, classes=CLASSES, classifier_activation=None, **options
    )
    shake(theirs)
    network = architectures.network(name)
    ours = fill(tensors_of(theirs), network, SOURCES["keras"], alpha, size, "memory")
    images = pixels(size)
    inputs = images / 127.5 - 1 if name == "v2" else images  # V3 does it inside
    expected = np.asarray(theirs.predict_on_batch(inputs))
    assert_equal(logits_of(ours, images), expected)


# -- PyTorch -------------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "reference", "alpha"),
    [
        ("v2", "mobilenet_v2", 1.0),
        ("v2", "mobilenet_v2", 1.4),
        ("v3_large", "mobilenet_v3_large", 1.0),
        ("v3_small", "mobilenet_v3_small", 1.0),
        # Not narrower: torchvision rounds V3's inner widths otherwise than all others, and publishes no weights there.
    ],
)
def test_torchvision(name, reference, alpha):
    models = peers.import_torchvision().models
    options = {"num_classes": CLASSES} | ({"width_mult": alpha} if alpha != 1 else {})
    model = shaken(models.get_model(reference, weights=None, **options), kernels=True)
    compare_with_torch(model, "torchvision", name, alpha)


# -- timm ----------------------------------------------------------------------------------------------------------

TIMM = {
    "v1": "mobilenetv1_100",
    "v2": "mobilenetv2_100",
    "v3_large": "mobilenetv3_large_100",
    "v3_small": "mobilenetv3_small_100",
    "v4_conv_small": "mobilenetv4_conv_small",
    "v4_conv_medium": "mobilenetv4_conv_medium",
    "v4_conv_large": "mobilenetv4_conv_large",
    "v4_hybrid_medium": "mobilenetv4_hybrid_medium",
    "v4_hybrid_large": "mobilenetv4_hybrid_large",
}
NARROW = [
    ("v2", "mobilenetv2_050", 0.5),
    ("v2", "mobilenetv2_140", 1.4),
    ("v3_small", "mobilenetv3_small_075", 0.75),
    ("v3_small", "mobilenetv3_small_050", 0.5),
    ("v4_conv_small", "mobilenetv4_conv_small_050", 0.5),
    ("v4_hybrid_medium", "mobilenetv4_hybrid_medium_075", 0.75),
]


def shaken(model, kernels: bool = False):
    """Random batch statistics and layer scales, and where asked for kernels that keep the signal."""
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith("running_mean"):
                value.normal_(0, 0.2)
            elif key.endswith("running_var"):
                value.uniform_(0.3, 2)
            elif key.endswith(".gamma"):  # of layer scale; at its first 1e-5 the attention would not count
                value.uniform_(0.3, 1)
            elif kernels and value.ndim == 4:
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
    return model.eval()


def compare_with_torch(model, program: str, name: str, alpha: float, size: int = 96) -> None:
    network = architectures.network(name)
    source = SOURCES[program]
    network = network.converted(source.conventions(network))
    images = pixels(size)
    tensors = {key: value.numpy() for key, value in model.state_dict().items() if "num_batches" not in key}
    ours = fill(tensors, network, source, alpha, size, "memory")
    assert_equal(logits_of(ours, images), torch_logits(model, network, images))


def compare_with_timm(name: str, reference: str, alpha: float, size: int = 96, program: str = "timm") -> None:
    model = peers.import_timm().create_model(reference, pretrained=False, num_classes=CLASSES)
    compare_with_torch(shaken(model), program, name, alpha, size)


def torch_logits(model, network, images: np.ndarray) -> np.ndarray:
    import torch

    inputs = (images - np.float32(network.mean)) / np.float32(network.std)
    with torch.no_grad():
        return model(torch.from_numpy(inputs.transpose(0, 3, 1, 2)).contiguous()).numpy()


@pytest.mark.peers
@pytest.mark.backend
@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    compare_with_timm(name, TIMM[name], 1.0)


@pytest.mark.peers
@pytest.mark.parametrize(("name", "reference", "alpha"), NARROW, ids=lambda value: str(value))
def test_timm_at_other_widths(name, reference, alpha):
    compare_with_timm(name, reference, alpha)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "reference", "alpha"),
    [
        ("v3_large", "tf_mobilenetv3_large_075", 0.75),
        ("v3_small_minimalistic", "tf_mobilenetv3_small_minimal_100", 1.0),
    ],
)
def test_tensorflow_weights_in_timm(name, reference, alpha):
    compare_with_timm(name, reference, alpha, program="timm-tf")


@pytest.mark.peers
def test_timm_with_odd_sizes_pads_alike():
    compare_with_timm("v2", "mobilenetv2_100", 1.0, size=101)


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, np.ndarray]:
    network = architectures.network("v3_small")
    model = keras.applications.MobileNetV3Small((64, 64, 3), weights=None, classes=CLASSES)
    assert network in FAMILY
    return tensors_of(model)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop("conv/kernel"), "1 arrays are missing, the first 'conv/kernel'"),
        (lambda tensors: tensors.update(other=np.zeros(3)), "1 are not of this network, the first 'other'"),
        (lambda tensors: tensors.update({"conv/kernel": np.zeros((3, 3, 3, 8))}), r"'conv/kernel' has shape \(3, 3"),
        (lambda tensors: tensors.pop("logits/bias"), "has no 'logits'"),
    ],
)
def test_a_checkpoint_that_is_not_exactly_this_network_is_refused(checkpoint, change, why):
    tensors = dict(checkpoint)
    change(tensors)
    with pytest.raises(UserError, match=why) as caught:
        fill(tensors, architectures.network("v3_small"), SOURCES["keras"], 1.0, 64, "file.h5")
    assert str(caught.value).startswith("file.h5: ")
    assert "\n" not in str(caught.value)
