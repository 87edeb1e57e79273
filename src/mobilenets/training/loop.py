"""The loop of every training: epochs, checkpoints, and what was learned at the end; resumable after each epoch."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobilenets.errors import UserError
from mobilenets.models import keras
from mobilenets.models.detector import shared
from mobilenets.training import checkpoint, logs
from mobilenets.training.optimizer import gain, layer_rates, make_optimizer, peak_rate
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

Weights = np.ndarray | None  # (batch,), or None where all images count alike
Step = Callable[[np.ndarray, np.ndarray, Weights, tuple[int, int]], dict[str, Any]]


class Epochs(Protocol):
    """Batches of training images, the same for the same number of an epoch."""

    steps: int

    def epoch(self, number: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields ``steps`` batches: images, what is told of each, and, if not all count alike, weights (batch,)."""


@dataclass(frozen=True)
class Task:
    """What is learned.

    Attributes:
        batches: to learn from.
        networks: what is trained; it shares the layers of the model.
        loss: of what is told and said.
        metrics: likewise, shown during training.
        told: shape of what is told of an image.
        said: shape of what is said of one, at least.
        score: called after each epoch; figures of the model on the evaluation set, by name.
        best: the one of them, the higher the better, that early stopping looks at.
        passes: networks that take part in a step.
        step: makes one step of a compiled network: images, what is told, weights, (epoch, step) -> results; None for
            `keras.Model.train_on_batch`.
    """

    batches: Epochs
    networks: keras.Model
    loss: Any
    metrics: list[Any]
    told: tuple[int, ...]
    said: tuple[int, ...]
    score: Callable[[], dict[str, float]]
    best: str
    passes: int = 1
    step: Callable[[keras.Model], Step] | None = None


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        state: after the last epoch.
        stopped: why the run ended before its last epoch, or None.
        failed: whether it stopped because the loss was no longer a number.
    """

    state: checkpoint.State
    stopped: str | None = None
    failed: bool = False


def learn(
    model: keras.Model,
    make: Callable[[], Task],
    settings: Settings,
    directory: Path,
    state: checkpoint.State,
    reporter: Callable[[int, int], Reporter] = Reporter,
    tensorboard: Path | None = None,
    from_weights: bool = False,
    *,
    head: Callable[[str], bool],
    exact: tuple[str, ...],
) -> Result:
    """Trains ``model`` in place from ``state`` to the last epoch.

    After each epoch the state is saved in ``directory``; given again, it leads to the same weights as a run that
    was never stopped. At the end the model holds the averaged weights of the last epoch, or of the best one where
    ``settings.patience`` asks for early stopping.

    Args:
        model: in float32.
        make: makes the task, once the precision of the model's layers is set.
        settings: how.
        directory: where the state is kept.
        state: where to begin; fresh, or from `checkpoint.load`.
        reporter: called with (epochs, steps an epoch).
        tensorboard: where to write logs for TensorBoard, or None.
        from_weights: whether ``model`` was trained before, which asks for a lower learning rate.
        head: which layers ``settings.freeze`` leaves to be trained, by name.
        exact: layers that stay in float32.

    Raises:
        UserError: the disk is full, or an image can no longer be read.
    """
    policy = _set_precision(model, settings.precision, exact)
    for layer in model.layers:
        layer.trainable = not settings.freeze or head(layer.name)
    task = make()
    networks, steps = task.networks, task.batches.steps
    rate, rates = peak_rate(settings, from_weights), layer_rates(model, settings.layer_decay, head)
    if state.epoch:
        assign(model.weights, state.model)
    optimizer = make_optimizer(settings, networks.trainable_variables, steps, rate, rates, task.passes, shared(model))
    if policy == "mixed_float16":  # Keras would look at the policy of the whole model, which its layers do not change
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    networks.compile(
        optimizer=optimizer,
        loss=task.loss,
        metrics=task.metrics,
        jit_compile=keras.backend.backend() == "jax",
    )
    build(networks, task.told, task.said)
    step = task.step(networks) if task.step else _plain(networks)
    if state.epoch:
        assign(optimizer.variables, state.optimizer)
    else:
        state.model, state.optimizer = values(model.weights), values(optimizer.variables)
        checkpoint.save(directory, state)  # shows at once whether the directory can be written
    board = logs.TensorBoard(tensorboard) if tensorboard else None
    # A run may have been stopped after its last epoch.
    stopped, failed = _patience_ended(state, settings, task.best) if state.epoch else None, False
    with reporter(settings.epochs, steps) as report:
        while state.epoch < settings.epochs and not stopped:
            began = time.perf_counter()
            report.begin(state.epoch + 1)
            row = _epoch(step, task.batches.epoch(state.epoch), state.epoch, report)
            reached = values(model.weights)
            # Each loss is that before its step, so that the last step's weights are looked at themselves.
            if row is None or not all(np.isfinite(value).all() for value in reached):
                assign(model.weights, state.model)
                assign(optimizer.variables, state.optimizer)
                stopped, failed = not_a_number(state.epoch + 1), True
                break
            with _averaged(networks, settings):
                row |= task.score()
                candidate = values(model.weights)
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            row["learning_rate"] = rate / gain(settings, task.passes)
            row["seconds"] = time.perf_counter() - began
            best = max((past[task.best] for past in state.history), default=-1.0)
            state.epoch += 1
            state.history.append({"epoch": state.epoch} | row)
            state.seconds += row["seconds"]
            state.model, state.optimizer = reached, values(optimizer.variables)
            if settings.patience and row[task.best] > best:
                state.best = candidate
            checkpoint.save(directory, state)
            logs.write_history(directory / "history.csv", state.history)
            if board:
                board.write(state.history[-1])
            report.end(state)
            stopped = _patience_ended(state, settings, task.best)
    if board:
        board.close()
    if state.best:
        assign(model.weights, state.best)
    elif settings.ema and state.epoch:
        _use_average(optimizer, networks.trainable_variables)
    _set_precision(model, "float32", exact)
    for layer in model.layers:
        layer.trainable = True
    return Result(state, stopped, failed)


def _plain(networks: keras.Model) -> Step:
    return lambda images, told, weights, place: networks.train_on_batch(images, told, weights, return_dict=True)


def build(networks: keras.Model, told: tuple[int, ...], said: tuple[int, ...]) -> None:
    """Makes the variables of a compiled model's optimizer and metrics before its first step.

    TensorFlow traces a step that makes variables twice, which takes seconds.

    Args:
        networks: the model.
        told: shape of what it is told of an image.
        said: shape of what it says of one, at least.
    """
    networks.optimizer.build(networks.trainable_variables)
    told, said = (keras.ops.convert_to_tensor(np.zeros((1, *shape), np.float32)) for shape in (told, said))
    networks.compute_metrics(None, told, said, None)
    networks.reset_metrics()


def not_a_number(epoch: int) -> str:
    """Why a run ended whose loss stopped being a number."""
    return f"the loss became NaN or infinite in epoch {epoch}"


def _epoch(step: Step, batches: Iterator[tuple[np.ndarray, ...]], epoch: int, report: Reporter) -> dict | None:
    """One pass over the images: the mean of each result; None where the loss stops being a number."""
    sums: dict[str, float] = {}
    for done, (images, told, *weights) in enumerate(batches, start=1):
        weight = None if not weights or (weights[0] == 1).all() else weights[0]
        results = step(images, told, weight, (epoch, done))
        if not math.isfinite(results["loss"]):
            return None
        for name, value in results.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        report.step(sums["loss"] / done)
    return {name: total / done for name, total in sums.items()}


def _set_precision(model: keras.Model, precision: str, exact: tuple[str, ...]) -> str:
    """Lets the layers compute in ``precision`` on float32 weights, but for those named ``exact``; tells the policy."""
    precision = resolved(precision)
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    for layer in model.layers:
        if layer.name not in exact:
            layer.dtype_policy = policy
    model.predict_function = None  # was traced with the policies of before
    return policy


def resolved(precision: str) -> str:
    """What ``auto`` stands for on this machine: float16 on a GPU, float32 elsewhere; any other as it is."""
    if precision != "auto":
        return precision
    return "float16" if _has_gpu() else "float32"


def _has_gpu() -> bool:
    """Whether the backend computes on one: that there is one does not say so."""
    if keras.backend.backend() == "torch":  # which Keras cannot list the devices of
        return keras.ops.convert_to_tensor(0.0).device.type == "cuda"
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    try:
        return bool(keras.distribution.list_devices("gpu"))
    except (RuntimeError, ValueError, NotImplementedError):
        return False


@contextmanager
def _averaged(networks: keras.Model, settings: Settings) -> Iterator[None]:
    """Holds the averaged weights inside the block, and the weights being trained again after it."""
    if not settings.ema:
        yield
        return
    variables = networks.trainable_variables
    raw = values(variables)
    _use_average(networks.optimizer, variables)
    try:
        yield
    finally:
        assign(variables, raw)


def _use_average(optimizer: keras.optimizers.Optimizer, variables: list) -> None:
    """Puts the averaged weights into the model's variables."""
    optimizer.finalize_variable_values(variables)
    # On JAX the variables now share the optimizer's arrays, which the next call of the model would free.
    assign(variables, values(variables))


def _patience_ended(state: checkpoint.State, settings: Settings, best: str) -> str | None:
    if not settings.patience:
        return None
    scores = [row[best] for row in state.history]
    since = len(scores) - 1 - scores.index(max(scores))
    if since < settings.patience or state.epoch == settings.epochs:
        return None
    return f"no better {best.removeprefix('val_')} for {since} epochs; kept epoch {scores.index(max(scores)) + 1}"


def values(variables) -> list[np.ndarray]:
    """Copies of variables, as arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables, values: list[np.ndarray]) -> None:
    """Puts arrays into variables."""
    if len(variables) != len(values):
        raise UserError("the checkpoint belongs to another network; start again with --overwrite")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
