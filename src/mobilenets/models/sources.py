"""What other programs call the weights of these networks: one function a program, from our layers to its names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from mobilenets.architectures import SEGMENTATION_HEADS, Head, Layer, Network, SegmentationHead
from mobilenets.architectures.blocks import (
    Block,
    Conv,
    FusedBottleneck,
    InvertedBottleneck,
    MultiQueryAttention,
    Separable,
)
from mobilenets.errors import UserError

# (name of the convolution or dense layer, name of the batch normalization behind it)
Names = dict[str, tuple[str, str]]

IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
INCEPTION = {"mean": [127.5], "std": [127.5]}
NORMALIZATIONS = {"imagenet": IMAGENET, "inception": INCEPTION}


@dataclass(frozen=True)
class Source:
    """A program whose weights can be ported.

    Attributes:
        name: what the command line calls it.
        names: from a network and its layers to what the program calls them, by our layers' names.
        networks: how the names of the networks it has begin.
        padding: of its strided convolutions.
        torch: whether tensors are stored as PyTorch does, channels first.
        normalization: what its weights expect of the pixels, a key of `NORMALIZATIONS`.
        crop: share of the shorter side that its evaluation keeps.
        dilated_step: of its networks below segmenters, see `mobilenets.architectures.Network`.
    """

    name: str
    names: Callable[[Network, list[Layer]], Names]
    networks: tuple[str, ...]
    padding: str = "symmetric"
    torch: bool = True
    normalization: str = "imagenet"
    crop: float = 0.875
    dilated_step: bool = False

    def conventions(self, network: Network, normalization: str | None = None) -> dict:
        """As `mobilenets.architectures.Network.conventions`, of this program's weights for ``network``."""
        # timm's own V1 was trained with the plain scaling. Its other exceptions are named by the caller.
        plain = self.name == "timm" and network.name == "v1"
        # torchvision took V3's epsilon over from TensorFlow, but not V2's.
        tensorflow = self.padding == "same" or (self.name == "torchvision" and network.name != "v2")
        return {
            "padding": self.padding,
            "epsilon": 1e-3 if tensorflow else 1e-5,
            "dilated_step": self.dilated_step,
        } | NORMALIZATIONS[normalization or ("inception" if plain else self.normalization)]


def _by_block(network: Network, layers: list[Layer]) -> Iterator[tuple[int, Block | None, dict[str, Layer]]]:
    """Yields each block's number, its row of the table (None for the head) and its layers by their suffix."""
    for index, (name, group) in enumerate(groupby(layers, key=lambda layer: layer.block)):
        row = network.blocks[index] if index < len(network.blocks) else None
        yield index, row, {(layer.name.removeprefix(name).lstrip("_") if row else layer.name): layer for layer in group}


# timm: what stands inside a block, by the suffixes of ours.
_SQUEEZE = {"reduce": ("se.conv_reduce", ""), "excite": ("se.conv_expand", "")}
_SEPARABLE = {"depthwise": ("conv_dw", "bn1"), "pointwise": ("conv_pw", "bn2")}
_UNEXPANDED = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2"), **_SQUEEZE}
_INVERTED = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
    **_SQUEEZE,
}
_UNIVERSAL = {
    "start": ("dw_start.conv", "dw_start.bn"),
    "expand": ("pw_exp.conv", "pw_exp.bn"),
    "depthwise": ("dw_mid.conv", "dw_mid.bn"),
    "project": ("pw_proj.conv", "pw_proj.bn"),
    "scale": ("layer_scale", ""),
}
_FUSED = {"expand": ("conv_exp", "bn1"), "project": ("conv_pwl", "bn2")}
_ATTENTION = {
    "norm": ("", "norm"),
    "query": ("attn.query.proj", ""),
    "key_down": ("attn.key.down_conv", "attn.key.norm"),
    "key": ("attn.key.proj", ""),
    "value_down": ("attn.value.down_conv", "attn.value.norm"),
    "value": ("attn.value.proj", ""),
    "output": ("attn.output.proj", ""),
    "scale": ("layer_scale", ""),
}


def _timm_block(network: Network, row: Block) -> dict[str, tuple[str, str]]:
    if isinstance(row, Conv):
        return {"": ("conv", "bn1")}
    if isinstance(row, InvertedBottleneck) and not network.name.startswith("v4"):
        return _UNEXPANDED if row.expansion == 1 else _INVERTED
    return {
        Separable: _SEPARABLE,
        InvertedBottleneck: _UNIVERSAL,
        FusedBottleneck: _FUSED,
        MultiQueryAttention: _ATTENTION,
    }[type(row)]


def _timm(network: Network, layers: list[Layer]) -> Names:
    names: Names = {}
    stage, place, filters = -1, 0, None
    last = len(network.blocks) - 1
    for index, row, parts in _by_block(network, layers):
        if row is None:
            names |= {"dense1": ("conv_head", "norm_head"), "logits": ("classifier", "")}
        elif index == 0:
            names["stem"] = ("conv_stem", "bn1")
        elif network.name == "v2" and index == last:
            names |= {layer.name: ("conv_head", "bn2") for layer in parts.values()}
        else:
            # A stage is what has the same channels, but for V4 Conv-S, which begins with two pairs.
            paired = network.name == "v4_conv_small" and index <= 4
            new = index % 2 == 1 if paired else row.filters != filters
            stage, place, filters = (stage + 1, 0, row.filters) if new else (stage, place + 1, row.filters)
            inside = _timm_block(network, row)
            for suffix, layer in parts.items():
                conv, norm = inside.get(suffix, ("", ""))
                prefix = f"blocks.{stage}.{place}."
                names[layer.name] = (conv and prefix + conv, norm and prefix + norm)
    return names


def _torchvision(network: Network, layers: list[Layer]) -> Names:
    names: Names = {}
    for index, row, parts in _by_block(network, layers):
        if row is None:
            # A dropout without weights stands before (V2) or between (V3) the dense layers.
            names |= {
                "dense1": ("classifier.0", ""),
                "logits": ("classifier.3" if network.hidden else "classifier.1", ""),
            }
        elif isinstance(row, Conv):
            names |= {layer.name: (f"features.{index}.0", f"features.{index}.1") for layer in parts.values()}
        else:
            inside = _torchvision_v2(row, parts) if network.name == "v2" else _torchvision_v3(parts)
            for suffix, (conv, norm) in inside.items():
                prefix = f"features.{index}."
                names[parts[suffix].name] = (prefix + conv, norm and prefix + norm)
    return names


def _torchvision_v2(row: Block, parts: dict[str, Layer]) -> dict[str, tuple[str, str]]:
    first = [name for name in ("expand", "depthwise") if name in parts]
    inside = {name: (f"conv.{index}.0", f"conv.{index}.1") for index, name in enumerate(first)}
    return inside | {"project": (f"conv.{len(first)}", f"conv.{len(first) + 1}")}


def _torchvision_v3(parts: dict[str, Layer]) -> dict[str, tuple[str, str]]:
    inside, index = {}, 0
    for name in ("expand", "depthwise", "reduce", "project"):
        if name not in parts:
            continue
        if name == "reduce":
            inside |= {"reduce": (f"block.{index}.fc1", ""), "excite": (f"block.{index}.fc2", "")}
        else:
            inside[name] = (f"block.{index}.0", f"block.{index}.1")
        index += 1
    return inside


def _torchvision_ssdlite(network: Network, layers: list[Layer]) -> Names:
    # Its backbone stands in two parts, as detectors see what the block that strides last has widened.
    deepest = max(layer.reduction for layer in layers)
    block = next(layer.block for layer in layers if layer.reduction == deepest)
    cut = int(block.removeprefix("block"))

    def moved(name: str) -> str:
        index, _, inside = name.removeprefix("features.").partition(".")
        if int(index) != cut:
            part, index = (0, int(index)) if int(index) < cut else (1, int(index) - cut)
            return f"backbone.features.{part}.{index}.{inside}"
        number, _, inside = inside.removeprefix("block.").partition(".")
        return f"backbone.features.0.{cut}.{inside}" if number == "0" else f"backbone.features.1.0.{number}.{inside}"

    names = {
        ours: (moved(conv), norm and moved(norm))
        for ours, (conv, norm) in _torchvision(network, layers).items()
        if conv.startswith("features.")
    }
    for index in range(sum(layer.name.endswith("_scores") for layer in layers)):
        for branch, theirs in (("boxes", "regression_head"), ("scores", "classification_head")):
            prefix = f"head.{theirs}.module_list.{index}"
            names[f"level{index}_{branch}_depthwise"] = (f"{prefix}.0.0", f"{prefix}.0.1")
            names[f"level{index}_{branch}"] = (f"{prefix}.1", "")
        for place, suffix in enumerate(("_reduce", "_depthwise", "")):
            prefix = f"backbone.extra.{index}.{place}"
            names[f"extra{index + 1}{suffix}"] = (f"{prefix}.0", f"{prefix}.1")
    return names


ASPP = "classifier.0"


def _torchvision_segmenter(network: Network, layers: list[Layer]) -> Names:
    names = {
        ours: tuple(name.replace("features.", "backbone.", 1) for name in pair)
        for ours, pair in _torchvision(network, layers).items()
        if pair[0].startswith("features.")
    }
    branches = sum(layer.name.startswith("aspp_project") for layer in layers) - 1
    if not branches > 0:
        return names | {
            "context": ("classifier.cbr.0", "classifier.cbr.1"),
            "context_gate": ("classifier.scale.1", ""),
            "coarse": ("classifier.high_classifier", ""),
            "fine": ("classifier.low_classifier", ""),
        }
    for index in range(branches):
        for ours, theirs in ((f"aspp{index}", "convs"), (f"aspp_project{index}", "project")):
            names[ours] = (f"{ASPP}.{theirs}.{index}.0", f"{ASPP}.{theirs}.{index}.1")
    # Of the arrays as `mobilenets.models.port_segmenter` takes them apart.
    return names | {
        "aspp_image": (f"{ASPP}.convs.{branches}.1", ""),
        "aspp_project_image": (f"{ASPP}.project.{branches}.0", ""),
        "decoder0": ("classifier.1", "classifier.2"),
        "logits": ("classifier.4", ""),
    }


def _keras(network: Network, layers: list[Layer]) -> Names:
    return {"v1": _keras_v1, "v2": _keras_v2, "v3": _keras_v3}[network.name[:2]](network)


def _keras_v1(network: Network) -> Names:
    names = {"stem": ("conv1", "conv1_bn"), "logits": ("conv_preds", "")}
    for index in range(1, len(network.blocks)):
        for ours, theirs in (("depthwise", "dw"), ("pointwise", "pw")):
            names[f"block{index}_{ours}"] = (f"conv_{theirs}_{index}", f"conv_{theirs}_{index}_bn")
    return names


def _keras_v2(network: Network) -> Names:
    last = len(network.blocks) - 1
    names = {
        "stem": ("Conv1", "bn_Conv1"),
        f"block{last}": ("Conv_1", "Conv_1_bn"),
        "logits": ("predictions", ""),
    }
    for index in range(1, last):
        prefix = f"block_{index - 1}_" if index > 1 else "expanded_conv_"
        for part in ("expand", "depthwise", "project"):
            names[f"block{index}_{part}"] = (prefix + part, f"{prefix}{part}_BN")
    return names


def _keras_v3(network: Network) -> Names:
    last = len(network.blocks) - 1
    names = {
        "stem": ("conv", "conv_bn"),
        f"block{last}": ("conv_1", "conv_1_bn"),
        "dense1": ("conv_2", ""),
        "logits": ("logits", ""),
    }
    for index in range(1, last):
        prefix = f"expanded_conv_{index - 1}_" if index > 1 else "expanded_conv_"
        for part in ("expand", "depthwise", "project"):
            names[f"block{index}_{part}"] = (prefix + part, f"{prefix}{part}_bn")
        names[f"block{index}_reduce"] = (f"{prefix}squeeze_excite_conv", "")
        names[f"block{index}_excite"] = (f"{prefix}squeeze_excite_conv_1", "")
    return names


SOURCES = {
    source.name: source
    for source in (
        Source("keras", _keras, ("v1", "v2", "v3"), padding="same", torch=False, normalization="inception"),
        Source("torchvision", _torchvision, ("v2", "v3")),
        Source("timm", _timm, ("v1", "v2", "v3", "v4")),
        # Its networks "tf_…": the same names, but TensorFlow's weights, with all that goes with them.
        Source("timm-tf", _timm, ("v3",), padding="same", normalization="inception"),
    )
}

# By program and head.
DETECTORS = {
    ("torchvision", "ssdlite"): Source(
        "torchvision", _torchvision_ssdlite, ("v3_large",), normalization="inception", crop=1.0
    ),
}


SEGMENTERS = {
    ("torchvision", name): Source("torchvision", _torchvision_segmenter, ("v3_large",), crop=1.0, dilated_step=True)
    for name in ("lraspp_wide", "deeplabv3")
}


def source_of(name: str, network: Network, head: Head | SegmentationHead | None = None) -> Source:
    """Looks a source up, of detectors or segmenters where there is a ``head``, and checks that it has the network.

    Raises:
        UserError: there is no such source, or it has no such network.
    """
    if head:
        source = (DETECTORS | SEGMENTERS).get((name, head.name))
        known = "minimalistic" not in network.name and source and network.name.startswith(source.networks)
        if not known and head.name in SEGMENTATION_HEADS:
            raise UserError(
                f"--from {name}: no {head.title} on {network.title} is known of it; segmenters come from torchvision, "
                "with --head lraspp-wide or deeplabv3 and --net v3-large"
            )
        if not known:
            raise UserError(
                f"--from {name}: no {head.title} detector on {network.title} is known of it; detectors come from "
                "torchvision, with --head ssdlite and --net v3-large-reduced or v3-large"
            )
        return source
    source = SOURCES.get(name)
    if source is None:
        raise UserError(f"--from must be one of {', '.join(SOURCES)}, not {name!r}")
    missing = "minimalistic" in network.name and name in ("torchvision", "timm")
    missing |= "reduced" in network.name and name != "torchvision"
    if missing or not network.name.startswith(source.networks):
        raise UserError(f"--from {name}: it has no {network.title}")
    return source
