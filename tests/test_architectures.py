"""Tables and costs against the papers, published counts and Keras."""

import csv
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from mobilenets import architectures
from mobilenets.architectures import (
    RESNET50,
    V1,
    VGG16,
    cost,
    scale_channels,
    taps,
    with_standard_convolutions,
    write_out,
)

FACTS = list(csv.DictReader((Path(__file__).parent / "facts" / "mobilenet_v1_imagenet.csv").open()))


@pytest.mark.parametrize("row", FACTS, ids=lambda row: f"{row['width_multiplier']}-{row['resolution']}")
def test_v1_costs_are_the_published_ones_to_the_last_digit(row):
    size = int(row["resolution"])
    counted = cost(write_out(V1, (size, size, 3), 1000, float(row["width_multiplier"])))
    assert f"{counted.macs / 1e6:.2f}" == row["macs_exact_millions"]
    assert f"{counted.params / 1e6:.3f}" == row["params_exact_millions"]


def test_v1_parameters_are_those_timm_counts():
    assert cost(write_out(V1)).params == 4_231_976


def test_standard_convolutions_cost_what_the_paper_says():
    layers = write_out(with_standard_convolutions(V1))
    # The paper's 4866 M leaves the dense layer out, its 29.3 M parameters do not.
    assert round(sum(layer.macs for layer in layers if layer.kind == "conv") / 1e6) == 4866
    assert round(cost(layers).params / 1e6, 1) == 29.3


@pytest.mark.parametrize(("network", "macs", "params"), [(VGG16, 15.47, 138_357_544), (RESNET50, 3.86, 25_557_032)])
def test_the_classics_cost_what_is_known(network, macs, params):
    counted = cost(write_out(network))
    assert counted.params == params
    assert round(counted.macs / 1e9, 2) == macs


@pytest.mark.parametrize("network", [VGG16, RESNET50], ids=lambda network: network.name)
def test_the_classics_have_the_layers_of_keras(network):
    keras = pytest.importorskip("keras")
    reference = getattr(keras.applications, network.title.replace("-", ""))(weights=None)
    theirs = [
        tuple(layer.output.shape[1:])
        for layer in reference.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    layers = [layer for layer in write_out(network) if layer.kind in ("conv", "dense")]
    ours = [layer.output_shape if layer.kind == "conv" else layer.output_shape[2:] for layer in layers]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize(
    ("channels", "alpha", "expected"),
    [
        (32, 1, 32),
        (32, 0.5, 16),
        (32, 0.01, 8),
        (64, 0.35, 24),
        (32, 0.35, 16),
        (1024, 1.4, 1432),
        (32, 0.25, 8),
    ],
)
def test_channels_are_rounded_as_the_authors_do(channels, alpha, expected):
    assert scale_channels(channels, alpha) == expected


def test_channels_are_multiples_of_8_and_never_10_percent_under_at_any_width():
    for alpha in (0.001, 0.1, 0.33, 0.77, 1.0, 1.3, 3.7):
        for channels in (8, 24, 32, 96, 1024):
            scaled = scale_channels(channels, alpha)
            assert scaled % 8 == 0
            assert scaled >= max(8, 0.9 * channels * alpha)


def test_each_separable_block_costs_the_papers_formula():
    layers = write_out(V1)
    for depthwise, pointwise in itertools.pairwise(layers):
        if depthwise.kind == "depthwise":
            height, width, outputs = pointwise.output_shape
            standard = height * width * outputs * 9 * depthwise.input_shape[2]
            assert (depthwise.macs + pointwise.macs) / standard == pytest.approx(1 / outputs + 1 / 9, rel=1e-12)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride_gives_the_expected_maps_and_keeps_the_parameters(output_stride):
    layers = write_out(V1, (256, 256, 3), output_stride=output_stride)
    found = taps(layers)
    assert sorted(found) == [stride for stride in (2, 4, 8, 16, 32) if stride <= output_stride]
    for stride, layer in found.items():
        assert layer.output_shape[:2] == (256 // stride, 256 // stride)
    assert cost(layers).params == cost(write_out(V1)).params
    dilations = [layer.dilation for layer in layers if layer.kind == "depthwise"]
    assert max(dilations) == 32 // output_stride


def test_small_images_keep_their_pixels_in_the_stem():
    assert write_out(V1, (63, 63, 3))[0].stride == 1
    assert write_out(V1, (64, 64, 3))[0].stride == 2
    assert write_out(V1, (128, 128, 3), resolution_multiplier=0.25)[0].stride == 1
    assert taps(write_out(V1, (32, 32, 3)))[16].output_shape == (2, 2, 1024)


def test_peak_memory_counts_what_a_shortcut_keeps_alive():
    # V1 is a chain: the widest input + output. At 224 that is block 1's pointwise, 112x112x(32+64).
    assert cost(write_out(V1)).peak_activation_bytes == 4 * 112 * 112 * (32 + 64)
    assert cost(write_out(V1), bytes_per_value=1).peak_activation_bytes == 112 * 112 * (32 + 64)
    # In ResNet-50 an addition of the second stage: the branch, the shortcut and their sum.
    assert cost(write_out(RESNET50)).peak_activation_bytes == 4 * 3 * 56 * 56 * 256


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"input_shape": (224, 224)}, "input_shape"),
        ({"input_shape": (224, 0, 3)}, "input_shape"),
        ({"input_shape": "224"}, "input_shape"),
        ({"input_shape": (7, 224, 3)}, "at least 8x8"),
        ({"input_shape": (32, 32, 3), "resolution_multiplier": 0.2}, "at least 8x8"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"width_multiplier": 0}, "width_multiplier"),
        ({"width_multiplier": -1}, "width_multiplier"),
        ({"width_multiplier": math.nan}, "width_multiplier"),
        ({"width_multiplier": math.inf}, "width_multiplier"),
        ({"resolution_multiplier": 0}, "resolution_multiplier"),
        ({"resolution_multiplier": 1.01}, "resolution_multiplier"),
        ({"output_stride": 4}, "output_stride"),
    ],
)
def test_a_bad_argument_is_named_with_its_range(arguments, word):
    with pytest.raises(ValueError, match=word) as caught:
        write_out(V1, **arguments)
    assert "\n" not in str(caught.value)


def test_info_prints_everything_beside_each_other(cli):
    status, out, err = cli("info", "v1", "--alpha", "0.75", "--size", "160")
    assert (status, err) == (0, "")
    for word in (
        "166.40 M",
        "2.59 M",
        "block13_pointwise",
        "standard",
        "VGG16",
        "ResNet-50",
        "α²P",
        "1/N + 1/D²",
    ):
        assert word in out


def test_info_as_json_adds_up(cli):
    status, out, _ = cli("info", "v1", "--json")
    report = json.loads(out)
    assert status == 0
    assert report["macs"] == sum(layer["macs"] for layer in report["layers"]) == 568_740_352
    assert report["params"] == sum(layer["params"] for layer in report["layers"])
    ratio = report["reduction"]["macs_ratio"]
    assert 0.11 < ratio < 0.12  # "8 to 9 times less computation" (section 3.1)


def test_rho_and_size_say_the_same(cli):
    by_rho = json.loads(cli("info", "v1", "--rho", "0.714", "--json")[1])
    by_size = json.loads(cli("info", "v1", "--size", "160", "--json")[1])
    assert by_rho["macs"] == by_size["macs"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("v7",), "v1, v2, v3_large"),
        (("v1", "--alpha", "-1"), "alpha"),
        (("v1", "--rho", "1.5"), "--rho"),
        (("v1", "--rho", "0.5", "--size", "160"), "one of them"),
        (("v1", "--size", "4"), "--size"),
        (("v1", "--size", "many"), "--size"),
        (("v1", "--output-stride", "5"), "output_stride"),
        (("v1", "--classes", "0"), "num_classes"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(cli, arguments, word):
    status, out, err = cli("info", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("mobilenets: error: ")
    assert err.count("\n") == 1
    assert word in err


def test_architectures_need_nothing_but_the_standard_library():
    code = (
        "import sys, mobilenets.architectures;"
        "sys.exit(', '.join({'keras', 'numpy', 'rich', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_network_is_found_by_its_name():
    assert architectures.network("v1") is V1
    with pytest.raises(ValueError, match="v1, v2, v3_large"):
        architectures.network("V8")


FAMILY_FACTS = list(csv.DictReader((Path(__file__).parent / "facts" / "mobilenet_v3_v4_imagenet.csv").open()))
V2_FACTS = list(csv.DictReader((Path(__file__).parent / "facts" / "mobilenet_v2_imagenet.csv").open()))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("v1", 4_231_976),  # timm
        ("v2", 3_504_872),  # torchvision
        ("v3_large", 5_483_032),
        ("v3_small", 2_542_856),  # torchvision
        ("v4_conv_small", 3_774_024),  # timm, as all that follow
        ("v4_conv_medium", 9_715_512),
        ("v4_conv_large", 32_590_864),
        ("v4_hybrid_medium", 11_074_648),
        ("v4_hybrid_large", 37_764_624),
    ],
)
def test_parameters_are_exactly_those_others_count(name, params):
    assert cost(write_out(architectures.network(name))).params == params


@pytest.mark.parametrize("row", V2_FACTS, ids=lambda row: f"{row['width_multiplier']}-{row['resolution']}")
def test_v2_costs_are_the_published_ones(row):
    size = int(row["resolution"])
    counted = cost(write_out(architectures.V2, (size, size, 3), 1001, float(row["width_multiplier"])))
    assert counted.macs / 1e6 == pytest.approx(float(row["macs_millions"]), abs=1.01)
    # The authors count 1001 classes and leave out what batch normalization learns.
    kernels = counted.params - sum(
        2 * layer.output_shape[2]
        for layer in write_out(architectures.V2, (size, size, 3), 1001, float(row["width_multiplier"]))
        if layer.norm
    )
    assert kernels / 1e6 == pytest.approx(float(row["params_millions"]), rel=0.01)


@pytest.mark.parametrize("row", FAMILY_FACTS, ids=lambda row: row["network"])
def test_v3_and_v4_costs_are_the_published_ones(row):
    name, size = row["network"], int(row["resolution"])
    name, _, alpha = name.rpartition("_") if name.startswith("v3") else (name, "", "1.0")
    counted = cost(write_out(architectures.network(name), (size, size, 3), 1000, float(alpha)))
    published = float(row["macs_millions"])
    if name.startswith("v4"):
        # The paper's numbers are these counts in units of 2^30 (a billion of 1024s), to one decimal of them.
        assert round(counted.macs / 2**30, 1) == published / 1000
    else:
        assert counted.macs / 1e6 == pytest.approx(published, abs=1)
    if row["network"] == "v3_small_0.75":
        # The authors' README prints 2.4 M here, as it does 2.9 M at width 1; timm counts what we count.
        assert counted.params == 2_041_872
        return
    digits = 2 if name.startswith("v4") else 1
    assert counted.params / 1e6 == pytest.approx(float(row["params_millions"]), abs=1.01 * 10**-digits)


@pytest.mark.parametrize("network", architectures.FAMILY, ids=lambda network: network.name)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_network_has_the_usual_taps(network, output_stride):
    found = taps(write_out(network, (256, 256, 3), output_stride=output_stride))
    assert sorted(found) == [stride for stride in (2, 4, 8, 16, 32) if stride <= output_stride]
    for stride, layer in found.items():
        assert layer.output_shape[:2] == (256 // stride, 256 // stride)


def test_no_shortcut_appears_where_a_stride_is_dilated_away():
    for network in architectures.FAMILY:
        # At this width nearly all blocks have 8 channels, so only the stride tells which rows have no shortcut.
        adds = [
            [
                layer.name
                for layer in write_out(network, (256, 256, 3), 10, 0.01, output_stride=stride)
                if layer.kind == "add"
            ]
            for stride in (8, 32)
        ]
        assert adds[0] == adds[1]


def test_names_may_be_typed_with_dashes():
    assert architectures.network("V3-Large") is architectures.V3_LARGE
