"""Training a classifier: from data and settings to a model, resumable after every epoch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.architectures import Network
from mobilenets.data import ImageData
from mobilenets.data.augment import Augment
from mobilenets.data.loader import Batch, Batches, EvaluationBatches
from mobilenets.errors import UserError
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.models.builder import logits_model
from mobilenets.models.elastic import Member
from mobilenets.training import checkpoint, logs
from mobilenets.training.distill import Lesson
from mobilenets.training.elastic import PASSES, Sandwich, Widest
from mobilenets.training.optimizer import layer_rates, make_optimizer, peak_rate
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

TINY = 64  # pixels; what is smaller is shifted where photographs are cropped


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


def fit(
    model: keras.Model,
    data: ImageData,
    settings: Settings,
    directory: Path,
    state: checkpoint.State,
    reporter: Callable[[int, int], Reporter] = Reporter,
    tensorboard: Path | None = None,
    from_weights: bool = False,
    teacher: keras.Model | None = None,
    elastic: tuple[Network, Sequence[Member]] | None = None,
) -> Result:
    """Trains ``model`` in place from ``state`` to the last epoch.

    After each epoch the state is saved in ``directory``; given again, it leads to the same weights as a run that
    was never stopped. At the end the model holds the averaged weights of the last epoch, or of the best one where
    ``settings.patience`` asks for early stopping.

    Args:
        model: a classifier of `mobilenets.models.classifier`, in float32.
        data: what to train and evaluate on.
        settings: how.
        directory: where the state is kept.
        state: where to begin; fresh, or from `checkpoint.load`.
        reporter: called with (epochs, steps an epoch).
        tensorboard: where to write logs for TensorBoard, or None.
        from_weights: whether ``model`` was trained before, which asks for a lower learning rate.
        teacher: of `mobilenets.training.distill.load_teacher`, to learn from besides the labels.
        elastic: the table of ``model`` and the widths and resolutions, its own among them, to train it for.

    Raises:
        UserError: the disk is full, or an image can no longer be read.
    """
    size = model.input_shape[1]
    batches = training_batches(data, settings, size)
    steps = batches.steps
    _set_precision(model, settings.precision)
    for layer in model.layers:
        layer.trainable = not settings.freeze or layer.name == "logits"
    lesson = None
    if teacher:
        lesson = Lesson(teacher, len(data.classes), settings.temperature, settings.teaching, settings.hint)
    networks = logits_model(model, features=bool(teacher and settings.hint))
    rate, rates = peak_rate(settings, from_weights), layer_rates(networks, settings.layer_decay)
    networks = Widest(networks) if elastic else networks
    passes = PASSES if elastic else 1
    optimizer = make_optimizer(settings, networks.trainable_variables, steps, rate, rates, passes)
    networks.compile(
        optimizer=optimizer,
        loss=lesson.loss if lesson else keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[lesson.accuracy if lesson else "accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    optimizer = networks.optimizer  # wrapped, where float16 needs its loss scaled
    build(networks, lesson.width if lesson else len(data.classes), len(data.classes))
    sandwich = Sandwich(networks, *elastic, settings.seed) if elastic else None

    def step(images: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, number: int) -> dict[str, Any]:
        labels = lesson.told(images, labels) if lesson else labels
        if sandwich:
            return sandwich(images, labels, weights, (state.epoch, number))
        return networks.train_on_batch(images, labels, weights, return_dict=True)

    if state.epoch:
        assign(model.weights, state.model)
        assign(optimizer.variables, state.optimizer)
    else:
        state.model, state.optimizer = values(model.weights), values(optimizer.variables)
        checkpoint.save(directory, state)  # shows at once whether the directory can be written
    predict = predictor(model)
    evaluation = EvaluationBatches(data.val, size, settings.batch_size)
    board = logs.TensorBoard(tensorboard) if tensorboard else None
    stopped, failed = None, False
    with reporter(settings.epochs, steps) as report:
        while state.epoch < settings.epochs and not stopped:
            began = time.perf_counter()
            report.begin(state.epoch + 1)
            row = _epoch(step, batches.epoch(state.epoch), report)
            if row is None:
                assign(model.weights, state.model)
                assign(optimizer.variables, state.optimizer)
                stopped, failed = not_a_number(state.epoch + 1), True
                break
            with _averaged(networks, settings):
                outputs, labels = probabilities(predict, evaluation)
                candidate = values(model.weights)
            row |= score(outputs, labels)
            row["learning_rate"] = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            row["seconds"] = time.perf_counter() - began
            best = max((past["val_accuracy"] for past in state.history), default=-1.0)
            state.epoch += 1
            state.history.append({"epoch": state.epoch} | row)
            state.seconds += row["seconds"]
            state.model, state.optimizer = values(model.weights), values(optimizer.variables)
            if settings.patience and row["val_accuracy"] > best:
                state.best = candidate
            checkpoint.save(directory, state)
            logs.write_history(directory / "history.csv", state.history)
            if board:
                board.write(state.history[-1])
            report.end(state)
            stopped = _patience_ended(state, settings)
    if board:
        board.close()
    if state.best:
        assign(model.weights, state.best)
    elif settings.ema and state.epoch:
        _use_average(optimizer, networks.trainable_variables)
    _set_precision(model, "float32")
    for layer in model.layers:
        layer.trainable = True
    return Result(state, stopped, failed)


def build(networks: keras.Model, told: int, said: int) -> None:
    """Makes the variables of a compiled model's optimizer and metrics before its first step.

    TensorFlow traces a step that makes variables twice, which takes seconds.

    Args:
        networks: the model.
        told: length of what it is told of an image.
        said: length of what it says of one, at least.
    """
    networks.optimizer.build(networks.trainable_variables)
    labels, logits = np.zeros((1, told), np.float32), np.zeros((1, said), np.float32)
    networks.compute_metrics(None, keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(logits), None)
    networks.reset_metrics()


def not_a_number(epoch: int) -> str:
    """Why a run ended whose loss stopped being a number."""
    return f"the loss became NaN or infinite in epoch {epoch}"


def _epoch(step: Callable, batches: Iterator[Batch], report: Reporter) -> dict[str, float] | None:
    """One pass over the images; None where the loss stops being a number."""
    loss = accuracy = 0.0
    for done, (images, labels, weights) in enumerate(batches, start=1):
        results = step(images, labels, None if (weights == 1).all() else weights, done)
        if not math.isfinite(results["loss"]):
            return None
        loss += float(results["loss"])
        accuracy += float(results["accuracy"])
        report.step(loss / done)
    return {"loss": loss / done, "accuracy": accuracy / done}


def training_batches(data: ImageData, settings: Settings, size: int) -> Batches:
    """The images to train on, as the settings ask for them."""
    crop = settings.crop
    if crop == "auto":
        crop = "pad" if data.native_size and data.native_size < TINY else "resized"
    augment = Augment(
        flip=data.flip if settings.flip is None else settings.flip,
        crop=crop,
        crop_padding=max(1, size // 16),
        randaugment=settings.randaugment,
        magnitude=settings.magnitude,
    )
    return Batches(
        data.train,
        len(data.classes),
        size,
        settings.batch_size,
        seed=settings.seed,
        augment=augment,
        label_smoothing=settings.label_smoothing,
        mixup=settings.mixup,
        class_weights=class_weights(data, settings),
    )


def class_weights(data: ImageData, settings: Settings) -> np.ndarray | None:
    """Weights (classes,) that make classes count alike, mean 1 over the images; None where none are wanted."""
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    wanted = settings.class_weights
    if wanted is None:
        wanted = counts.max() > 2 * counts.min()
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32) if wanted else None


def _set_precision(model: keras.Model, precision: str) -> None:
    """Lets the layers compute in ``precision`` on float32 weights; the head stays in float32."""
    if precision == "auto":
        precision = "float16" if _has_gpu() else "float32"
    policy = "float32" if precision == "float32" else f"mixed_{precision}"
    for layer in model.layers:
        if layer.name not in ("image", "logits", "probabilities"):
            layer.dtype_policy = policy


def _has_gpu() -> bool:
    if keras.backend.backend() == "torch":  # which Keras cannot list the devices of
        import torch

        return torch.cuda.is_available()
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


def score(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss and accuracy on the evaluation set, from probabilities (images, classes) and labels (images,)."""
    chosen = np.clip(outputs[np.arange(len(labels)), labels], 1e-12, 1.0)
    return {
        "val_loss": float(-np.log(chosen).mean()),
        "val_accuracy": float((outputs.argmax(axis=1) == labels).mean()),
    }


def _patience_ended(state: checkpoint.State, settings: Settings) -> str | None:
    if not settings.patience:
        return None
    scores = [row["val_accuracy"] for row in state.history]
    since = len(scores) - 1 - scores.index(max(scores))
    if since < settings.patience or state.epoch == settings.epochs:
        return None
    return f"no better accuracy for {since} epochs; kept epoch {scores.index(max(scores)) + 1}"


def values(variables) -> list[np.ndarray]:
    """Copies of variables, as arrays."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables, values: list[np.ndarray]) -> None:
    """Puts arrays into variables."""
    if len(variables) != len(values):
        raise UserError("the checkpoint belongs to another network; start again with --overwrite")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
