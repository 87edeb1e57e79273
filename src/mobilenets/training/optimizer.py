"""Optimizer and learning-rate schedule."""

from collections.abc import Callable, Sequence
from typing import Any

from mobilenets.models import keras
from mobilenets.training.settings import Settings

RATES = {"adamw": 0.004, "sgd": 0.3}  # for 128 images a step, from random weights
DECAYS = {"adamw": 0.05, "sgd": 0.002}
POWER = 0.9  # of the schedule poly


def peak_rate(settings: Settings, from_weights: bool = False) -> float:
    """The highest learning rate of a run, from random weights or from those of another model."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    share = settings.batch_size / 128
    rate = RATES[settings.optimizer] * (share**0.5 if settings.optimizer == "adamw" else share)
    return rate / 10 if from_weights else rate


def gain(settings: Settings, passes: int) -> int:
    """How many times its learning rate an optimizer has that is to follow the sum of the gradients of several passes.

    Keras gives it their mean. AdamW does not care how large gradients are.
    """
    return passes if settings.optimizer == "sgd" else 1


def make_optimizer(
    settings: Settings,
    variables: list,
    steps: int,
    rate: float | None = None,
    layer_rates: dict[str, float] | None = None,
    passes: int = 1,
    tied: Sequence[Sequence[str]] = (),
) -> keras.optimizers.Optimizer:
    """Makes the optimizer for ``variables``: linear warm-up, then ``settings.schedule`` to 0 at the last step.

    Weight decay leaves out biases, batch normalization and depthwise kernels (V1 paper, section 3.3: there are
    so few parameters in them that decay hurts).

    Args:
        settings: of the run.
        variables: to be trained.
        steps: an epoch.
        rate: the peak; None takes `peak_rate`.
        layer_rates: of `layer_rates`; weight decay takes no part in it.
        passes: networks that share the variables and take part in each step; their gradients are added up, clipped
            and followed as if they were those of one.
        tied: paths of variables that are equal and stay so: each of a group gets the sum of their gradients.
    """
    every = steps * settings.epochs
    total = max(2, every) * passes  # the schedule counts them one by one
    # Where there is one step alone, there is none to warm up in: its rate would be 0.
    warmup = min(round(settings.warmup_epochs * steps), every - 1) * passes
    peak = (rate or peak_rate(settings)) * gain(settings, passes)
    schedule = _Poly(peak, warmup, total)
    if settings.schedule == "cosine":
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else peak,
            decay_steps=total - warmup,
            warmup_target=peak if warmup else None,
            warmup_steps=warmup,
        )
    decay = settings.weight_decay if settings.weight_decay is not None else DECAYS[settings.optimizer]
    common = {
        "learning_rate": schedule,
        "weight_decay": decay / gain(settings, passes),  # Keras multiplies it by the rate
        "use_ema": settings.ema,
        # Over about the last twentieth of the run, and never fewer than ten steps.
        "ema_momentum": 1 - 1 / max(10.0, total / 20),
        "ema_overwrite_frequency": None,
        "global_clipnorm": settings.clip_norm / passes if settings.clip_norm else None,  # of their mean
        "gradient_accumulation_steps": passes if passes > 1 else None,
    }
    # Only where it is asked for: for its own classes alone Keras has a fast path on PyTorch.
    own = layer_rates or tied
    if settings.optimizer == "adamw":
        optimizer = (OwnAdamW if own else keras.optimizers.AdamW)(**common)
    else:
        optimizer = (OwnSGD if own else keras.optimizers.SGD)(momentum=0.9, nesterov=True, **common)
    if own:
        optimizer.layer_rates, optimizer.tied = layer_rates or {}, tied
    spared = [variable for variable in variables if not _decays(variable)]
    if spared:
        optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer


def layer_rates(model: keras.Model, decay: float, head: Callable[[str], bool]) -> dict[str, float]:
    """The share of the learning rate that each layer of a model gets, by name: ``decay`` to the blocks behind it.

    The layers that ``head`` names are the last block, all of them.
    """
    if decay == 1:
        return {}
    names = [layer.name for layer in model.layers if layer.weights]
    block_of = {name: None if head(name) else name.split("_")[0] for name in names}
    order = [*dict.fromkeys(block for block in block_of.values() if block is not None), None]
    return {name: decay ** (len(order) - 1 - order.index(block)) for name, block in block_of.items()}


class _Poly(keras.optimizers.schedules.LearningRateSchedule):
    """Grows from 0 to ``peak`` in ``warmup`` steps, then falls as (1 - done) ^ 0.9 to 0 after ``total`` steps."""

    def __init__(self, peak: float, warmup: int, total: int) -> None:
        self._peak, self._warmup, self._total = peak, warmup, total

    def __call__(self, step) -> Any:
        step = keras.ops.cast(step, "float32")
        left = keras.ops.clip((self._total - step) / (self._total - self._warmup), 0.0, 1.0)
        grown = keras.ops.minimum(step / max(1, self._warmup), 1.0) if self._warmup else 1.0
        return self._peak * grown * left**POWER

    def get_config(self) -> dict[str, Any]:
        return {"peak": self._peak, "warmup": self._warmup, "total": self._total}


class _Own:
    """An optimizer whose learning rate may depend on the layer, and that may keep variables equal."""

    layer_rates: dict[str, float]
    tied: Sequence[Sequence[str]]

    def apply(self, grads, trainable_variables=None) -> None:
        grads = list(grads)
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        places = {variable.path: place for place, variable in enumerate(variables)}
        for group in self.tied:
            found = [places[path] for path in group if path in places]
            known = [grads[place] for place in found if grads[place] is not None]
            for place in found if known else []:
                grads[place] = sum(known)
        super().apply(grads, variables)

    def update_step(self, gradient, variable, learning_rate) -> None:
        # On TensorFlow this is not Keras' variable, which alone knows its layer, but the one inside it.
        layer = self._trainable_variables[self._get_variable_index(variable)].path.split("/")[0]
        super().update_step(gradient, variable, learning_rate * self.layer_rates.get(layer, 1.0))


class OwnSGD(_Own, keras.optimizers.SGD):
    pass


class OwnAdamW(_Own, keras.optimizers.AdamW):
    pass


def _decays(variable) -> bool:
    # A depthwise kernel looks at places, and at one channel.
    shape = variable.shape
    depthwise = len(shape) == 4 and shape[-1] == 1 and max(shape[:2]) > 1
    return variable.path.endswith("kernel") and not depthwise
