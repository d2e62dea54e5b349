"""Parameters that are written as if they were options: `--temperature 0` for `-p temperature=0`."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence


def explanation(option: str, arguments: Sequence[str], options: Collection[str]) -> str | None:
    """What to say of an unknown option of a command that takes parameters; None: nothing.

    Of the parameters behind it, each is named with it. `options`: those that the command has.
    """
    named = _assignments(arguments, options)
    if option not in named:
        return None
    advice = [text for text in named.values() if not text.startswith("-p ")]
    if advice:
        return f"No such option '{option}'. Other systems have it: {advice[0]}"
    if len(named) == 1:
        return f"No such option '{option}'. It is a parameter: {named[option]}"
    listed = ", ".join(f"'{name}'" for name in named)
    return f"No such options {listed}. They are parameters: {' '.join(named.values())}"


def _assignments(arguments: Sequence[str], options: Collection[str]) -> dict[str, str]:
    """Unknown options that name parameters -> what to write instead, or why there is nothing."""
    named = {}
    for number, argument in enumerate(arguments):
        if argument == "--":
            break
        option, equals, value = argument.partition("=")
        if not option.startswith("-") or option in options:
            continue
        if not equals:
            value = _value(arguments[number + 1 :])
        if (text := _instead(option.lstrip("-"), value)) is not None:
            named[option] = text
    return named


def _value(behind: Sequence[str]) -> str:
    """What stands behind an option; … where that is another option, or nothing."""
    value = behind[0] if behind else "-"
    is_number = value[:1] == "-" and value[1:2].isdigit()
    return value if is_number or not value.startswith("-") else "…"


def _instead(name: str, value: str) -> str | None:
    from db.foreign_names import advice, translation
    from db.misspellings import near_miss
    from db.modes import Mode
    from db.sampling import parameter_names

    known = {parameter for mode in Mode for parameter in parameter_names(mode)}
    snake = name.replace("-", "_")
    ours = snake if snake in known else translation(name)
    if ours not in known:
        ours = near_miss(name, known)
    if ours is not None:
        shown = f"{ours}={value}"
        return f"-p {shown if value == '…' else shlex.quote(shown)}"
    return advice(snake, value)
