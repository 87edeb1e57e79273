"""Training a detector: what `mobilenets.training.loop.learn` has to know of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mobilenets.architectures import Head, Network
from mobilenets.data.box_loader import BoxEvaluationBatches
from mobilenets.data.boxes import BoxData
from mobilenets.evaluation.detection import measure_boxes
from mobilenets.evaluation.detector import BATCH, found_in
from mobilenets.evaluation.inference import predictor
from mobilenets.models import keras
from mobilenets.models.detector import raw_model
from mobilenets.models.elastic import Member
from mobilenets.models.tasks import in_head
from mobilenets.training.box_batches import box_batches
from mobilenets.training.box_losses import loss_of
from mobilenets.training.checkpoint import State
from mobilenets.training.elastic import Sandwich, turns
from mobilenets.training.loop import Result, Task, learn
from mobilenets.training.progress import Reporter
from mobilenets.training.settings import DETECTOR_IMAGES, Settings

# Settings that a detector has no use for.
UNUSED = {
    "label_smoothing": "--label-smoothing",
    "crop": "--crop",
    "randaugment": "--randaugment",
    "magnitude": "--magnitude",
    "mixup": "--mixup",
    "class_weights": "--class-weights",
    "cache_features": "--cache-features",
    "dice": "--dice",
    "teaching": "--teaching",
    "temperature": "--temperature",
    "hint": "--hint",
}
RATE = 0.05  # SGD's, for `DETECTOR_IMAGES`; from the weights of a classifier, too, for the head is new
EXACT = ("image", "offsets", "logits", "detections")  # layers that compute in float32 whatever the precision


def usual_rate(settings: Settings) -> float:
    """SGD's highest learning rate for as many images a step, where nobody names one."""
    return RATE * settings.batch_size / DETECTOR_IMAGES


def fit_detector(
    model: keras.Model,
    data: BoxData,
    settings: Settings,
    directory: Path,
    state: State,
    reporter: Callable[[int, int], Reporter] = Reporter,
    tensorboard: Path | None = None,
    from_weights: bool = False,
    elastic: tuple[Network, Head, Sequence[Member]] | None = None,
) -> Result:
    """Trains a detector in place: `mobilenets.training.fit.fit` for data with boxes; arguments as there.

    ``elastic`` tells the head as well.

    Raises:
        UserError: the disk is full, or an image can no longer be read.
    """
    return learn(
        model,
        lambda: _task(model, data, settings, elastic),
        settings,
        directory,
        state,
        reporter,
        tensorboard,
        from_weights,
        head=in_head,
        exact=EXACT,
    )


def _task(
    model: keras.Model,
    data: BoxData,
    settings: Settings,
    elastic: tuple[Network, Head, Sequence[Member]] | None,
) -> Task:
    size = model.input_shape[1]
    networks, predict = raw_model(model), predictor(model)
    evaluation = BoxEvaluationBatches(data.val, size, BATCH)

    def score() -> dict[str, float]:
        metrics = measure_boxes(found_in(predict, evaluation, data.val.sizes), data.val, data.classes)
        return {f"val_{name}": metrics[name] for name in ("ap", "ap50", "f1")}

    def stepper(networks: keras.Model) -> Sandwich:
        network, head, members = elastic
        return Sandwich(networks, network, members, settings.seed, head=head, loss=loss_of)

    return Task(
        batches=box_batches(data, settings, size),
        networks=networks,
        loss=loss_of(model),
        metrics=[],
        told=(8, 5),
        said=tuple(networks.output_shape[1:]),
        score=score,
        best="val_ap",
        passes=turns(elastic[-1]) if elastic else 1,
        step=stepper if elastic else None,
    )
