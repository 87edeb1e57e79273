"""Training a classifier: what `mobilenets.training.loop.learn` has to know of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mobilenets.architectures import Network
from mobilenets.data import ImageData
from mobilenets.data.augment import Augment
from mobilenets.data.loader import Batches, EvaluationBatches
from mobilenets.data.resizing import resize_all
from mobilenets.evaluation.inference import predictor, probabilities
from mobilenets.models import keras
from mobilenets.models.builder import logits_model
from mobilenets.models.elastic import Member
from mobilenets.training import checkpoint
from mobilenets.training.distill import Lesson
from mobilenets.training.elastic import Sandwich, Widest, turns
from mobilenets.training.loop import Result, Step, Task, Weights, learn
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import Settings

TINY = 64  # pixels; what is smaller is shifted where photographs are cropped
# Of the epochs of a training for several networks, the last, in which nothing is shifted any more (after arXiv
# 1906.06423, section 4.2). V1 on Fashion-MNIST, the mean of 16 networks after five epochs, came to 89.84 % so and to
# 89.67 without; six of them were looked at, and each was better by 0.1 to 0.3 points.
FRAMED = 0.15


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
    """Trains a classifier in place, see `mobilenets.training.loop.learn`.

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

    def make() -> Task:
        return _classification(model, data, settings, teacher, elastic)

    return learn(
        model,
        make,
        settings,
        directory,
        state,
        reporter,
        tensorboard,
        from_weights,
        head=lambda name: name == "logits",
        exact=("image", "logits", "probabilities"),
    )


def _classification(
    model: keras.Model,
    data: ImageData,
    settings: Settings,
    teacher: keras.Model | None,
    elastic: tuple[Network, Sequence[Member]] | None,
) -> Task:
    size, classes = model.input_shape[1], len(data.classes)
    lesson = Lesson(teacher, classes, settings.temperature, settings.teaching, settings.hint) if teacher else None
    # The teacher sees images before they are made small. V1 that had 93.7 % of Fashion-MNIST's right had 82.6 % of them
    # right once they were reduced to 16 pixels and enlarged again.
    shown = max(size, lesson.size) if lesson else size
    networks = logits_model(model, features=bool(teacher and settings.hint))
    predict, evaluation = predictor(model), EvaluationBatches(data.val, size, settings.batch_size)

    def stepper(networks: keras.Model) -> Step:
        sandwich = Sandwich(networks, *elastic, settings.seed) if elastic else None

        def step(images: np.ndarray, labels: np.ndarray, weights: Weights, place: tuple[int, int]) -> dict:
            if lesson:
                labels, images = lesson.told(images, labels), resize_all(images, size)
            if sandwich:
                return sandwich(images, labels, weights, place)
            return networks.train_on_batch(images, labels, weights, return_dict=True)

        return step

    return Task(
        batches=training_batches(data, settings, shown, framed=FRAMED if elastic else 0.0),
        networks=Widest(networks) if elastic else networks,
        loss=lesson.loss if lesson else keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[lesson.accuracy if lesson else "accuracy"],
        told=(lesson.width if lesson else classes,),
        said=(classes,),
        score=lambda: score(*probabilities(predict, evaluation)),
        best="val_accuracy",
        passes=turns(elastic[-1]) if elastic else 1,
        step=stepper,
    )


def crop_of(data: ImageData, settings: Settings) -> str:
    """What becomes of the frame of images to train on: ``none``, ``pad`` or ``resized``."""
    if settings.crop != "auto":
        return settings.crop
    return "pad" if data.native_size and data.native_size < TINY else "resized"


def training_batches(data: ImageData, settings: Settings, size: int, framed: float = 0.0) -> Batches:
    """The images to train on, as the settings ask for them.

    Args:
        data: what is learned.
        settings: how.
        size: pixels of the side of the images.
        framed: share of the epochs, the last, in which images are not shifted any more, where they were.
    """
    augment = Augment(
        flip=data.flip if settings.flip is None else settings.flip,
        crop=crop_of(data, settings),
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
        framed_from=settings.epochs - round(framed * settings.epochs) if augment.crop == "pad" else None,
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


def score(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss and accuracy on the evaluation set, from probabilities (images, classes) and labels (images,)."""
    chosen = np.clip(outputs[np.arange(len(labels)), labels], 1e-12, 1.0)
    return {
        "val_loss": float(-np.log(chosen).mean()),
        "val_accuracy": float((outputs.argmax(axis=1) == labels).mean()),
    }
