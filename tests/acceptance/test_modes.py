"""Scores and embeddings from a file of texts to a file of numbers, through a real worker."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from db.errors import UsageError
from db.queries.audit import audit
from tests.acceptance.mill import Mill
from tests.support.checkpoints import Checkpoint
from tests.support.measured import Reference

pytest.importorskip("worker.engine.transformers.engine")

TEXTS = ["Hello, I'm a language model", "The quick brown fox jumps over the lazy dog", "Hi there"]


@pytest.fixture(params=["sqlite", "postgresql"])
def serving(
    request: pytest.FixtureRequest, checkpoint: Checkpoint
) -> Iterator[tuple[Mill, Reference]]:
    """An installation with a worker that holds the tiny GPT-2, and what that model says itself."""
    mill: Mill = request.getfixturevalue("mill" if request.param == "postgresql" else "embedded")
    folder = checkpoint("gpt2")
    mill.model = str(folder)
    engine = {"PROMPTMILL_ENGINE": "transformers", "PROMPTMILL_DEVICE": "cpu"}
    mill.worker("{}", **engine, PROMPTMILL_DTYPE="float32")
    yield mill, Reference(folder)
    with mill.client.database.read() as connection:
        assert audit(connection) == []


def written(mill: Mill, batch: str, name: str, *options: str) -> Path:
    target = mill.folder / name
    mill.run("results", batch, "-o", str(target), *options)
    assert target.exists()
    return target


def lines(file: Path) -> list[Any]:
    return [orjson.loads(line) for line in file.read_bytes().splitlines()]


def test_given_a_file_of_completions_when_scored_then_every_format_has_the_plain_models_numbers(
    serving: tuple[Mill, Reference],
) -> None:
    mill, reference = serving
    cases: list[tuple[str, str | None]] = [
        (TEXTS[0], " that grinds"), (TEXTS[1], " all day long"), (TEXTS[2], None),
    ]  # fmt: skip
    source = mill.folder / "scored.jsonl"
    requests: list[dict[str, Any]] = [
        {"prompt": prompt, "completion": completion} if completion else {"text": prompt}
        for prompt, completion in cases
    ]
    requests[0]["logprobs"] = 2
    source.write_bytes(b"\n".join(map(orjson.dumps, requests)))
    batch = mill.ok("submit", str(source), "--model", mill.model, "--mode", "score").strip()
    assert mill.finished(batch).succeeded == len(cases)
    records = lines(written(mill, batch, "scores.jsonl", "--with-prompt"))
    table = pq.read_table(written(mill, batch, "scores.parquet")).to_pylist()
    for case, record, row in zip(cases, records, table, strict=True):
        expected = reference.logprobs(*case)
        assert record["logprob"] == pytest.approx(math.fsum(expected), abs=2e-3)
        assert record["completion_tokens"] == len(expected)
        ratio = math.exp(-math.fsum(expected) / len(expected))
        assert record["perplexity"] == pytest.approx(ratio, rel=1e-3)
        assert "text" not in record
        assert (record["prompt"], record.get("completion")) == case
        assert (row["logprob"], row["perplexity"]) == (record["logprob"], record["perplexity"])
        assert "embedding" not in row
    assert len(records[0]["logprobs"]) == records[0]["completion_tokens"]
    assert "logprobs" not in records[1]
    shown = mill.ok("status", f"{batch}-1")
    assert f"log-probability {records[0]['logprob']:.4f}" in shown
    refused = mill.run("results", batch, "--format", "openai")
    assert refused.returncode == 2
    assert "format openai holds generated text and embeddings" in refused.stderr


def test_given_a_file_of_texts_when_embedded_then_every_format_has_the_plain_models_states(
    serving: tuple[Mill, Reference],
) -> None:
    mill, reference = serving
    source = mill.prompts(TEXTS)
    options = ("--model", mill.model, "--mode", "embed")
    batch = mill.ok("submit", source, *options).strip()
    half = mill.ok("submit", source, *options, "-p", "precision=float16").strip()
    assert batch != half
    assert mill.finished(batch).succeeded == mill.finished(half).succeeded == len(TEXTS)
    assert mill.client.batch(batch).completion_tokens == 0
    table = pq.read_table(written(mill, batch, "vectors.parquet"))
    assert table.schema.field("embedding").type == pa.list_(pa.float32())
    records = lines(written(mill, batch, "vectors.jsonl"))
    halves = lines(written(mill, half, "halves.jsonl"))
    for text, vector, record, rough in zip(
        TEXTS, table["embedding"].to_pylist(), records, halves, strict=True
    ):
        expected = reference.states(text).mean(dim=0).tolist()
        assert record["embedding"] == vector == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert rough["embedding"] == pytest.approx(expected, rel=2e-3, abs=1e-2)
        assert not {"text", "logprob"} & set(record)
    job = mill.job(batch, 1)
    assert job.samples[0]["embedding"] == records[0]["embedding"]


def test_given_all_three_modes_at_once_when_one_worker_serves_them_then_each_is_done(
    serving: tuple[Mill, Reference],
) -> None:
    mill, _ = serving
    submit = mill.client.submit
    batches = [
        submit(TEXTS * 5, model=mill.model, params={"max_tokens": 8}),
        submit(TEXTS * 5, model=mill.model, mode="score"),
        submit(TEXTS * 5, model=mill.model, mode="embed", params={"normalize": True}),
    ]
    for batch in batches:
        assert mill.finished(batch.id).succeeded == 15
    texts, scores, vectors = (list(mill.client.results(batch.id)) for batch in batches)
    assert all(one.text and one.logprob is None and one.embedding is None for one in texts)
    assert all(one.logprob and one.perplexity and one.text is None for one in scores)
    for one in vectors:
        assert one.embedding is not None
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-5)


BAD = {
    "no completion": ('{"messages": [{"role": "user", "content": "Hi"}]}', "score", "is a chat"),
    "empty completion": ('{"prompt": "a", "completion": ""}', "score", "the completion is empty"),
    "both texts": ('{"prompt": "a", "text": "b"}', "score", "has both 'prompt' and 'text'"),
    "nothing": ('{"completion": "a"}', "score", "has neither 'prompt', 'text' nor 'messages'"),
    "sampling": ('{"prompt": "a", "temperature": 0}', "score", "'temperature' (of mode generate)"),
    "chat": ('{"messages": []}', "embed", "unknown key 'messages' (of mode generate or score)"),
    "completion": ('{"prompt": "a", "completion": "b"}', "embed", "'completion' (of mode score)"),
    "pooling": ('{"text": "a", "pooling": "max"}', "embed", "parameter 'pooling'"),
    "generate": ('{"prompt": "a", "completion": "b"}', "generate", "'completion' (of mode score)"),
    "openai": (
        '{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}',
        "embed",
        "and this batch is of mode embed",
    ),
}


@pytest.mark.parametrize(("line", "mode", "says"), BAD.values(), ids=BAD)
def test_given_a_bad_line_when_submitted_in_a_mode_then_file_line_and_fix_are_told(
    embedded: Mill, line: str, mode: str, says: str
) -> None:
    source = embedded.prompts(['{"prompt": "good"}', line], "bad.jsonl")
    done = embedded.run("submit", source, "--model", "m", "--mode", mode)
    assert done.returncode == 2
    assert f"{source}:2: " in done.stderr
    assert says in done.stderr
    assert ": " in done.stderr.partition(says)[2]
    assert embedded.client.batches() == []


def test_given_an_encoder_decoder_when_a_text_alone_is_to_be_scored_then_it_is_refused_at_submit(
    embedded: Mill, checkpoint: Checkpoint
) -> None:
    source = embedded.prompts(['{"prompt": "a", "completion": "b"}', '{"text": "a"}'], "a.jsonl")
    done = embedded.run("submit", source, "--model", str(checkpoint("t5")), "--mode", "score")
    assert done.returncode == 2
    assert f"{source}:2: has no 'completion', and model" in done.stderr
    assert "give both" in done.stderr


def test_given_the_same_texts_when_submitted_in_another_mode_then_it_is_another_batch(
    embedded: Mill,
) -> None:
    batches = [
        embedded.client.submit(TEXTS, model="m", name="same", mode=mode).id
        for mode in ("generate", "score", "embed", "score", "generate")
    ]
    assert len(set(batches)) == 3
    assert (batches[0], batches[1]) == (batches[4], batches[3])
    with pytest.raises(UsageError, match="mode 'rank' is none of generate, score, embed"):
        embedded.client.submit(TEXTS, model="m", mode="rank")


def test_given_openai_output_when_a_score_is_to_be_run_then_it_is_refused_before_any_work(
    embedded: Mill,
) -> None:
    source = embedded.prompts(TEXTS)
    done = embedded.run(
        "run", source, "--model", "m", "--mode", "score", "--output-format", "openai", "-o", "x"
    )
    assert done.returncode == 2
    assert "format openai holds generated text and embeddings" in done.stderr
    assert embedded.client.batches() == []


def test_given_run_when_scored_on_the_echo_engine_then_table_and_summary_say_so(
    embedded: Mill,
) -> None:
    source = embedded.prompts(['{"prompt": "one", "completion": "two three"}'], "a.jsonl")
    arguments = ("--model", embedded.model, "--engine", "echo", "--mode", "score")
    done = embedded.run("run", source, *arguments, "--table")
    assert done.returncode == 0, done.stderr
    assert "log-probability -8.0000, perplexity 54.6" in done.stdout
    assert "3 tokens" in done.stderr


def test_embeddings_by_pipe_are_an_embed_batch(embedded: Mill) -> None:
    body = {"model": "m", "input": ["one", "two"]}
    line = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": body}
    options = ("--json", "-p", "pooling=last")
    done = embedded.run("submit", "-", *options, stdin=orjson.dumps(line))
    assert "the lines are for /v1/embeddings: mode embed" in done.stderr
    batch = embedded.client.batch(orjson.loads(done.stdout)["id"])
    assert (batch.mode, batch.total, batch.params) == ("embed", 1, {"pooling": "last"})
    assert embedded.client.submit([line]).mode == "embed"
    refused = embedded.run("submit", "-", "-p", "temperature=0", stdin=orjson.dumps(line))
    assert refused.returncode == 2
    assert "unknown parameter 'temperature' in mode embed" in refused.stderr


def test_expansion_of_embeddings_is_refused_before_any_work(embedded: Mill) -> None:
    line = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"input": "one"}}
    done = embedded.run(
        "run", "-", "-m", "m", "--expand", "-o", "x.jsonl", stdin=orjson.dumps(line)
    )
    assert done.returncode == 2
    assert "--expand is for generated JSON, and this batch is of mode embed" in done.stderr
    assert embedded.client.batches() == []
