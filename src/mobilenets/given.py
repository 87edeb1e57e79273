"""Options that the user typed where they would change nothing."""

from collections.abc import Iterable

import typer

from mobilenets.errors import UserError


def refuse_others(context: typer.Context, option: str, taken: Iterable[str]) -> None:
    """Checks that nothing stands beside an option that does without it: ignored, it would seem to be obeyed.

    Args:
        context: of the verb.
        option: as typed.
        taken: names of the parameters that the option takes account of, itself among them.

    Raises:
        UserError: something does; names all of it.
    """
    refuse(context, option, {each.name for each in context.command.params} - set(taken))


def refuse(context: typer.Context, option: str, ignored: Iterable[str]) -> None:
    """The same of the parameters named ``ignored``, and no others.

    Raises:
        UserError: one of them was typed.
    """
    others = [each for each in context.command.params if each.name in set(ignored) and _typed(context, each.name)]
    if others:
        names = " and ".join(each.opts[0] if each.opts[0].startswith("-") else each.name.upper() for each in others)
        raise UserError(f"{option} would ignore {names}; leave that out")


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
