"""`retry_max_tokens` and `retry_invalid` from the command line: run, shown, replayed, audited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import func, select

from db.schema import attempts
from tests.acceptance.mill import Mill
from tests.support.checkpoints import Checkpoint
from tests.support.endpoint import EchoEndpoint

LONG = "a b c d e f g h i j"
GROWS = ("-p", "max_tokens=2", "-p", "retry_max_tokens=64", "-p", "temperature=0")


def test_given_texts_that_are_cut_when_run_then_every_command_tells_of_their_tries(
    embedded: Mill,
) -> None:
    file = embedded.prompts([LONG, "a b"])
    out = embedded.folder / "out.jsonl"
    run = embedded.json(
        "run", file, "--model", embedded.model, *GROWS, "-o", str(out), "--provenance"
    )
    assert run["tokens"] == {"prompt": 12, "completion": 12}
    first, second = [json.loads(line) for line in out.read_text().splitlines()]
    assert (first["text"], first["finish_reason"], first["attempts"]) == (LONG, "stop", 1)
    assert first["params"]["retry_max_tokens"] == 64
    assert second["text"] == "a b"

    told = embedded.json("status", f"{run['id']}-1")
    assert [one["error"]["code"] for one in told["history"]] == ["truncated"] * 3
    assert [one["params"] for one in told["history"]] == [
        {"seed": told["seed"], "max_tokens": limit} for limit in (2, 4, 8)
    ]
    assert told["history"][1]["samples"] == [
        {"text": "a b c d", "finish_reason": "length", "completion_tokens": 4}
    ]
    shown = embedded.ok("status", f"{run['id']}-1")
    assert f"(seed={told['seed']}, max_tokens=4): truncated: the text was cut after 4" in shown
    assert "    'a b c d' (length)\n" in shown

    replayed = embedded.json("replay", f"{run['id']}-1")
    assert (replayed["same"], replayed["differences"]) == (True, [])
    assert embedded.run("doctor", "--audit").returncode == 0
    embedded.client.delete(run["id"])
    with embedded.client.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar_one() == 0


def test_given_a_model_when_a_text_is_cut_then_the_longer_one_begins_the_same_and_is_replayed(
    embedded: Mill, checkpoint: Checkpoint
) -> None:
    embedded.env["PROMPTMILL_ENGINE"] = "transformers"
    folder = str(checkpoint("gemma3"))
    # A seed: where a draw falls on an edge, what is computed beside it may decide.
    limits = ["max_tokens=4", "retry_max_tokens=16", "ignore_eos=true", "n=2", "seed=7"]
    params = [part for limit in limits for part in ("-p", limit)]
    file = embedded.prompts(["Hello there", "The mill"])
    run = embedded.json("run", file, "--model", folder, "--dtype", "float32", *params)
    job = embedded.job(run["id"], 1)
    assert [one["completion_tokens"] for one in job.samples] == [16, 16]
    assert [one.params and one.params["max_tokens"] for one in job.history] == [4, 8]
    for kept in job.history:
        for short, whole in zip(kept.samples or (), job.samples, strict=True):
            assert whole["text"].startswith(short["text"].rstrip("\ufffd"))
    assert embedded.json("replay", f"{run['id']}-1")["same"] is True


def test_given_structures_that_are_broken_when_run_then_the_answer_of_a_good_seed_is_replayed(
    embedded: Mill,
) -> None:
    lines: list[dict[str, Any]] = [
        {"prompt": '{"a": 1}', "seed": 1, "response_format": {"type": "json_object"}},
        {"prompt": "no JSON", "seed": 1, "response_format": {"type": "json_object"}},
    ]
    file = embedded.prompts([json.dumps(line) for line in lines], "lines.jsonl")
    with EchoEndpoint() as endpoint:
        embedded.env |= {
            "PROMPTMILL_ENGINE": "openai",
            "PROMPTMILL_ENGINE_OPTIONS": json.dumps({"base_url": endpoint.url, "api": "chat"}),
        }
        done = embedded.run("run", file, "--model", "echo", "-p", "retry_invalid=9", "--json")
        assert done.returncode == 1, "not every job succeeded"
        batch = json.loads(done.stdout)["id"]
        job = embedded.job(batch, 1)
        assert [one["text"] for one in job.samples] == ['{"a": 1}']
        assert job.history
        assert {one.error_code for one in job.history} == {"invalid_structure"}
        assert embedded.json("replay", f"{batch}-1")["same"] is True
        (failed,) = embedded.lines("results", batch, "--failed")
        assert failed["error"]["code"] == "invalid_structure"
        assert len(embedded.job(batch, 2).history) == 10
        (line,) = embedded.lines("results", batch, "--failed", "--format", "openai")
        assert (line["response"], line["error"]["code"]) == (None, "invalid_structure")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["max_length=99", "retry_max_tokens=200"], "goes with max_tokens: leave max_length out"),
        (["max_tokens=64", "retry_max_tokens=64"], "retry_max_tokens (64) is not above max_tokens"),
        (["retry_invalid=2"], "retry_invalid needs a structure: give response_format"),
        (["retry_invalid=11", "regex=a+"], "parameter 'retry_invalid': "),
        (["retry_invalid=1", "regex=a+", "echo=true"], "give retry_invalid or echo, not both"),
        (["retry_max_token=9"], "did you mean 'retry_max_tokens'?"),
    ],
)
def test_given_what_can_not_be_meant_when_submitted_then_it_is_refused_in_a_line(
    embedded: Mill, given: list[str], said: str
) -> None:
    options = [part for one in given for part in ("-p", one)]
    done = embedded.run("submit", embedded.numbered(3), "--model", "m", *options)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[0]
