"""Whether `--template` makes chats or bare prompts: decided once a batch, and told. Pure but for a
look at the model's files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from db.errors import UsageError
from db.modes import Mode
from producer.model_files import chat_template_state
from producer.servable import ECHO

#: What publishers put into the name of a model that is made for chats.
_CHAT_NAME = re.compile(
    r"(?:^|[-_./])(?:it|instruct|chat|assistant|rlhf|dpo)(?:$|[-_.:/])", re.IGNORECASE
)

_CHAT = "each row becomes a chat's user message"
_PLAIN = "each row becomes a bare prompt"


@dataclass(frozen=True, slots=True)
class PromptForm:
    """What rows become."""

    chat: bool
    #: That, and why, in one line for people; None where there was nothing to decide.
    note: str | None = None


def prompt_form(
    model: str, mode: Mode, engine: str, *, chat: bool | None, system: bool = False
) -> PromptForm:
    """What a template makes of rows for this model.

    `chat` is what the user asks for, None: nothing; `system`: there is a system message. Raises
    UsageError where what is asked for can't be done.
    """
    if mode is not Mode.GENERATE:
        if chat or system:
            raise UsageError(
                f"--template makes no chats in mode {mode}: give {{'messages': ...}} in JSON "
                "Lines, to score with a 'completion'"
                if mode is Mode.SCORE
                else f"--template makes no chats in mode {mode}: leave out --chat and --system"
            )
        return PromptForm(chat=False)
    if chat is False:
        return PromptForm(False, f"{_PLAIN} (--plain)")
    if engine == "openai":
        because = "the engine openai is for hosted chat models"
        return PromptForm(True, f"{_CHAT}, since {because}; --plain makes bare prompts")
    state = chat_template_state(model)
    if state == "absent":
        return _without_template(model, chat=chat, system=system)
    if chat:
        return PromptForm(True, f"{_CHAT} (--chat)")
    if state == "present":
        return PromptForm(
            True, f"{_CHAT}, since {model} has a chat template; --plain makes bare prompts"
        )
    if ECHO in (engine, model) and not system:
        because = "the engine echo has no chat template"
        return PromptForm(False, f"{_PLAIN}, since {because}; --chat makes chats")
    return _unknown(model, system=system)


def _without_template(model: str, *, chat: bool | None, system: bool) -> PromptForm:
    if chat or system:
        option = "--chat" if chat else "--system"
        raise UsageError(
            f"{option}: model {model} has no chat template: leave it out, or use a model that is "
            "made for chats"
        )
    return PromptForm(False, f"{_PLAIN}, since {model} has no chat template")


def _unknown(model: str, *, system: bool) -> PromptForm:
    """The files are elsewhere: the name has to do."""
    if system:
        return PromptForm(True, f"{_CHAT}, since --system is given; --plain makes bare prompts")
    if _CHAT_NAME.search(model):
        return PromptForm(
            True,
            f"{_CHAT}, since {model} is called like a chat model (its files are not on this "
            "machine); --plain makes bare prompts",
        )
    return PromptForm(
        False,
        f"{_PLAIN}, since the files of {model} are not on this machine, and may have no chat "
        "template; --chat makes chats",
    )
