"""``mobilenets extract``: a network of one width and resolution out of one that was trained for several."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from mobilenets import card as cards
from mobilenets.errors import UserError
from mobilenets.evaluation.evaluate import publish
from mobilenets.models import keras
from mobilenets.models.elastic import Elastic, Member, load_elastic
from mobilenets.models.saving import save_model
from mobilenets.training.calibrated import calibrated
from mobilenets.training.kinds import Kind, kind_of
from mobilenets.training.settings import Settings


def extract(
    directory: Path | str,
    out: Path | str,
    width_multiplier: float | None = None,
    size: int | None = None,
    *,
    overwrite: bool = False,
    command: str = "",
) -> tuple[dict[str, Any], bool]:
    """Writes the model directory of one width and resolution, as every other verb takes it.

    Args:
        directory: what ``mobilenets train`` made of several.
        out: the directory to write.
        width_multiplier: alpha, from the narrowest to the widest; None takes the widest. One that was not trained
            itself gets its statistics from the images that the others were trained on.
        size: pixels of the images' side, likewise.
        overwrite: replace the model that ``out`` holds.
        command: as typed, for the card.

    Returns:
        The card, and whether this very width and resolution was trained.

    Raises:
        UserError: ``directory`` is no such model, there is no such network in it, or ``out`` cannot be used.
    """
    directory, out = Path(directory), Path(out)
    elastic, card = load_elastic(directory), cards.read_card(directory)
    cards.require_apart(out, model=directory, data=card.get("data", {}).get("source"))
    alpha = elastic.widest[0] if width_multiplier is None else width_multiplier
    member = (float(alpha), elastic.widest[1] if size is None else size)
    _require_inside(member, elastic.members, directory)
    if not overwrite:
        cards.require_new(out)
    kind = kind_of(card)
    model = _model(elastic, member, card, kind, directory)
    made = cards.begin(elastic.network, *member, card["classes"], command, head=elastic.head) | {
        "data": card["data"],
        "training": card.get("training", {}),
        "extracted_from": str(directory),
    }
    cards.clear(out)
    save_model(model, out / cards.MODEL)
    made["metrics"] = kind.evaluate(model, out, member[1])
    publish(out, made)
    return made, member in elastic.members


def _model(elastic: Elastic, member: Member, card: dict[str, Any], kind: Kind, directory: Path) -> keras.Model:
    if member in elastic.members:
        return elastic.extract(member)
    if not len(kind.data.train):
        raise UserError(f"{directory}: its card names no images to train on, which a width between others needs")
    known = {field.name for field in fields(Settings)}
    settings = Settings(**{key: value for key, value in card.get("training", {}).items() if key in known})
    return calibrated(elastic, member, kind, settings)


def _require_inside(member: Member, members: list[Member], directory: Path) -> None:
    for option, index, unit in (("--alpha", 0, ""), ("--size", 1, " pixels")):
        values = sorted({known[index] for known in members})
        if not values[0] <= member[index] <= values[-1]:
            raise UserError(
                f"{option} {member[index]:g}: {directory} was trained from {values[0]:g} to {values[-1]:g}{unit}"
            )
