"""Every column that promptmill writes of a result, declared once, in the order of a record.

JSON Lines, CSV, Parquet, data frames and the table in docs/formats.md are made from this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from db.modes import Mode
from db.records import Batch


class Type(Enum):
    """What a column's values are."""

    TEXT = "text"
    INTEGER = "integer"
    #: An integer that needs 64 bits.
    LONG = "long"
    NUMBER = "number"
    TIME = "time"
    #: JSON, stored as its text.
    JSON = "JSON"
    #: JSON of tokens with their log-probabilities.
    TOKENS = "tokens"
    VECTOR = "vector"
    #: `{"code", "message"}`.
    ERROR = "error"


class Part(Enum):
    """When a column is written."""

    #: Always: the lean record.
    ANSWER = "answer"
    #: With `--provenance`.
    PROVENANCE = "provenance"
    #: With `--with-prompt`.
    REQUEST = "request"


def _always(_batch: Batch) -> bool:
    return True


def _generates(batch: Batch) -> bool:
    return batch.mode is Mode.GENERATE


def _scores(batch: Batch) -> bool:
    return batch.mode is Mode.SCORE


def _embeds(batch: Batch) -> bool:
    return batch.mode is Mode.EMBED


def has_several_samples(batch: Batch) -> bool:
    """Whether a job of the batch has more than one stored sample."""
    return batch.sample_counts.samples > batch.succeeded


def _has_reasoning(batch: Batch) -> bool:
    return batch.sample_counts.with_reasoning > 0


def _has_tool_calls(batch: Batch) -> bool:
    return batch.sample_counts.with_tool_calls > 0


def _has_logprobs(batch: Batch) -> bool:
    return batch.sample_counts.with_logprobs > 0


@dataclass(frozen=True, slots=True)
class RecordColumn:
    """A column of ours."""

    name: str
    type: Type
    #: For docs/formats.md.
    meaning: str
    part: Part = Part.ANSWER
    #: Of which batches.
    when: Callable[[Batch], bool] = _always
    #: A JSON record has the key only where there is a value.
    sparse: bool = False
    #: Only in documents (JSON Lines), or only in tables (CSV, Parquet, data frames); None: both.
    only: str | None = None


def _provenance(name: str, type_: Type, meaning: str) -> RecordColumn:
    return RecordColumn(name, type_, meaning, part=Part.PROVENANCE)


def _request(name: str, type_: Type, meaning: str) -> RecordColumn:
    return RecordColumn(name, type_, meaning, part=Part.REQUEST, sparse=True)


DOCUMENTS = "documents"
TABLES = "tables"

_WHEN_RUN = "null for a job that never ran"

RECORD_COLUMNS: tuple[RecordColumn, ...] = (
    _request("prompt", Type.TEXT, "a completion's prompt; token ids, or a list, as JSON"),
    _request("messages", Type.JSON, "a chat's messages"),
    _request("tools", Type.JSON, "a chat's tools"),
    _request("completion", Type.TEXT, "the completion that was scored"),
    RecordColumn("id", Type.TEXT, "the job: `BATCH-LINE`. Lines count from 1, in input order, "
                 "without blank lines"),
    RecordColumn("custom_id", Type.TEXT, "as given"),
    RecordColumn("state", Type.TEXT, "`succeeded`, `failed`, `cancelled`, or `expired` (its "
                 "batch's deadline passed first)"),
    RecordColumn("sample", Type.INTEGER, "0 … n - 1; only of batches where a job has several, or "
                 "with `--provenance`", when=has_several_samples),
    RecordColumn("text", Type.TEXT, "what was generated", when=_generates),
    RecordColumn("logprob", Type.NUMBER, "of [scores](#scores): of all tokens together, in nats",
                 when=_scores, sparse=True),
    RecordColumn("perplexity", Type.NUMBER, "of scores", when=_scores, sparse=True),
    RecordColumn("embedding", Type.VECTOR, "of [embeddings](#embeddings)", when=_embeds,
                 sparse=True),
    RecordColumn("reasoning", Type.TEXT, "what the model [thought](#thinking), where it marked it",
                 when=_has_reasoning, sparse=True),
    RecordColumn("tool_calls", Type.JSON, "where the answer calls [functions](#tools): of each "
                 "`id`, `type`, and `function` with `name` and `arguments`, as JSON in a text",
                 when=_has_tool_calls, sparse=True),
    RecordColumn("finish_reason", Type.TEXT, "`stop` or `length`; `tool_calls` where the answer "
                 "[calls functions](#tools)", when=_generates),
    RecordColumn("prompt_tokens", Type.INTEGER, "the prompt's tokens as the model saw them; 0 or "
                 "null for a job without a text"),
    RecordColumn("completion_tokens", Type.INTEGER, "generated tokens of this sample, or scored "
                 "tokens; 0 for an embedding"),
    RecordColumn("logprobs", Type.TOKENS, "where asked for: per token `token`, `token_id`, "
                 "`logprob`, `bytes` where it is no whole character, and `top`, a list of the same",
                 when=_has_logprobs, sparse=True),
    RecordColumn("error", Type.ERROR, "`{\"code\", \"message\"}` of a failed job", only=DOCUMENTS),
    RecordColumn("error_code", Type.TEXT, "the [code](#error-codes) of a failed job", only=TABLES),
    RecordColumn("error_message", Type.TEXT, "what went wrong", only=TABLES),
    _provenance("line", Type.LONG, "the job's number, as in `id`"),
    _provenance("model", Type.TEXT, "the batch's model"),
    _provenance("revision", Type.TEXT, "commit of a hub model, digest of a folder or a GGUF file"),
    _provenance("weights", Type.TEXT, "SHA-256 over the files of the weights: see "
                "[where a text comes from](#where-a-text-comes-from)"),
    _provenance("tokenizer", Type.TEXT, "the same over the files of tokenizer and chat template"),
    _provenance("adapter", Type.TEXT, "the same over the files of the "
                "[LoRA adapter](engines.md#lora-adapters) that was used; null where none was"),
    _provenance("engine", Type.TEXT, f"what generated it; {_WHEN_RUN}, as are the next seven"),
    _provenance("engine_version", Type.TEXT, "the versions of its libraries"),
    _provenance("backend", Type.TEXT, "which of its ways of computing the engine took; null where "
                "it has one"),
    _provenance("dtype", Type.TEXT, "what it computed in; behind it, how "
                "[weights are packed](engines.md#quantised-models): `bfloat16, bnb-4bit`"),
    _provenance("device", Type.TEXT, "such as `cuda:0`"),
    _provenance("hardware", Type.TEXT, "such as `NVIDIA H200`"),
    _provenance("worker", Type.TEXT, "the worker: `host:process:random`"),
    _provenance("seed", Type.LONG, "what it is drawn from: the job's own, or made from its id (of "
                "a job that was [tried again](#trying-again): the first try's); null where "
                "nothing is drawn. Up to 2⁶³ - 1, which some JSON readers round"),
    _provenance("params", Type.JSON, "every [parameter](#generation-parameters) that has a value, "
                "defaults included"),
    _provenance("attempts", Type.INTEGER, "0 for a job that never ran"),
    _provenance("started_at", Type.TIME, "when the model first worked on it, in its first try"),
    _provenance("finished_at", Type.TIME, "when it was stored"),
    _provenance("seconds", Type.NUMBER, "from `started_at` to `finished_at`"),
)  # fmt: skip

#: Columns that the request must be read for.
REQUEST_COLUMNS = tuple(column for column in RECORD_COLUMNS if column.part is Part.REQUEST)


def written_columns(
    batch: Batch | None, *, provenance: bool, with_prompt: bool, documents: bool
) -> list[RecordColumn]:
    """The columns of ours in a record; with no batch known, all that a result may have."""
    other = TABLES if documents else DOCUMENTS

    def is_written(column: RecordColumn) -> bool:
        if column.only == other:
            return False
        if column.part is Part.REQUEST:
            return with_prompt
        if column.part is Part.PROVENANCE:
            return provenance
        return batch is None or column.when(batch) or (provenance and column.name == "sample")

    return [column for column in RECORD_COLUMNS if is_written(column)]
