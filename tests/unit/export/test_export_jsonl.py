"""JSON Lines: what a record holds."""

from __future__ import annotations

import gzip
import json
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from db.records import Result
from db.states import JobState
from producer.export import write
from tests.support.results import BATCH_ID, FULL, LOGPROBS, failure, result


def written(tmp_path: Path, *results: Result) -> list[dict[str, Any]]:
    target = tmp_path / "out.jsonl"
    assert write(results, target, format="jsonl", options=FULL) == len(results)
    content = target.read_bytes()
    assert content.count(b"\n") == len(results)
    return [json.loads(line) for line in content.splitlines()]


def test_given_a_sample_when_written_then_every_key_is_there(tmp_path: Path) -> None:
    assert written(tmp_path, result(5, custom_id="mine", sample=2)) == [
        {
            "id": f"{BATCH_ID}-5",
            "custom_id": "mine",
            "line": 5,
            "state": "succeeded",
            "sample": 2,
            "text": "Hi there",
            "finish_reason": "stop",
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "model": "org/model",
            "revision": "abc123",
            "weights": "5f" * 32,
            "tokenizer": "a1" * 32,
            "adapter": None,
            "engine": "transformers",
            "engine_version": "5.23.0, torch 2.13.0",
            "backend": "continuous, packed attention",
            "dtype": "float32",
            "device": "cpu",
            "hardware": "x86_64 AVX512",
            "worker": "host:1:x",
            "seed": 2**62 + 1,
            "params": {"max_tokens": 8, "temperature": 1.0},
            "attempts": 1,
            "started_at": "2025-10-09T08:53:20.250Z",
            "finished_at": "2025-10-09T08:53:21.500Z",
            "seconds": 1.25,
            "error": None,
        }
    ]


def test_given_a_failure_when_written_then_it_has_its_error_and_no_text(tmp_path: Path) -> None:
    (record,) = written(tmp_path, failure(code="prompt_too_long"))
    assert record["error"] == {"code": "prompt_too_long", "message": "it broke: try again"}
    assert record["state"] == "failed"
    assert (record["text"], record["started_at"], record["seconds"]) == (None, None, None)


def test_given_a_cancelled_job_when_written_then_its_state_says_so(tmp_path: Path) -> None:
    (record,) = written(tmp_path, result(state=JobState.CANCELLED, text=None))
    assert (record["state"], record["error"]) == ("cancelled", None)


def test_given_logprobs_when_written_then_they_are_json_not_text(tmp_path: Path) -> None:
    (record,) = written(tmp_path, result(logprobs=json.dumps(LOGPROBS)))
    assert record["logprobs"] == LOGPROBS


@pytest.mark.parametrize(
    ("request_", "added"),
    [
        ({"prompt": "P", "params": {"seed": 1}}, {"prompt": "P"}),
        ({"messages": [{"role": "user", "content": "Hi"}]}, None),
        ({}, {}),
    ],
)
def test_given_the_request_when_written_then_its_prompt_or_messages_are_added(
    request_: dict[str, Any], added: dict[str, Any] | None, tmp_path: Path
) -> None:
    (plain,) = written(tmp_path, result())
    (record,) = written(tmp_path, result(request=request_))
    assert record == plain | (request_ if added is None else added)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_760_000_000.9999, "2025-10-09T08:53:20.999Z"),
        (1_760_000_000.9999999, "2025-10-09T08:53:21.000Z"),
    ],
)
def test_given_a_time_when_written_then_it_is_utc_in_milliseconds(
    seconds: float, text: str, tmp_path: Path
) -> None:
    (record,) = written(tmp_path, result(started_at=seconds))
    assert record["started_at"] == text


def unzstd(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(content).read()


@pytest.mark.parametrize(("suffix", "unpack"), [("gz", gzip.decompress), ("zst", unzstd)])
def test_given_a_packed_name_when_written_then_the_file_is_packed(
    suffix: str, unpack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / f"a.jsonl.{suffix}"
    results = [result(line) for line in range(1, 3_000)]
    write(results, plain, format="jsonl")
    assert write(results, packed, format="jsonl") == len(results)
    assert packed.stat().st_size < plain.stat().st_size / 5
    assert unpack(packed.read_bytes()) == plain.read_bytes()


def test_given_no_results_when_written_then_the_file_is_empty(tmp_path: Path) -> None:
    assert written(tmp_path) == []


def test_given_measures_among_others_when_written_then_only_theirs_have_the_keys(
    tmp_path: Path,
) -> None:
    nothing = {"text": None, "finish_reason": None, "seed": None}
    score, vector, impossible, broken, text = written(
        tmp_path,
        result(1, logprob=-3.0, logprobs=json.dumps(LOGPROBS), **nothing),
        result(2, embedding=array("f", [0.5, -2.0]), **nothing),
        result(3, logprob=-1e6, **nothing),
        failure(4),
        result(5),
    )
    assert (score["logprob"], score["perplexity"]) == (-3.0, math.exp(1.5))
    assert (score["logprobs"], score["text"]) == (LOGPROBS, None)
    assert vector["embedding"] == [0.5, -2.0]
    assert (impossible["logprob"], impossible["perplexity"]) == (-1e6, None)
    measures = {"logprob", "perplexity", "embedding", "logprobs"}
    assert not measures & (set(broken) | set(text))
    assert measures & set(vector) == {"embedding"}
    assert measures & set(impossible) == {"logprob", "perplexity"}


def test_token_ids_and_lists_of_prompts_are_json_in_a_text(tmp_path: Path) -> None:
    ids, several = written(
        tmp_path,
        result(request={"prompt": [5, 6]}),
        result(2, request={"prompts": ["a", [5, 6]]}),
    )
    assert ids["prompt"] == "[5,6]"
    assert several["prompt"] == '["a",[5,6]]'
