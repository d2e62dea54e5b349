"""One tree of errors: what its docstring draws is what there is."""

from __future__ import annotations

import re

import pytest

from db import errors
from db.errors import ModelLoadError, OutputPathError, PromptmillError, UsageError


def tree() -> dict[str, str]:
    """Error name -> its parent's name, as the module's docstring draws them."""
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([ │├└─]*)([A-Z]\w+)\b(?=  |$)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        drawn[found[2]] = above[depth - 1] if depth else "Exception"
        above[depth:] = [found[2]]
    return drawn


def classes(root: type[PromptmillError] = PromptmillError) -> list[type[PromptmillError]]:
    own = [one for one in root.__subclasses__() if one.__module__ == errors.__name__]
    return [root, *(deeper for one in own for deeper in classes(one))]


def test_given_the_docstring_when_compared_then_it_draws_exactly_the_classes_that_there_are() -> (
    None
):
    assert tree() == {one.__name__: one.__bases__[0].__name__ for one in classes()}


@pytest.mark.parametrize("error", classes())
def test_given_no_message_when_raised_then_the_docstring_is_the_message(
    error: type[PromptmillError],
) -> None:
    assert error.__doc__
    assert error().message == str(error()) == error.__doc__


@pytest.mark.parametrize("error", classes())
def test_error_exits_with_2_where_the_call_must_change(error: type[PromptmillError]) -> None:
    must_change = issubclass(error, UsageError) or error in (ModelLoadError, OutputPathError)
    assert error("why").exit_code == (2 if must_change else 1)
    assert error("why").message == "why"


def test_given_a_subclass_without_a_docstring_when_raised_then_its_name_is_the_message() -> None:
    bare = type("Bare", (PromptmillError,), {})
    assert bare().message == "Bare"
