"""A batch whose user gives no mode has the one that its first request asks for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from db.errors import ParameterError
from db.modes import Mode
from producer.intake import Lines, from_files, from_source, model_of_first, with_mode
from producer.reading import BadLine
from producer.reading.mode_choice import ModeChoice

EMBED = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"input": "one"}}
CHAT = {
    "custom_id": "c",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "hi"}]},
}


def lines_of(items: Any, choice: ModeChoice, columns: tuple[str, ...] = ()) -> Lines:
    return from_source(
        items, given_format=None, choice=choice, columns=columns, max_prompt_bytes=1000
    )


def chosen(*items: object, params: Mapping[str, Any] | None = None, **options: Any) -> Mode:
    choice = ModeChoice(None, params or {})
    return with_mode(lines_of(list(items), choice, **options), choice)[0]


def test_first_request_decides_the_mode() -> None:
    assert chosen(EMBED, CHAT) is Mode.EMBED
    assert chosen(CHAT, EMBED) is Mode.GENERATE
    assert chosen("one", EMBED) is Mode.GENERATE
    assert chosen() is Mode.GENERATE
    data = {"prompt": "one", "url": "/v1/embeddings"}
    assert chosen(data, columns=("url",)) is Mode.GENERATE


def test_given_mode_is_not_changed_by_the_lines() -> None:
    choice = ModeChoice(Mode.GENERATE, {})
    mode, lines = with_mode(lines_of([EMBED], choice), choice)
    (line,) = lines.read().lines
    assert mode is Mode.GENERATE
    assert isinstance(line, BadLine)
    assert "--mode embed" in line.reason


def test_line_of_the_other_endpoint_is_refused() -> None:
    choice = ModeChoice(None, {})
    _, lines = with_mode(lines_of([EMBED, CHAT], choice), choice)
    first, second = lines.read().lines
    assert not isinstance(first, BadLine)
    assert isinstance(second, BadLine)
    assert (second.number, "of mode embed" in second.reason) == (2, True)


def test_parameters_are_of_the_chosen_mode() -> None:
    choice = ModeChoice(None, {"pooling": "last"})
    assert with_mode(lines_of([EMBED], choice), choice)[0] is Mode.EMBED
    assert choice.defaults == {"pooling": "last"}
    with pytest.raises(ParameterError, match="temperature"):
        chosen(EMBED, params={"temperature": 0})
    with pytest.raises(ParameterError, match="pooling"):
        chosen(CHAT, params={"pooling": "last"})
    with pytest.raises(ParameterError, match="temprature"):
        ModeChoice(None, {"temprature": 0})


@pytest.mark.parametrize("source", ["file", "glob", "stdin", "generator", "list"])
def test_every_source_is_whole_after_the_look(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [{**EMBED, "custom_id": f"e{number}"} for number in range(3)]
    items[0]["body"] = {"input": "one", "model": "m"}
    text = b"".join(orjson.dumps(item) + b"\n" for item in items)
    file = tmp_path / "lines.jsonl"
    file.write_bytes(text)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    choice = ModeChoice(None, {})
    if source in {"generator", "list"}:
        lines = lines_of(items if source == "list" else (item for item in items), choice)
    else:
        names = {"file": str(file), "glob": str(tmp_path / "*.jsonl"), "stdin": "-"}
        lines = from_files([names[source]], given_format=None, choice=choice, max_prompt_bytes=1000)
    mode, lines = with_mode(lines, choice)
    model, lines = model_of_first(lines)
    assert (mode, model) == (Mode.EMBED, "m")
    for _ in range(2 if lines.repeatable else 1):
        ids = [line.custom_id for line in lines.read().lines]
        assert ids == ["e0", "e1", "e2"]
