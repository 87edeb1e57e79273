"""What tests ask of data sets that are read from folders, of whatever task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobilenets.errors import UserError


def refused(load: Callable[..., Any], source: Path | str, *words: str, **options: object) -> None:
    """Whether ``load`` refuses, in one line with all these words."""
    with pytest.raises(UserError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def told(data: Any) -> set[tuple[str, str]]:
    """The files that were left out, and why."""
    return {(Path(problem.path).name, problem.reason) for problem in data.problems}


def noted(data: Any, *words: str) -> bool:
    """Whether one note has all these words."""
    return any(all(word in note for word in words) for note in data.notes)
