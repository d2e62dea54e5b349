"""Thinking and calls, from a file of chats through a real worker to all that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.acceptance.mill import Mill
from tests.support.parrots import CHAT, TIME, WEATHER, Style, build_parrot

pytest.importorskip("worker.engine.transformers.engine")

TOOLS = [WEATHER, TIME]


def run(mill: Mill, style: Style, says: str, requests: list[Any], **arguments: Any) -> str:
    """The batch, once a worker with that parrot has run it."""
    folder = build_parrot(style, says, mill.folder / "parrot", **arguments)
    file = mill.folder / "chats.jsonl"
    file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in requests))
    mill.env["PROMPTMILL_ENGINE"] = "transformers"
    told = mill.json("run", str(file), "--model", str(folder), "--dtype", "float32")
    assert told["counts"]["succeeded"] == len(requests), told
    return str(told["id"])


def exported(mill: Mill, batch: str, *options: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in mill.ok("results", batch, *options).splitlines()]


def test_given_a_template_that_opens_the_thinking_when_run_then_it_is_apart_everywhere(
    embedded: Mill,
) -> None:
    says = "The mill grinds.\n</think>\n\nParis."
    base = {"messages": CHAT, "temperature": 0, "max_tokens": 40}
    requests = [base, {**base, "max_tokens": 3}, {**base, "choice": ["yes", "no"]}]
    batch = run(embedded, "r1", says, requests)
    whole, cut, chosen = exported(embedded, batch)
    assert (whole["reasoning"], whole["text"]) == ("The mill grinds.", "Paris.")
    assert (cut["text"], cut["finish_reason"]) == ("", "length")
    assert "The mill grinds.".startswith(cut["reasoning"])
    assert chosen["reasoning"] == "The mill grinds."
    assert chosen["text"] in ("yes", "no")
    line = exported(embedded, batch, "--format", "openai")[0]
    message = line["response"]["body"]["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Paris.", "The mill grinds.")
    shown = embedded.ok("status", f"{batch}-1")
    assert "thinking:\nThe mill grinds.\n" in shown
    assert "text (stop):\nParis.\n" in shown
    assert embedded.json("status", f"{batch}-1")["samples"][0]["reasoning"] == "The mill grinds."
    assert next(iter(embedded.client.results(batch))).reasoning == "The mill grinds."
    frame = Path(embedded.folder / "out.csv")
    embedded.ok("results", batch, "-o", str(frame))
    assert "The mill grinds." in frame.read_text()
    assert embedded.json("replay", f"{batch}-1")["same"]


def test_given_functions_when_run_then_their_calls_are_apart_everywhere(embedded: Mill) -> None:
    call = '{"name": "weather", "arguments": {"city": "Paris"}}'
    says = f"<think>\nHm.\n</think>\n\n<tool_call>\n{call}\n</tool_call>"
    base = {"messages": CHAT, "temperature": 0, "max_tokens": 200, "tools": TOOLS}
    named = {"type": "function", "function": {"name": "time"}}
    requests = [base, {**base, "tool_choice": named, "parallel_tool_calls": False}]
    batch = run(embedded, "qwen3", says, requests, tools=TOOLS)
    free, forced = exported(embedded, batch)
    for record, name in ((free, "weather"), (forced, "time")):
        assert (record["reasoning"], record["text"]) == ("Hm.", "")
        assert record["finish_reason"] == "tool_calls"
        (made,) = record["tool_calls"]
        assert made["function"]["name"] == name
    assert json.loads(free["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
    line = exported(embedded, batch, "--format", "openai")[0]
    choice = line["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == free["tool_calls"]
    shown = embedded.ok("status", f"{batch}-1")
    assert 'calls (tool_calls):\nweather({"city": "Paris"})' in shown
    assert embedded.json("replay", f"{batch}-2")["same"]


def test_given_a_choice_without_functions_when_submitted_then_nothing_is_queued(
    embedded: Mill,
) -> None:
    file = embedded.folder / "bad.jsonl"
    file.write_bytes(orjson.dumps({"messages": CHAT, "tool_choice": "required"}))
    refused = embedded.run("submit", str(file), "--model", "anything")
    assert refused.returncode == 2
    assert "bad.jsonl:1: has 'tool_choice' and no 'tools'" in refused.stderr
