"""How a network that was extracted is trained further, alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.models.elastic import Member
from mobilenets.training.optimizer import peak_rate
from mobilenets.training.settings import Settings

TUNED = 0.15  # of the epochs of the training for all widths and resolutions


def shorter(settings: Settings, epochs: int) -> Settings:
    """For weights that are good already: a tenth of the rate, as where nobody names one."""
    rate = settings.learning_rate and settings.learning_rate / 10
    return replace(settings, epochs=epochs, learning_rate=rate, warmup_epochs=min(settings.warmup_epochs, epochs / 4))


def further(
    settings: Settings, elastic: Path, member: Member, from_weights: bool = False, dense: bool = False
) -> tuple[Settings, dict[str, Any]]:
    """How an extracted network is trained further.

    A classifier learns what the widest network says, unless it is that. V1 on Fashion-MNIST (alpha 0.375 at 20
    pixels, 0.125 at 28, 0.5 at 16) came to 92.31, 92.26 and 91.41 % so, and from labels at a tenth of the rate to
    92.06, 92.04 and 91.13, where it had 91.81, 91.44 and 90.63.

    Args:
        settings: of the training for all widths and resolutions.
        elastic: the model directory that it wrote.
        member: width and resolution of what is trained.
        from_weights: whether that training began with weights of another model, at a tenth of the rate.
        dense: whether it is a detector or a segmenter.

    Returns:
        The settings, and what else `mobilenets.training.classify.train` is to be given.
    """
    tuned = shorter(settings, max(1, round(TUNED * settings.epochs)))
    widest = cards.read_card(elastic)
    if dense or member == (widest["width_multiplier"], widest["input_shape"][0]):
        return tuned, {}
    rate = (settings.learning_rate or peak_rate(settings)) / (10 if from_weights else 3)
    return replace(tuned, learning_rate=rate, teaching=1.0, temperature=1.0), {"teacher": elastic}
