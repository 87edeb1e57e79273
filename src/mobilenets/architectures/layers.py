"""A network written out: primitive layers with their shapes, and what each one costs."""

from dataclasses import dataclass

Shape = tuple[int, int, int]  # height, width, channels


@dataclass(frozen=True)
class Layer:
    """One primitive layer of a network, all shapes known.

    Attributes:
        name: unique in the network; the Keras layer carries the same name.
        kind: ``conv``, ``depthwise``, ``norm`` (batch normalization alone), ``attention``, ``layer_scale``,
            ``multiply``, ``add``, ``max_pool``, ``resize`` (bilinear), ``squeeze`` (the mean over the image, kept as
            one pixel), ``global_pool``, ``flatten`` or ``dense``.
        inputs: names of the layers it reads; ``"image"`` is the input of the network.
        input_shape: (height, width, channels) of the first input.
        output_shape: (height, width, channels); pooled and dense layers give (1, 1, channels).
        kernel: side of the square kernel in pixels.
        stride: step in pixels.
        padding: ``same`` (as TensorFlow: of an odd margin the larger part stands right and below) or ``symmetric``
            (as PyTorch: half the kernel on every side); they differ for strides above 1 only.
        dilation: distance of the kernel's taps in pixels.
        bias: whether a bias is added.
        norm: whether batch normalization follows.
        epsilon: that it adds to the variance.
        activation: what follows last: ``relu``, ``relu6``, ``hard_swish``, ``hard_sigmoid``,
            ``sigmoid``, ``gelu`` or None.
        heads: of an attention.
        keys: positions that an attention looks at.
        block: the row of the network's table that it belongs to.
        reduction: how many times smaller than the image that block's output is.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    input_shape: Shape
    output_shape: Shape
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    padding: str = "same"
    bias: bool = False
    norm: bool = False
    epsilon: float = 1e-3
    activation: str | None = None
    heads: int = 0
    keys: int = 0
    block: str = ""
    reduction: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, of convolutions, dense layers and attention (1 MAC = 2 FLOPs)."""
        height, width, channels = self.output_shape
        if self.kind == "conv":
            return height * width * channels * self.kernel**2 * self.input_shape[2]
        if self.kind == "depthwise":
            return height * width * channels * self.kernel**2
        if self.kind == "dense":
            return channels * self.input_shape[2]
        if self.kind == "attention":  # queries by keys, then by values
            return height * width * self.keys * (self.input_shape[2] + channels)
        return 0

    @property
    def params(self) -> int:
        """Trainable parameters; batch normalization counts two a channel (its statistics are not trained)."""
        channels = self.output_shape[2]
        if self.kind == "conv":
            weights = self.kernel**2 * self.input_shape[2] * channels
        elif self.kind == "depthwise":
            weights = self.kernel**2 * channels
        elif self.kind == "dense":
            weights = self.input_shape[2] * channels
        else:
            weights = channels if self.kind == "layer_scale" else 0
        return weights + channels * self.bias + 2 * channels * self.norm


@dataclass(frozen=True)
class Cost:
    """What one image costs.

    Attributes:
        macs: multiply-accumulates.
        params: trainable parameters.
        peak_activation_bytes: the most memory that the activations alive at one time take.
    """

    macs: int
    params: int
    peak_activation_bytes: int


def cost(layers: list[Layer], bytes_per_value: int = 4) -> Cost:
    """Adds up a network.

    The peak counts, at each layer, its output and every earlier output that a layer from here on still reads,
    as a runtime does that reuses its buffers; normalization and activation work in place.

    Args:
        layers: the network, in the order it is computed.
        bytes_per_value: 4 for float32, 2 for float16, 1 for int8.
    """
    last_use = {source: index for index, layer in enumerate(layers) for source in layer.inputs}
    sizes = {"image": _values(layers[0].input_shape)}
    peak = 0
    for index, layer in enumerate(layers):
        sizes[layer.name] = _values(layer.output_shape)
        peak = max(peak, sum(sizes.values()))
        sizes = {name: size for name, size in sizes.items() if last_use.get(name, -1) > index}
    return Cost(
        macs=sum(layer.macs for layer in layers),
        params=sum(layer.params for layer in layers),
        peak_activation_bytes=peak * bytes_per_value,
    )


def _values(shape: Shape) -> int:
    height, width, channels = shape
    return height * width * channels
