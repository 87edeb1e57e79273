"""What remains to be done when the weights of several widths and resolutions are trained: statistics, and measuring."""

import gc
from collections.abc import Callable
from typing import Any

from mobilenets.architectures import cost, layers_of
from mobilenets.models import keras
from mobilenets.models.elastic import Elastic, Member, statistics_of
from mobilenets.models.statistics import recalibrate
from mobilenets.training.kinds import Kind
from mobilenets.training.settings import Settings


def calibrate(
    elastic: Elastic,
    members: list[Member],
    kind: Kind,
    settings: Settings,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Gives sub-networks the statistics of batch normalization that their features have, and measures all.

    Those of a wider network mean nothing to a narrower one, whose sums have fewer terms; those of larger images little
    to smaller ones, which have more of a padded edge.

    Args:
        elastic: gets the statistics.
        members: widths and resolutions.
        kind: of the models, with what they were trained on.
        settings: how.
        progress: called with what is being done, how many of them are done, and how many there are.

    Returns:
        For each its ``width_multiplier``, ``resolution``, ``macs``, ``params`` and, 0..1 on the evaluation set,
        ``accuracy`` or a detector's ``ap``.
    """
    rows = []
    for index, (alpha, size) in enumerate(members):
        if progress:
            progress("widths and resolutions", index, len(members))
        gc.collect()  # steps that were traced, in training and for the network before, are kept by cycles
        model = elastic.model
        if (alpha, size) != elastic.widest:
            model = calibrated(elastic, (alpha, size), kind, settings)
            elastic.statistics[alpha, size] = statistics_of(model)
        totals = cost(layers_of(elastic.network, elastic.head, (size, size, 3), len(kind.data.classes), alpha))
        rows.append(
            {
                "width_multiplier": alpha,
                "resolution": size,
                "macs": totals.macs,
                "params": totals.params,
                kind.score: round(float(kind.measure(model, size)[kind.score]), 6),
            }
        )
    return rows


def calibrated(elastic: Elastic, member: Member, kind: Kind, settings: Settings) -> keras.Model:
    """The ordinary model of a width and a resolution, trained or between those trained, with statistics of its own."""
    model = elastic.blank(member).extract()
    recalibrate(model, kind.shown(settings, member[1]))
    return model
