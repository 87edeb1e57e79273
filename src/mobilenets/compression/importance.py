"""How much each channel of a network matters: three criteria of the literature, comparable over all layers."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mobilenets.architectures import Channels
from mobilenets.models import keras
from mobilenets.models.layers import BatchNormReLU
from mobilenets.models.statistics import FixedMode
from mobilenets.models.tasks import classes_of, detects, learning, segments
from mobilenets.training import box_losses, mask_losses

CRITERIA = ("taylor", "bn", "l2")  # the best measured first
ops = keras.ops
Scores = dict[int, np.ndarray]  # group -> one number a channel, (channels,); the greater, the more it matters


def importance(
    model: keras.Model, channels: Channels, criterion: str, batches: Iterable[tuple[np.ndarray, np.ndarray]] = ()
) -> Scores:
    """Scores every channel that may be removed.

    Args:
        model: of `mobilenets.models.tasks.built`; it stays as it is.
        channels: of its layers.
        criterion: ``taylor``, the squared change of the loss that removing the channel would make to first order,
            averaged over batches (arXiv 1906.10771, equation 8, with gates behind batch normalization); ``bn``, the
            size of batch normalization's factor (arXiv 1708.06519); ``l2``, the norm of the channel's weights
            against that of its layer's (arXiv 1608.08710).
        batches: images (batch, size, size, 3), 0..255, and one-hot labels (batch, classes), objects as
            `mobilenets.training.box_losses.loss_of` takes them, or masks as `mobilenets.training.mask_losses.loss_of`
            does; for ``taylor`` alone.
    """
    makers = {
        index: [name for name in group.makers if name not in group.gates]
        for index, group in enumerate(channels.groups)
        if group.movable
    }
    if criterion == "taylor":
        found = _changes(model, sorted(name for names in makers.values() for name in names), batches)
    else:
        found = {name: _size(model, name, criterion) for names in makers.values() for name in names}
    # Outputs that are added up are removed together, and so are their shares.
    return {index: np.sum([found[name] for name in names], axis=0) for index, names in makers.items()}


def _norm(model: keras.Model, name: str) -> BatchNormReLU | None:
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{name}_bn") if f"{name}_bn" in names else None


def _size(model: keras.Model, name: str, criterion: str) -> np.ndarray:
    norm = _norm(model, name)
    if criterion == "bn" and norm is not None:
        return np.abs(ops.convert_to_numpy(norm.gamma))
    kernel = ops.convert_to_numpy(model.get_layer(name).kernel)
    found = np.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1))))
    return found / max(np.sqrt((found**2).mean()), 1e-12)


def _changes(model: keras.Model, makers: list[str], batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """What a factor on each channel would change of the loss, squared and averaged over batches."""
    # By the moving statistics: see `FixedMode`. Nothing of the model moves.
    networks = FixedMode(learning(model), training=False)
    variables = {variable.path: place for place, variable in enumerate(networks.trainable_variables)}
    gates = {}
    for name in makers:
        layer = _norm(model, name) or model.get_layer(name)
        gates[name] = [variables[variable.path] for variable in layer.trainable_variables]
    listener = _Listener(gates)
    networks.compile(
        optimizer=listener,
        loss=_loss_of(model),
        jit_compile=keras.backend.backend() == "jax",
    )
    listener.build(networks.trainable_variables)
    count = 0
    for images, labels in batches:
        networks.train_on_batch(images, labels)
        count += 1
    return {name: ops.convert_to_numpy(sums) / max(count, 1) for name, sums in zip(gates, listener.sums, strict=True)}


def _loss_of(model: keras.Model) -> Callable[[Any, Any], Any]:
    if segments(model):
        return mask_losses.loss_of(classes_of(model))
    return box_losses.loss_of(model) if detects(model) else keras.losses.CategoricalCrossentropy(from_logits=True)


class _Listener(keras.optimizers.Optimizer):
    """An optimizer that changes nothing: it adds up what the gradients say of each channel, on every backend.

    Args:
        gates: layer -> places, among the variables to be trained, of those whose last axis is its channels.
    """

    def __init__(self, gates: dict[str, list[int]]) -> None:
        super().__init__(learning_rate=0.0)
        self._gates = gates

    def build(self, variables: list) -> None:
        """Makes a sum for every channel."""
        super().build(variables)
        self.sums = [
            self.add_variable((variables[places[0]].shape[-1],), name=f"sums_{name}")
            for name, places in self._gates.items()
        ]

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Adds up the squared change of one batch."""
        variables = trainable_variables or self._trainable_variables
        for sums, places in zip(self.sums, self._gates.values(), strict=True):
            change = 0.0
            for place in places:
                product = ops.convert_to_tensor(variables[place]) * grads[place]
                change = change + ops.sum(product, axis=tuple(range(len(product.shape) - 1)))
            sums.assign(sums + change**2)
        self.iterations.assign_add(1)
