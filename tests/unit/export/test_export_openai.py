"""OpenAI batch output: one line a job, in the shape that OpenAI's clients read."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from db.records import Batch, Result
from db.states import JobState
from producer.export import write
from tests.support.results import BATCH_ID, LOGPROBS, batch, failure, result

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
PROMPT = {"prompt": "Say: "}
STORED = json.dumps(LOGPROBS)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Usage(Strict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(Strict):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Strict):
    content: list[TokenLogprob] | None
    refusal: None


class Message(Strict):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Strict):
    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class Chat(Strict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None


class TextLogprobs(Strict):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Strict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class Text(Strict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str | None


def lines(tmp_path: Path, *results: Result, batch: Batch | None = None) -> list[dict[str, Any]]:
    target = tmp_path / "out.jsonl"
    count = write(results, target, format="openai", batch=batch)
    found = [json.loads(line) for line in target.read_bytes().splitlines()]
    assert count == len(found)
    return found


def test_given_a_chat_with_two_samples_when_written_then_it_is_one_line_of_two_choices(
    tmp_path: Path,
) -> None:
    samples = [
        result(4, custom_id="mine", sample=0, text="A", request=CHAT),
        result(4, custom_id="mine", sample=1, text="B", finish_reason="length", request=CHAT),
    ]
    (line,) = lines(tmp_path, *samples)
    assert line["id"] == f"batch_req_{BATCH_ID}-4"
    assert line["custom_id"] == "mine"
    assert line["error"] is None
    assert line["response"]["status_code"] == 200
    assert line["response"]["request_id"] == f"req_{BATCH_ID}-4"
    body = Chat.model_validate(line["response"]["body"])
    assert [(c.index, c.message.content, c.finish_reason) for c in body.choices] == [
        (0, "A", "stop"),
        (1, "B", "length"),
    ]
    assert body.usage == Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    assert (body.created, body.model) == (1_760_000_001, "org/model")
    assert body.system_fingerprint == "abc123"


def test_given_a_completion_when_written_then_its_body_is_a_text_completion(
    tmp_path: Path,
) -> None:
    (line,) = lines(tmp_path, result(request=PROMPT))
    body = Text.model_validate(line["response"]["body"])
    assert body.choices == [
        TextChoice(index=0, text="Hi there", logprobs=None, finish_reason="stop")
    ]


def test_given_no_custom_id_when_written_then_the_jobs_id_stands_for_it(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, result(7, request=PROMPT))
    assert line["custom_id"] == f"{BATCH_ID}-7"


def test_given_chat_logprobs_when_written_then_tokens_have_bytes_where_they_are_whole(
    tmp_path: Path,
) -> None:
    (line,) = lines(tmp_path, result(request=CHAT, logprobs=STORED))
    logprobs = Chat.model_validate(line["response"]["body"]).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    whole, part = logprobs.content
    assert (whole.token, whole.logprob, whole.bytes) == ("Hi", -0.5, [72, 105])
    assert [top.token for top in whole.top_logprobs] == ["Hi", "Ho"]
    assert (part.bytes, part.top_logprobs) == (None, [])


@pytest.mark.parametrize(
    ("own", "defaults", "start"),
    [
        ({}, {}, 0),
        ({"echo": True}, {}, 5),
        ({}, {"echo": True}, 5),
        ({"echo": False}, {"echo": True}, 0),
    ],
)
def test_given_completion_logprobs_when_written_then_offsets_begin_after_an_echoed_prompt(
    own: dict[str, Any], defaults: dict[str, Any], start: int, tmp_path: Path
) -> None:
    request = {**PROMPT, "params": own}
    (line,) = lines(
        tmp_path, result(request=request, logprobs=STORED), batch=batch(params=defaults)
    )
    logprobs = Text.model_validate(line["response"]["body"]).choices[0].logprobs
    assert logprobs == TextLogprobs(
        tokens=["Hi", "\ufffd"],
        token_logprobs=[-0.5, -0.75],
        top_logprobs=[{"Ho": -1.25, "Hi": -0.5}, {}],
        text_offset=[start, start + 2],
    )


def test_given_logprobs_without_alternatives_when_written_then_top_is_null(tmp_path: Path) -> None:
    stored = '[{"token":"a","token_id":1,"logprob":null,"top":[]}]'
    (line,) = lines(tmp_path, result(request=PROMPT, logprobs=stored))
    logprobs = line["response"]["body"]["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] is None
    assert logprobs["token_logprobs"] == [-9999.0]


@pytest.mark.parametrize("code", ["invalid_request", "prompt_too_long", "no_chat_template"])
def test_given_a_refused_request_when_written_then_it_is_a_400_with_its_error(
    code: str, tmp_path: Path
) -> None:
    (line,) = lines(tmp_path, failure(code=code, request={}))
    assert line["error"] is None
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"] == {
        "error": {
            "message": "it broke: try again",
            "type": "invalid_request_error",
            "param": None,
            "code": code,
        }
    }


def test_given_any_other_failure_when_written_then_the_line_has_the_error(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, failure(code="worker_lost", request=CHAT))
    assert line["response"] is None
    assert line["error"] == {"code": "worker_lost", "message": "it broke: try again"}


@pytest.mark.parametrize(
    ("state", "code"),
    [(JobState.CANCELLED, "batch_cancelled"), (JobState.EXPIRED, "batch_expired")],
)
def test_given_a_job_that_never_ran_when_written_then_the_code_says_why(
    state: JobState, code: str, tmp_path: Path
) -> None:
    (line,) = lines(tmp_path, result(state=state, text=None, request=CHAT))
    assert line["response"] is None
    assert line["error"]["code"] == code


def test_given_results_without_requests_when_written_then_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs results with their requests"):
        lines(tmp_path, result())


def test_given_openais_own_models_when_bodies_are_read_then_they_fit(tmp_path: Path) -> None:
    types = pytest.importorskip("openai.types", reason="needs the package 'openai'")
    chat_types = pytest.importorskip("openai.types.chat")
    chat, text = lines(
        tmp_path,
        result(1, request=CHAT, logprobs=STORED),
        result(2, request=PROMPT, logprobs=STORED),
    )
    for model, line in ((chat_types.ChatCompletion, chat), (types.Completion, text)):
        body = line["response"]["body"]
        model.model_validate(body, strict=True)
        assert set(body) <= set(model.model_fields)


def test_list_of_prompts_is_one_line_of_choices_in_order(tmp_path: Path) -> None:
    request = {"prompts": ["Say: ", [5, 6]], "params": {"n": 2, "echo": True}}
    samples = [
        result(sample=at, text=f"{prompt}Hi\ufffd", request=request, logprobs=STORED)
        for at, prompt in enumerate(("Say: ", "Say: ", "ids ", "ids "))
    ]
    (line,) = lines(tmp_path, *samples)
    choices = Text.model_validate(line["response"]["body"]).choices
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    starts = [choice.logprobs.text_offset[0] for choice in choices if choice.logprobs]
    assert starts == [5, 5, 4, 4]


def test_embeddings_of_a_job_are_one_list(tmp_path: Path) -> None:
    request = {"prompts": ["a", "b"]}
    samples = [
        result(sample=at, request=request, text=None, embedding=array("f", [at, 0.5]))
        for at in range(2)
    ]
    (line,) = lines(tmp_path, *samples)
    assert line["response"]["body"] == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.0, 0.5]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 0.5]},
        ],
        "model": "org/model",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
