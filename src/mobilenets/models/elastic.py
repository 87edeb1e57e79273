"""One set of weights, run at several widths and resolutions: a narrower network is the first channels of the widest.

Slimmable networks (arXiv 1812.08928, 1903.05134). The builder makes every sub-network as the ordinary model that it is;
of its variables, only the shapes are used to cut what it computes with out of the widest network's. Only the moving
statistics of batch normalization cannot be shared: every sub-network has its own.

Variables are found by the names of their layers: a detector for smaller images may lack its coarsest maps, and whatever
belongs to them.
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import card as cards
from mobilenets.architectures import AnyHead, Network, check, effective_resolution, head_of, network
from mobilenets.errors import UserError
from mobilenets.files import write_arrays
from mobilenets.models import keras
from mobilenets.models.saving import load_model
from mobilenets.models.tasks import built, classes_of, learning

ops = keras.ops
LARGEST_FILE = 2**30  # bytes, unpacked

Member = tuple[float, int]  # width multiplier and pixels of the image's side
Statistics = dict[Member, list[np.ndarray]]  # the variables that are not trained, in a model's order


class SubNetwork(keras.Model):
    """A narrower network that computes with the first channels of a wider one's weights, as they are at the time.

    Trained, it trains the wider one. The statistics of batch normalization are its own.

    Args:
        whole: the widest network; a classifier or a detector, or a model with the variables of one.
        own: one of the same table and head, none of its variables larger.
        logits: whether it gives what a loss is computed from, logits or a detector's raw output.
    """

    def __init__(self, whole: keras.Model, own: keras.Model, logits: bool = False) -> None:
        super().__init__(name=f"{own.name}_sub")
        self.whole = whole
        # Neither is a layer of this one: their variables are told below.
        network = learning(own) if logits else own
        self._parts = lambda: (own, network)
        self.jit_compile = keras.backend.backend() == "jax"
        self.built = True

    @property
    def own(self) -> keras.Model:
        """The ordinary model: its statistics are used, its other variables are not."""
        return self._parts()[0]

    @property
    def trainable_variables(self) -> list:
        return self.whole.trainable_variables

    @property
    def non_trainable_variables(self) -> list:
        return self.own.non_trainable_variables

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Computes what the ordinary model does of images (batch, height, width, channels), 0..255.

        Images of another size than the network's are resized, as ``resolution_multiplier`` does inside a model.
        """
        network = self._parts()[1]
        size = tuple(network.input_shape[1:3])
        if size[0] and tuple(images.shape[1:3]) != size:
            images = ops.image.resize(ops.cast(images, "float32"), size, data_format="channels_last")
        statistics = [variable.value for variable in network.non_trainable_variables]
        slices = self.slices(network.trainable_variables)
        outputs, _ = network.stateless_call(slices, statistics, images, training=training)
        if training:
            # What takes no part would have no gradient on TensorFlow and PyTorch, not even 0, and Keras leaves such
            # variables out of a step: they would lose what other networks' gradients have added up for them.
            for variable in self._unused():
                outputs = outputs + 0.0 * ops.sum(ops.convert_to_tensor(variable))
        return outputs

    def make_train_function(self, force: bool = False) -> None:
        """Makes the step of training, once for all sizes of images where the network takes several.

        TensorFlow would trace it for the first size, and again for the second; a trace of V1 takes some seconds and
        75 MB, which are not given back.
        """
        if keras.backend.backend() != "tensorflow" or self.own.input_shape[1] is not None:
            super().make_train_function(force)
        elif force or not self.train_function:
            self.train_function = _for_any_size(self.train_step)

    def slices(self, like: list) -> list:
        """What this network computes with instead of variables of its own, in their order."""
        wide = {variable.path: variable for variable in self.whole.trainable_variables}
        return [first(wide[variable.path], variable.shape) for variable in like]

    def _unused(self) -> list:
        """The widest network's variables of layers that this one lacks."""
        known = {variable.path for variable in self.own.trainable_variables}
        return [variable for variable in self.whole.trainable_variables if variable.path not in known]

    def extract(self) -> keras.Model:
        """The ordinary model, given copies of the weights; it has the statistics already."""
        own = self.own.trainable_variables
        for variable, value in zip(own, self.slices(own), strict=True):
            variable.assign(np.array(ops.convert_to_numpy(value)))
        return self.own


def _for_any_size(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step of training on TensorFlow, traced for images of no height and width in particular."""
    import tensorflow as tf

    traced = tf.function(step, autograph=False)

    def function(batches: Iterator[tuple]) -> Any:
        images, *rest = next(batches)
        batch = (tf.convert_to_tensor(images), *(part if part is None else tf.convert_to_tensor(part) for part in rest))
        count, *_, channels = batch[0].shape
        any_size = tf.TensorSpec((count, None, None, channels), batch[0].dtype)
        return traced.get_concrete_function((any_size, *batch[1:]))(batch)

    return function


def first(variable: Any, shape: tuple[int, ...]) -> Any:
    """The first channels of a variable, in all its dimensions, as a tensor of this shape."""
    value = ops.convert_to_tensor(variable)
    if tuple(variable.shape) == tuple(shape):
        return value
    return value[tuple(slice(0, side) for side in shape)]


class Elastic:
    """A classifier or a detector that runs at several widths and resolutions.

    Args:
        model: the widest, for the largest images; of `mobilenets.models.classifier` or `mobilenets.models.detector`.
        network: its table.
        width_multiplier: of it.
        statistics: of batch normalization, of every other width and resolution that was trained.
        head: a detector's, or None.
    """

    def __init__(
        self,
        model: keras.Model,
        network: Network,
        width_multiplier: float,
        statistics: Mapping[Member, list],
        head: AnyHead | None = None,
    ) -> None:
        self.model, self.network, self.head = model, network, head
        self.widest: Member = (width_multiplier, model.input_shape[1])
        self.statistics = dict(statistics)
        self._made: dict[Member, SubNetwork] = {}

    @property
    def members(self) -> list[Member]:
        """Every width multiplier and resolution (pixels) that was trained, ascending."""
        return sorted({self.widest, *self.statistics})

    def at(self, width_multiplier: float = 1.0, resolution_multiplier: float = 1.0) -> keras.Model:
        """The network at a width and a resolution; it computes with slices of the one set of weights.

        Args:
            width_multiplier: alpha, one that was trained.
            resolution_multiplier: rho, a share of the largest resolution that was trained; what it comes to, rounded
                to whole pixels, must have been trained.

        Returns:
            A model from pixel values 0..255, (batch, height, width, channels), to probabilities (batch, classes) or,
            of a detector, to boxes and scores (batch, locations, 4 + classes). It resizes images that are larger than
            rho says.

        Raises:
            UserError: no such network was trained; names the nearest.
        """
        check(self.model.input_shape[1:], 1, width_multiplier, resolution_multiplier)
        size, _ = effective_resolution(self.model.input_shape[1:], resolution_multiplier)
        return self.sub((width_multiplier, size))

    def sub(self, member: Member) -> keras.Model:
        """The network of a width multiplier and a resolution in pixels, as `at`."""
        if member == self.widest:
            return self.model
        if member not in self._made:
            made = self.blank(member)
            if member not in self.statistics:
                alpha, size = min(self.members, key=lambda known: _distance(known, member))
                raise UserError(
                    f"this network was not trained at alpha {member[0]:g} and {member[1]} pixels; the nearest is "
                    f"alpha {alpha:g} and {size} pixels"
                )
            set_statistics(made.own, self.statistics[member])
            self._made[member] = made
        return self._made[member]

    def blank(self, member: Member) -> SubNetwork:
        """A narrower network, trained or not, without statistics; see `sub_network`."""
        return sub_network(self.model, classes_of(self.model), self.network, *member, head=self.head)

    def extract(self, member: Member) -> keras.Model:
        """An ordinary model with copies of the weights."""
        return self.model if member == self.widest else self.sub(member).extract()


def _distance(known: Member, wanted: Member) -> float:
    return sum(abs(np.log(one / other)) for one, other in zip(known, wanted, strict=True))


def sub_network(
    whole: keras.Model,
    classes: int,
    network: Network,
    width_multiplier: float,
    size: int,
    logits: bool = False,
    head: AnyHead | None = None,
) -> SubNetwork:
    """A narrower network of a widest one; see `SubNetwork`.

    Raises:
        UserError: it would not be narrower.
    """
    own = built(network, head, (size, size, whole.input_shape[3]), classes, width_multiplier)
    known = {variable.path: variable.shape for variable in whole.trainable_variables}
    for like in own.trainable_variables:
        if like.path not in known:
            raise UserError(f"{size} pixels need layers that there are no weights of")
        if any(most < side for most, side in zip(known[like.path], like.shape, strict=True)):
            raise UserError(f"alpha {width_multiplier:g} is wider than the weights there are")
    return SubNetwork(whole, own, logits)


def statistics_of(model: keras.Model) -> list[np.ndarray]:
    """Copies of a model's statistics of batch normalization."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in model.non_trainable_variables]


def set_statistics(model: keras.Model, values: list[np.ndarray]) -> None:
    """Puts `statistics_of` a model of the same shape into one.

    Raises:
        UserError: they are of another shape.
    """
    if [np.shape(value) for value in values] != [tuple(variable.shape) for variable in model.non_trainable_variables]:
        raise UserError(f"{cards.ELASTIC}: damaged, its statistics are of another network; train the network again")
    for variable, value in zip(model.non_trainable_variables, values, strict=True):
        variable.assign(value)


# -- files ----------------------------------------------------------------------------------------------------------


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes the statistics of sub-networks, whole or not at all."""
    arrays = {
        f"{alpha:g}@{size}/{index}": value
        for (alpha, size), values in statistics.items()
        for index, value in enumerate(values)
    }
    write_arrays(path, arrays)


def load_elastic(directory: Path | str) -> Elastic:
    """Loads what ``mobilenets train`` makes of several widths or resolutions.

    Raises:
        UserError: it is unusable, or a model of one width and resolution.
    """
    directory = Path(directory)
    card = cards.read_card(directory)
    alpha = card.get("width_multiplier")
    about = card.get("elastic")
    if not about:
        raise UserError(
            f"{directory}: has one width and one resolution; train several, as --alpha 0.25..1 --size 96..224"
        )
    head = head_of(card)
    table = cards.as_trained(network(card["network"]), card, directory, alpha, head)
    model = load_model(directory)
    others = [member for member in load_members(card, directory) if member != (alpha, model.input_shape[1])]
    return Elastic(model, table, alpha, _load_statistics(directory / cards.ELASTIC, others), head)


def load_members(card: dict[str, Any], directory: Path) -> list[Member]:
    """The width multipliers and resolutions that a card lists.

    Raises:
        UserError: it lists none.
    """
    try:
        return [(float(entry["width_multiplier"]), int(entry["resolution"])) for entry in card["elastic"]["members"]]
    except (TypeError, KeyError, ValueError, OverflowError):  # int of an infinite number
        raise UserError(f"{directory / cards.CARD}: damaged, elastic must list widths and resolutions") from None


def _load_statistics(path: Path, members: list[Member]) -> Statistics:
    if not path.is_file():
        raise UserError(f"{path}: is missing; without it the network runs at its full width and resolution only")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
                raise UserError(f"{path}: unpacks to more than {LARGEST_FILE >> 20} MiB; not opened")
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
            found: Statistics = {}
            for alpha, size in members:
                start = f"{alpha:g}@{size}/"
                count = sum(name.startswith(start) for name in names)
                found[alpha, size] = [arrays[f"{start}{index}"] for index in range(count)]
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise whatever the damaged part made them stumble over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path}: damaged ({reason}); train the network again") from None
    return found
