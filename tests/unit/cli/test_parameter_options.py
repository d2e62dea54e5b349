"""Parameters that are written as options are told apart from options that are mistyped."""

from __future__ import annotations

import click
import pytest

from db.modes import Mode
from db.sampling import parameter_names
from tests.support.command_line import parse


def said(*arguments: str, command: str = "submit") -> str:
    """What is printed of these arguments after a file."""
    with pytest.raises(click.UsageError) as caught:
        parse((command, "a.txt", *arguments))
    return caught.value.format_message()


@pytest.mark.parametrize("command", ["submit", "run"])
@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (("--temperature", "0"), "-p temperature=0"),
        (("--temperature=0.5",), "-p temperature=0.5"),
        (("--max-tokens", "5"), "-p max_tokens=5"),
        (("--max_tokens", "5"), "-p max_tokens=5"),
        (("--seed", "5"), "-p seed=5"),
        (("--n", "2"), "-p n=2"),
        (("-n", "2"), "-p n=2"),
        (("--temprature", "0"), "-p temperature=0"),
        (("--max-new-tokens", "5"), "-p max_new_tokens=5"),
        (("--num-predict", "5"), "-p max_tokens=5"),
        (("--min-p", "0.1"), "-p min_p=0.1"),
        (("--top-k", "-1"), "-p top_k=-1"),
        (("--stop", "The end"), "-p 'stop=The end'"),
        (("--seed", "--wait"), "-p seed=…"),
        (("--seed",), "-p seed=…"),
    ],
)
def test_parameter_as_option_is_written_as_a_parameter(
    command: str, arguments: tuple[str, ...], instead: str
) -> None:
    option = arguments[0].partition("=")[0]
    assert said(*arguments, command=command) == (
        f"No such option '{option}'. It is a parameter: {instead}"
    )


def test_parameters_as_options_are_told_together() -> None:
    assert said("--temperature", "0", "--name", "x", "--seed=1", "--", "--n") == (
        "No such options '--temperature', '--seed'. They are parameters: -p temperature=0 -p seed=1"
    )


def test_parameter_that_is_not_supported_says_so() -> None:
    assert said("--best-of", "3").startswith(
        "No such option '--best-of'. Other systems have it: parameter 'best_of' is '3': "
    )


@pytest.mark.parametrize("mode", Mode)
def test_every_parameter_is_recognised(mode: Mode) -> None:
    for name in {*parameter_names(mode)} - {"adapter"}:  # which is an option, too
        option = f"--{name.replace('_', '-')}"
        assert f"-p {name}=7" in said(option, "7")


def test_mistyped_option_is_an_option() -> None:
    assert "It is a parameter" not in said("--modle", "m")
    assert "--model" in said("--modle", "m")
    assert "It is a parameter" not in said("--expire", "3h")
