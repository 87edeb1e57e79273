"""Everything that decides how a network is trained, in one place."""

from dataclasses import asdict, dataclass
from typing import Any

from mobilenets.errors import UserError

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "poly")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CROPS = ("auto", "none", "pad", "resized")
CLASSIFIER_IMAGES, DETECTOR_IMAGES, SEGMENTER_IMAGES = 64, 8, 8  # a step, where nobody says
USUAL_IMAGES = {"classify": CLASSIFIER_IMAGES, "detect": DETECTOR_IMAGES, "segment": SEGMENTER_IMAGES}  # of a task


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults suit a folder of a few hundred to some ten thousand images.

    Attributes:
        epochs: passes over the training images, at least 1.
        batch_size: images a step, at least 1; never more than there are.
        optimizer: ``sgd`` with Nesterov momentum 0.9, or ``adamw``. V1 has 27 layers in a row and no shortcut;
            from random weights it learned faster with SGD (86 % after 8 epochs of 12,000 images of
            Fashion-MNIST, 78 % with AdamW).
        learning_rate: its peak; None takes 0.3 (sgd) or 0.004 (adamw) for 128 images a step, in proportion (sgd)
            or by the square root (adamw) for other batches, and a tenth of it from starting weights.
        weight_decay: decoupled, on the convolution and dense kernels only; None takes 0.002 (sgd) or 0.05 (adamw).
        warmup_epochs: epochs in which the rate grows from 0; then it falls to 0.
        clip_norm: the gradients of a step are scaled down to this norm, all of them together, where theirs is larger
            (arXiv 1211.5063, section 3.2), 0 for never; None takes 10 for detectors and segmenters, and 0 for
            classifiers. Without it, V3 with SSDLite's head blew up from random weights.
        schedule: how it falls: ``cosine``, or ``poly``, (1 - done)^0.9 (DeepLab, arXiv 1606.00915, section 4.1.1).
        label_smoothing: share of each label spread over all classes, in [0, 1).
        flip: mirror images at random; None asks the data set.
        crop: ``resized`` (random part of the image, scaled), ``pad`` (shifted by up to a sixteenth; with an eighth
            12,000 images of Fashion-MNIST came to 88.8 % in 10 epochs instead of 90.2 %), ``none``, or ``auto``: pad
            for built-in sets of images under 64 pixels, resized for all else. Of several widths or resolutions,
            nothing is shifted in the last 15 % of the epochs.
        randaugment: random operations on each image (arXiv 1909.13719), 0 for none.
        magnitude: their strength, 0..10.
        mixup: parameter of MixUp's Beta distribution (arXiv 1710.09412), 0 for none.
        mosaic: of a detector: probability that four images are put together (arXiv 2004.10934), 0..1. It pays in long
            runs, and slows down short ones.
        dice: of a segmenter: share of Dice's loss (arXiv 1606.04797) beside cross-entropy's, 0..1.
        ema: use an exponential moving average of the weights, over about a twentieth of the run. Off by default:
            the cosine brings the rate to 0, so the last weights hardly move, and while the rate is high the
            average does not fit the statistics of batch normalization, which makes early epochs look like chance.
        class_weights: weigh images so that each class counts alike; None does so when the largest class has
            more than twice the images of the smallest. Of a segmenter: weigh the pixels of rare classes more; None
            does not.
        patience: stop after so many epochs without a better accuracy on the evaluation set and keep the best;
            None trains to the end and keeps the last, so that the evaluation set has no say in the training.
        precision: ``float32``, ``bfloat16`` or ``float16`` (both mixed with float32 weights), or ``auto``:
            float16 on a GPU, float32 elsewhere.
        freeze: train the head alone; only with starting weights.
        cache_features: with ``freeze``, compute what the head reads once for each image instead of in every epoch;
            of the augmentation only mirroring is left.
        layer_decay: the learning rate of each block is that of the block behind it times this, in (0, 1], so that
            the first layers, which know edges and colours, change least (arXiv 1801.06146, section 3.2).
        temperature: of a teacher's and the student's probabilities, > 0 (arXiv 1503.02531).
        teaching: the teacher's say in the loss, 0..1; the labels have the rest.
        hint: weight of how alike images look to teacher and student (arXiv 1907.09682); 0 leaves features alone.
        seed: of the weights, the order of the images and the augmentation.
    """

    epochs: int = 20
    batch_size: int = CLASSIFIER_IMAGES
    optimizer: str = "sgd"
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_epochs: float = 1.0
    clip_norm: float | None = None
    schedule: str = "cosine"
    label_smoothing: float = 0.1
    flip: bool | None = None
    crop: str = "auto"
    randaugment: int = 0
    magnitude: float = 5.0
    mixup: float = 0.0
    mosaic: float = 0.0
    dice: float = 0.0
    ema: bool = False
    class_weights: bool | None = None
    patience: int | None = None
    precision: str = "auto"
    freeze: bool = False
    cache_features: bool = False
    layer_decay: float = 1.0
    temperature: float = 4.0
    teaching: float = 0.7
    hint: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        _require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        _require(self.optimizer in OPTIMIZERS, "--optimizer", f"one of {', '.join(OPTIMIZERS)}", self.optimizer)
        _require(self.schedule in SCHEDULES, "--schedule", f"one of {', '.join(SCHEDULES)}", self.schedule)
        _require(self.crop in CROPS, "--crop", f"one of {', '.join(CROPS)}", self.crop)
        _require(self.precision in PRECISIONS, "--precision", f"one of {', '.join(PRECISIONS)}", self.precision)
        rate, decay, norm = self.learning_rate, self.weight_decay, self.clip_norm
        _require(rate is None or 0 < rate < float("inf"), "--lr", "greater than 0", rate)
        _require(decay is None or 0 <= decay < float("inf"), "--weight-decay", "0 or more", decay)
        _require(norm is None or 0 <= norm < float("inf"), "--clip-norm", "0 or more", norm)
        _require(0 <= self.warmup_epochs <= self.epochs, "--warmup", "from 0 to --epochs", self.warmup_epochs)
        _require(0 <= self.label_smoothing < 1, "--label-smoothing", "in [0, 1)", self.label_smoothing)
        _require(0 <= self.randaugment <= 10, "--randaugment", "from 0 to 10", self.randaugment)
        _require(0 <= self.magnitude <= 10, "--magnitude", "from 0 to 10", self.magnitude)
        if not self.randaugment and self.magnitude != Settings.magnitude:
            raise UserError("--magnitude is the strength of what --randaugment does; give both")
        _require(0 <= self.mixup < float("inf"), "--mixup", "0 or more", self.mixup)
        _require(0 <= self.mosaic <= 1, "--mosaic", "from 0 to 1", self.mosaic)
        _require(0 <= self.dice <= 1, "--dice", "from 0 to 1", self.dice)
        _require(self.patience is None or self.patience >= 1, "--patience", "at least 1", self.patience)
        _require(0 < self.layer_decay <= 1, "--layer-decay", "greater than 0 and at most 1", self.layer_decay)
        _require(0 < self.temperature < float("inf"), "--temperature", "greater than 0", self.temperature)
        _require(0 <= self.teaching <= 1, "--teaching", "from 0 to 1", self.teaching)
        _require(0 <= self.hint < float("inf"), "--hint", "0 or more", self.hint)
        _require(self.freeze or not self.cache_features, "--cache-features", "used with --freeze", "without it")
        if self.freeze and self.layer_decay != 1:
            raise UserError("--layer-decay is for the blocks that --freeze keeps from training; give one of them")
        if self.cache_features:
            self._refuse_what_changes_images()
        _require(0 <= self.seed < 2**31, "--seed", "from 0 to 2147483647", self.seed)

    def _refuse_what_changes_images(self) -> None:
        """With features computed once, these would be taken and not done."""
        for option, given in (
            ("--crop", self.crop not in ("auto", "none")),
            ("--randaugment", self.randaugment),
            ("--mixup", self.mixup),
            ("--ema", self.ema),
            ("--patience", self.patience),
            ("--precision", self.precision not in ("auto", "float32")),
        ):
            if given:
                raise UserError(
                    f"--cache-features looks at each image once and trains the head alone; leave {option} out"
                )

    def asdict(self) -> dict[str, Any]:
        """The settings as a flat dict that JSON can hold."""
        return asdict(self)


def _require(good: bool, option: str, allowed: str, value: Any) -> None:
    if not good:
        raise UserError(f"{option} must be {allowed}, not {value}")
