"""``mobilenets compress --sensitivity``: which operations integers hurt, as a table and a picture."""

import csv
import io
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.compression.scheme import WEIGHT_BITS, integer_form
from mobilenets.compression.sensitivity import draw, sensitivity
from mobilenets.data.loader import EvaluationBatches
from mobilenets.data.mask_loader import MaskEvaluationBatches
from mobilenets.data.masks import MaskData
from mobilenets.deployment.calibrate import calibrate, calibration_images
from mobilenets.errors import UserError
from mobilenets.evaluation.known import data_of, require_model
from mobilenets.files import explain, write_text
from mobilenets.models.graph import graph_of
from mobilenets.models.saving import load_model

TABLE, PICTURE = "sensitivity.csv", "sensitivity.png"
IMAGES = 256  # that operations are compared on
BATCH = 16  # images; all outputs of a batch are in memory at a time


def sensitivity_of(directory: Path | str, out: Path | str, weight_bits: int = 8) -> list[dict[str, Any]]:
    """Computes each operation alone in integers and all the others in float32, and tells what that costs.

    Args:
        directory: a model directory; it stays as it is.
        out: directory to write ``sensitivity.csv`` and ``sensitivity.png`` into.
        weight_bits: 8 or 4.

    Returns:
        Rows of `mobilenets.compression.sensitivity.Sensitivity`, the most sensitive operation first.

    Raises:
        UserError: the model or its data is unusable, or ``out`` cannot be written or is that model.
    """
    directory, out = Path(directory), Path(out)
    if weight_bits not in WEIGHT_BITS:
        raise UserError(f"--weight-bits must be 8 or 4, not {weight_bits}")
    if (out / cards.CARD).exists():
        raise UserError(f"--out {out}: holds a model; name another directory for the table and the picture")
    card = cards.read_card(directory)
    if card["task"] == cards.DETECT:
        raise UserError(f"{directory}: compress --sensitivity takes no detectors yet, and this model is one")
    data = data_of(card)
    size = card["input_shape"][0]
    model = load_model(directory)
    require_model(model, card, directory)
    ranges = calibrate(integer_form(graph_of(model)), calibration_images(card, data, size))
    split = data.train.some(IMAGES, seed=1)
    if isinstance(data, MaskData):
        batches = MaskEvaluationBatches(split, size, BATCH)
    else:
        batches = EvaluationBatches(split, size, BATCH, crop=cards.crop(card))
    rows = sensitivity(model, batches, ranges, weight_bits)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, out) from error
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(out / TABLE, text.getvalue())
    draw(rows, out / PICTURE)
    return rows
