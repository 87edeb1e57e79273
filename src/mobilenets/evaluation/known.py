"""The data of any model, and whether it is what its card says, wherever its task does not matter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.data import ImageData
from mobilenets.data.boxes import BoxData
from mobilenets.data.masks import MaskData
from mobilenets.evaluation.detector import detection_data, require_detector
from mobilenets.evaluation.evaluate import evaluation_data, require_fit
from mobilenets.evaluation.segmenter import require_segmenter, segmentation_data

_LOADERS = {cards.CLASSIFY: evaluation_data, cards.DETECT: detection_data, cards.SEGMENT: segmentation_data}
_REQUIRE = {cards.CLASSIFY: require_fit, cards.DETECT: require_detector, cards.SEGMENT: require_segmenter}


def data_of(
    card: Mapping[str, Any], source: str | None = None, task: str | None = None
) -> ImageData | BoxData | MaskData:
    """Loads the data that a card names, or another set.

    Args:
        card: of a model; of a file that no card is near to, its ``classes`` alone.
        source: another data set, all of which is for evaluation; None for that of the card.
        task: where the card does not tell.

    Raises:
        UserError: see `evaluation_data`, `detection_data` and `segmentation_data`.
    """
    return _LOADERS[task or card["task"]](card, source)


def require_model(model: Any, card: dict[str, Any], directory: Path) -> None:
    """Checks that a loaded model is the one its card describes.

    Raises:
        UserError: input or output differ.
    """
    _REQUIRE[card["task"]](model, card, directory)
