"""Whether a template makes chats or bare prompts, and what people are told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.errors import UsageError
from db.modes import Mode
from producer.prompt_form import prompt_form


def a_model(folder: Path, **config: Any) -> str:
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture
def chat_model(tmp_path: Path) -> str:
    return a_model(tmp_path / "chat", chat_template="{{ messages }}")


@pytest.fixture
def base_model(tmp_path: Path) -> str:
    return a_model(tmp_path / "base")


def form(model: str, engine: str = "transformers", **asked: Any) -> tuple[bool, str | None]:
    found = prompt_form(model, Mode.GENERATE, engine, **{"chat": None, **asked})
    return found.chat, found.note


def test_chat_template_makes_chats(chat_model: str) -> None:
    chat, note = form(chat_model)
    assert chat
    assert note == (
        f"each row becomes a chat's user message, since {chat_model} has a chat template; --plain "
        "makes bare prompts"
    )


def test_base_model_gets_bare_prompts(base_model: str) -> None:
    assert form(base_model) == (
        False, f"each row becomes a bare prompt, since {base_model} has no chat template"
    )  # fmt: skip


@pytest.mark.parametrize("name", ["org/m-it", "org/M-Instruct-v2", "org/chat-7b", "m-IT:f.gguf"])
def test_unknown_model_with_a_chat_name_gets_chats(name: str) -> None:
    chat, note = form(name)
    assert chat
    assert f"since {name} is called like a chat model" in str(note)


@pytest.mark.parametrize("name", ["org/m", "org/gitlab-7b", "org/italian", "openai-community/gpt2"])
def test_unknown_model_gets_bare_prompts_and_a_hint(name: str) -> None:
    chat, note = form(name)
    assert not chat
    assert str(note).endswith("may have no chat template; --chat makes chats")


def test_hosted_model_gets_chats() -> None:
    assert form("gpt-9", "openai")[0]


def test_system_message_makes_chats_of_an_unknown_model() -> None:
    assert form("org/m", system=True)[0]


def test_what_is_asked_for_decides(chat_model: str) -> None:
    plain = form(chat_model, chat=False)
    assert plain == (False, "each row becomes a bare prompt (--plain)")
    assert form("gpt-9", "openai", chat=False) == plain
    assert form("org/m", chat=True) == (True, "each row becomes a chat's user message (--chat)")


@pytest.mark.parametrize("asked", [{"chat": True}, {"system": True}])
def test_chats_of_a_base_model_are_refused(base_model: str, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no chat template: leave it out"):
        form(base_model, **asked)


@pytest.mark.parametrize("mode", [Mode.SCORE, Mode.EMBED])
def test_other_modes_get_bare_texts(chat_model: str, mode: Mode) -> None:
    found = prompt_form(chat_model, mode, "transformers", chat=None)
    assert (found.chat, found.note) == (False, None)
    with pytest.raises(UsageError, match=f"makes no chats in mode {mode}"):
        prompt_form(chat_model, mode, "transformers", chat=True)
