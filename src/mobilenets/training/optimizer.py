"""Optimizer and learning-rate schedule."""

from mobilenets.models import keras
from mobilenets.training.settings import Settings

RATES = {"adamw": 0.002, "sgd": 0.1}  # for 128 images a step
DECAYS = {"adamw": 0.05, "sgd": 0.0005}


def peak_rate(settings: Settings) -> float:
    """The highest learning rate of a run."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    share = settings.batch_size / 128
    return RATES[settings.optimizer] * (share**0.5 if settings.optimizer == "adamw" else share)


def make_optimizer(settings: Settings, variables: list, steps: int) -> keras.optimizers.Optimizer:
    """Makes the optimizer for ``variables``: linear warm-up, then a cosine to 0 at the last step.

    Weight decay leaves out biases, batch normalization and depthwise kernels (V1 paper, section 3.3: there are
    so few parameters in them that decay hurts).

    Args:
        settings: of the run.
        variables: to be trained.
        steps: an epoch.
    """
    total = max(2, steps * settings.epochs)
    warmup = min(round(settings.warmup_epochs * steps), total - 1)
    peak = peak_rate(settings)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=total - warmup,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    decay = settings.weight_decay if settings.weight_decay is not None else DECAYS[settings.optimizer]
    common = {
        "learning_rate": rate,
        "weight_decay": decay,
        "use_ema": settings.ema,
        # Over about the last twentieth of the run, and never fewer than ten steps.
        "ema_momentum": 1 - 1 / max(10.0, total / 20),
        "ema_overwrite_frequency": None,
    }
    if settings.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**common)
    else:
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    spared = [variable for variable in variables if not _decays(variable)]
    if spared:
        optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer


def _decays(variable) -> bool:
    return variable.path.endswith("kernel") and "depthwise" not in variable.path
