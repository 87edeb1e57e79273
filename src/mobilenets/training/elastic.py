"""Training one set of weights for several widths and resolutions at once.

In every step the widest network learns from the labels at the largest resolution; narrower ones learn on the same
images what it says of them, the narrowest always and two of other widths, at resolutions drawn at random (sandwich
rule and in-place distillation, arXiv 1903.05134, sections 3.2 and 3.3; resolutions, arXiv 1909.12978, section 3.2).
Their gradients are added up before the weights change, so that a step needs no more memory than the widest network's.

Narrower detectors learn the objects themselves: what the widest says, it says of its own locations, of which another
resolution has others, fewer and with other anchors, so that its numbers mean nothing to them. Narrower segmenters learn
the masks themselves, of as many pixels as their images: on 320 scenes of `stamps`, after 14 epochs, what the widest
says of each pixel left V1's four networks (alpha 0.25 and 0.5, 64 and 96 pixels) at a mIoU 1.1 points lower, the mean
of two runs.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from mobilenets.architectures import SMALL_IMAGE, AnyHead, Network
from mobilenets.data.resizing import resize_all
from mobilenets.models import keras
from mobilenets.models.builder import at_size
from mobilenets.models.elastic import Member, SubNetwork, sub_network
from mobilenets.models.layers import MultiQueryAttention
from mobilenets.models.tasks import classes_learned

ops = keras.ops
# That images of a second size make TensorFlow trace a step once more is meant, and no user can act on it.
logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())
PASSES = 4  # networks a step, at most: the widest, the narrowest and two drawn at random


def turns(members: Sequence[Member], passes: int = PASSES) -> int:
    """Networks a step: no more than there are."""
    return min(passes, len(members))


class Widest(keras.Model):
    """The widest classifier; a step of training it tells its logits, besides its metrics."""

    def __init__(self, network: keras.Model) -> None:
        super().__init__(name=network.name)
        self.network = network
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Logits (batch, classes)."""
        return self.network(images, training=training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The metrics, and under ``logits`` what was computed of this batch."""
        return super().compute_metrics(x, y, y_pred, sample_weight) | {"logits": y_pred}


class Sandwich:
    """Steps of training all the networks of a grid.

    Args:
        widest: compiled; a `Widest`, or what `mobilenets.models.tasks.learning` makes of a detector or a segmenter.
        network: the table.
        members: the networks that can be drawn, the widest at the largest resolution among them.
        seed: of what is drawn.
        passes: networks a step, at least 2; fewer where there are not so many.
        head: a detector's or a segmenter's, or None.
        loss: of a model like those of the members, from what the widest is told; None lets them learn what it says.
        told_at: what is told of images of a size, in pixels; None where that is the same at every size.
    """

    def __init__(
        self,
        widest: keras.Model,
        network: Network,
        members: Sequence[Member],
        seed: int,
        passes: int = PASSES,
        head: AnyHead | None = None,
        loss: Callable[[keras.Model], Any] | None = None,
        told_at: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> None:
        self._widest, self._network, self._seed, self._head = widest, network, seed, head
        self._passes = turns(members, passes)
        self._loss, self._told_at = loss, told_at
        self._whole = widest.network if isinstance(widest, Widest) else widest
        self._classes = classes_learned(self._whole, head)
        # Every size of a detector has locations of its own, and a segmenter's maps are brought to sizes of their own.
        self._fixed = bool(head) or any(isinstance(layer, MultiQueryAttention) for layer in self._whole.layers)
        rest = sorted(members)[:-1]
        self._by_width = [list(same) for _, same in groupby(rest, key=itemgetter(0))]
        self._made: dict[Any, SubNetwork] = {}

    def __call__(
        self, images: np.ndarray, told: np.ndarray, weights: np.ndarray | None, place: tuple[int, int]
    ) -> dict[str, float]:
        """One step.

        Args:
            images: (batch, size, size, channels), 0..255, of the largest resolution.
            told: what the widest is told of them: labels, objects, whose boxes are the same at every size, or masks.
            weights: (batch,), or None where all count alike.
            place: epoch and step, on which alone depends what is drawn.

        Returns:
            The widest network's ``loss`` and metrics on them.
        """
        self._align()
        results = self._widest.train_on_batch(images, told, weights, return_dict=True)
        if not self._loss:
            told = np.asarray(ops.convert_to_numpy(results.pop("logits")), np.float32)[:, : self._classes]
        for member in self._drawn(place):
            size = member[1]
            said = told if self._told_at is None else self._told_at(told, size)
            self._sub(member).train_on_batch(resize_all(images, size), said, weights)
        return results

    def _align(self) -> None:
        """Drops what is left of a step of which some gradients were no numbers, and were not counted.

        In float16 they are none now and then, for the loss is scaled up until they are.
        """
        inner = getattr(self._widest.optimizer, "inner_optimizer", None)
        begun = 0 if inner is None else int(ops.convert_to_numpy(inner._iterations)) % self._passes
        if begun:
            for gradients in inner._accumulated_gradients:
                gradients.assign(ops.zeros(gradients.shape, gradients.dtype))
            inner._iterations.assign(inner._iterations + (self._passes - begun))

    def _drawn(self, place: tuple[int, int]) -> list[Member]:
        """Which networks take part in a step, besides the widest: the narrowest, and others of any other width.

        Drawn again as often as the others, the narrowest would have more turns than all of them. So it was once, and
        15 of V1's 16 networks came out worse on Fashion-MNIST, after 12 epochs by 0.3 points in the mean.
        """
        rng = np.random.default_rng([self._seed, *place])
        narrowest, *others = self._by_width
        others = others or [narrowest]
        widths = [narrowest, *(others[index] for index in rng.integers(len(others), size=self._passes - 2))]
        found: list[Member] = []
        for members in widths:  # none twice, which would count twice
            left = [member for member in members if member not in found]
            if not left:  # all of that width take part already
                left = [member for same in self._by_width for member in same if member not in found]
            found.append(left[rng.integers(len(left))])
        return found

    def _sub(self, member: Member) -> SubNetwork:
        """A network of the width that takes images of the size.

        One serves all sizes, if it may: TensorFlow then traces two steps for a width instead of one for every size,
        and keeps them in memory.
        """
        alpha, size = member
        form = "small" if size < SMALL_IMAGE else "usual"  # whose stems step differently
        key = (alpha, size if self._fixed else form)
        if key not in self._made:
            own = sub_network(self._whole, self._classes, self._network, *member, head=self._head).own
            sub = SubNetwork(self._whole, own if self._fixed else at_size(own, None), logits=True)
            policies = {layer.name: layer.dtype_policy for layer in self._whole.layers}
            for layer in sub.own.layers:
                layer.dtype_policy = policies.get(layer.name, layer.dtype_policy)
            loss = self._loss(own) if self._loss else _divergence
            sub.compile(optimizer=self._widest.optimizer, loss=loss, jit_compile=keras.backend.backend() == "jax")
            self._made[key] = sub
        return self._made[key]


def _divergence(wanted: Any, given: Any) -> Any:
    """Of the probabilities of one network's logits from another's, for each image (batch,)."""
    wanted, given = ops.log_softmax(wanted), ops.log_softmax(given)
    return ops.sum(ops.exp(wanted) * (wanted - given), axis=-1)
