"""How a network that was extracted is trained further, alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.models.elastic import Member
from mobilenets.training.fit import crop_of
from mobilenets.training.optimizer import peak_rate
from mobilenets.training.settings import Settings

TUNED = 0.15  # of the epochs of the training for all widths and resolutions


def shorter(settings: Settings, epochs: int) -> Settings:
    """For weights that are good already: a tenth of the rate, as where nobody names one."""
    rate = settings.learning_rate and settings.learning_rate / 10
    return replace(settings, epochs=epochs, learning_rate=rate, warmup_epochs=min(settings.warmup_epochs, epochs / 4))


def further(
    settings: Settings, data: ImageData | BoxData | MaskData, elastic: Path, member: Member, from_weights: bool = False
) -> tuple[Settings, dict[str, Any]]:
    """How an extracted network is trained further.

    A classifier learns what the widest network says, unless it is that. V1 on Fashion-MNIST (alpha 0.375 at 20
    pixels, 0.125 at 28, 0.5 at 16) came to 92.31, 92.26 and 91.41 % so, and from labels at a tenth of the rate to
    92.06, 92.04 and 91.13, where it had 91.81, 91.44 and 90.63.

    Small images that were shifted are so no longer (after arXiv 1906.06423, section 4.2: what is learned last is
    learned from images as they will be). V1 there (alpha 0.125 at 28, 0.25 at 24, 0.5 at 16 pixels) came to 92.50,
    93.01 and 92.04 % instead of 92.02, 92.78 and 91.72. Larger images are cropped further: without, four networks
    of two seeds on the 2,100 of `stamps` had 0.5 points less in the mean, with a standard error of 0.5.

    Args:
        settings: of the training for all widths and resolutions.
        data: what is learned.
        elastic: the model directory that it wrote.
        member: width and resolution of what is trained.
        from_weights: whether that training began with weights of another model, at a tenth of the rate.

    Returns:
        The settings, and what else `mobilenets.training.classify.train` is to be given.
    """
    tuned = shorter(settings, max(1, round(TUNED * settings.epochs)))
    if not isinstance(data, ImageData):
        return tuned, {}
    if crop_of(data, settings) == "pad":
        tuned = replace(tuned, crop="none")
    widest = cards.read_card(elastic)
    if member == (widest["width_multiplier"], widest["input_shape"][0]):
        return tuned, {}
    rate = (settings.learning_rate or peak_rate(settings)) / (10 if from_weights else 3)
    return replace(tuned, learning_rate=rate, teaching=1.0, temperature=1.0), {"teacher": elastic}
