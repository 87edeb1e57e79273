"""Heads that say of each pixel what it shows, as tables, written out on the features of any network."""

from dataclasses import dataclass, replace

from mobilenets.architectures.heads import HeadLayers, before_widening, write_behind
from mobilenets.architectures.layers import Layer, Shape
from mobilenets.architectures.networks import OUTPUT_STRIDES, Network
from mobilenets.errors import UserError

SEGMENTATION_SIZE = 256  # pixels of the images, where nobody names a size
DEFAULT_SEGMENTATION_HEAD = "lraspp"
MOST_CLASSES = 255  # so that each of them, and what is ignored, fit into 8 bits
LOGITS = "logits"  # the layer that says it, on a map smaller than the image


@dataclass(frozen=True)
class LRASPP:
    """Lite reduced atrous spatial pyramid pooling (Howard et al. 2019, arXiv 1905.02244, section 6.4, figure 10).

    The mean over the whole image weighs the channels; the paper's pools 49x49 pixels of larger images. The map is
    brought to the finer one's size behind its last 1x1 convolution, not before it: what comes out is the same, for
    both are linear and the weights of a bilinear resize add up to 1, and a resize of classes costs less than one of
    channels.

    Attributes:
        channels: of the coarse map.
        widened: whether the network's 1x1 convolutions before its classifier are kept (torchvision); they cost much.
        first: whether the fine map is the first at its stride (torchvision), not the last.
        output_stride: 8, 16 or 32: how much smaller than the image the coarse map is. Weights fit each of them.
        fast: whether what comes out has a fourth of the image's height and width, rounded up, instead of all of it.
    """

    name: str = "lraspp"
    title: str = "LR-ASPP"
    channels: int = 128
    widened: bool = False
    first: bool = False
    output_stride: int = 16
    fast: bool = False

    def write(self, made: HeadLayers, features: dict[int, Layer], classes: int) -> Layer:
        """Adds the head's layers; returns the last."""
        channels = made.scale(self.channels)
        source = _coarse(made.layers, features, self.widened)
        fine = features[min(8, max(features))]
        if self.first:
            block = next(layer.block for layer in made.layers if layer.reduction == fine.reduction)
            fine = [layer for layer in made.layers if layer.block == block][-1]
        map_ = made.convolution("context", source, filters=channels)
        mean = made.squeezed("context_squeeze", source)
        gate = made.convolution("context_gate", mean, filters=channels, norm=False, activation="sigmoid")
        coarse = made.output("coarse", made.weighed("context_weigh", map_, gate), classes)
        return made.sum(LOGITS, made.output("fine", fine, classes), coarse)


@dataclass(frozen=True)
class DeepLab:
    """Atrous spatial pyramid pooling, with a decoder or without (Chen et al., arXiv 1802.02611 and 1706.05587).

    A 1x1 convolution of maps that lie one behind the other is the sum of one of each map, and so it is written: what
    a narrower network takes of its channels are then the first of each map.

    Attributes:
        channels: of all maps but the finest.
        rates: distances of the kernels' taps at an output stride of 16 (1802.02611, section 4.1: twice as far at 8).
        scaled: whether they follow the output stride; torchvision's do not.
        separable: whether convolutions are depthwise separable (section 3.1, "Modified Aligned Xception").
        fine: channels that the finest map is reduced to for the decoder (section 4.1); 0 for none.
        widened, output_stride, fast: as in `LRASPP`; "the second last feature map" is as good without those
            convolutions (arXiv 1801.04381, section 6.3).
    """

    name: str
    title: str
    channels: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    scaled: bool = True
    separable: bool = True
    fine: int = 48
    widened: bool = False
    output_stride: int = 16
    fast: bool = False

    def write(self, made: HeadLayers, features: dict[int, Layer], classes: int) -> Layer:
        """Adds the head's layers; returns the last."""
        channels = made.scale(self.channels)
        source = _coarse(made.layers, features, self.widened)
        branches = [made.convolution("aspp0", source, filters=channels)]
        for index, rate in enumerate(self.rates, start=1):
            dilation = max(1, rate * 16 // source.reduction) if self.scaled else rate
            branches.append(self._spatial(made, f"aspp{index}", source, channels, dilation))
        # A batch has one pixel an image here, too few for statistics: there is a bias instead.
        mean = made.squeezed("aspp_mean", source)
        mean = made.convolution("aspp_image", mean, filters=channels, norm=False, bias=True)
        x = self._joined(made, "aspp", branches, channels, mean)
        if self.fine:
            fine = features[min(4, max(features))]
            small = made.convolution("fine", fine, filters=made.scale(self.fine))
            large = made.resized("decoder_resize", x, fine.output_shape[:2])
            around = [
                made.convolution(f"decoder0_{name}_depthwise", each, "depthwise", kernel=3)
                for name, each in (("fine", small), ("coarse", large))
            ]
            x = self._joined(made, "decoder0", around, channels)
        x = self._spatial(made, "decoder1" if self.fine else "decoder0", x, channels)
        return made.output(LOGITS, x, classes)

    def _spatial(self, made: HeadLayers, name: str, source: Layer, channels: int, dilation: int = 1) -> Layer:
        if self.separable:
            return made.separable(name, source, channels, dilation=dilation)
        return made.convolution(name, source, filters=channels, kernel=3, dilation=dilation)

    @staticmethod
    def _joined(made: HeadLayers, name: str, maps: list[Layer], channels: int, mean: Layer | None = None) -> Layer:
        """A 1x1 convolution of all maps, with batch normalization and activation."""
        parts = [
            made.convolution(f"{name}_project{index}", each, filters=channels, activation=None)
            for index, each in enumerate(maps)
        ]
        if mean is not None:
            parts.append(made.output(f"{name}_project_image", mean, channels))
        total = parts[0]
        for index, part in enumerate(parts[1:], start=1):
            last = part is parts[-1]
            total = made.sum(f"{name}_sum{index}", total, part, made.activation if last else None)
        return total


SegmentationHead = LRASPP | DeepLab
SEGMENTATION_HEADS: dict[str, SegmentationHead] = {
    head.name: head
    for head in (
        LRASPP(),
        DeepLab("deeplabv3_plus", "DeepLabv3+"),
        # As torchvision has them, for its weights.
        LRASPP("lraspp_wide", "LR-ASPP, wide", widened=True, first=True),
        DeepLab("deeplabv3", "DeepLabv3", rates=(12, 24, 36), scaled=False, separable=False, fine=0, widened=True),
    )
}


def segmentation_head(name: str, output_stride: int = 16, fast: bool = False) -> SegmentationHead:
    """Looks a head up by the name that the command line uses; dashes and underscores are the same.

    Args:
        name: of `SEGMENTATION_HEADS`.
        output_stride: 8, 16 or 32.
        fast: whether the output has a fourth of the image's height and width.

    Raises:
        UserError: there is none of that name, or the output stride is another.
    """
    found = SEGMENTATION_HEADS.get(name.lower().replace("-", "_"))
    if found is None:
        raise UserError(f"--head {name}: unknown; choose of {', '.join(SEGMENTATION_HEADS)}")
    if output_stride not in OUTPUT_STRIDES:
        raise UserError(f"--output-stride must be one of {', '.join(map(str, OUTPUT_STRIDES))}, not {output_stride!r}")
    return replace(found, output_stride=output_stride, fast=fast)


def write_out_segmenter(
    network: Network,
    head: SegmentationHead,
    input_shape: Shape,
    num_classes: int,
    width_multiplier: float = 1.0,
    resolution_multiplier: float = 1.0,
) -> list[Layer]:
    """Writes a network out with a segmenter's head instead of its classifier's.

    The last layer, `LOGITS`, is a map at stride 8 (`LRASPP`) or 4 (with a decoder) or the output stride; the resize
    to the image's size is not listed.

    Args:
        network: the table.
        head: of `segmentation_head`.
        input_shape: (height, width, channels) of the images.
        num_classes: background among them, where there is one.
        width_multiplier: alpha > 0, of network and head.
        resolution_multiplier: rho in (0, 1].

    Raises:
        UserError: an argument is out of its range.
    """

    if isinstance(num_classes, int) and num_classes > MOST_CLASSES:
        raise UserError(f"a segmenter tells at most {MOST_CLASSES} classes apart, not {num_classes}")

    def write(made: HeadLayers, features: dict[int, Layer]) -> list[str]:
        # Both papers have ReLU; it is clipped where the network's is, for integers.
        made.activation = network.activation if network.activation.startswith("relu") else "relu"
        return [head.write(made, features, num_classes).name]

    about = input_shape, num_classes, width_multiplier, resolution_multiplier
    return write_behind(network, write, "segmenter", *about, head.output_stride)


def _coarse(layers: list[Layer], features: dict[int, Layer], widened: bool) -> Layer:
    last = features[max(features)]
    return last if widened else before_widening(layers, last)
