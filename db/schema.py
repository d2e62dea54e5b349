"""The tables. Every time is in unix seconds of the database's clock; every count is exact.

    batches ─┬─ jobs ─┬─ results       one row a prompt, one row a sample
             │        └─ attempts      one row a failed attempt, or a rejected answer
             └─ chunks ── workers      one row a message, one row a worker process

`jobs`, `results` and `attempts` carry no foreign keys: they are written in bulk, and a key check
a row would double the price of a submit. Their rows go with their batch: `db.queries.deletion`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import JSON

#: Alembic revisions, oldest first. The last one is what this program reads and writes.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only for a column that is INTEGER PRIMARY KEY.
_Id = BigInteger().with_variant(Integer, "sqlite")

batches = Table(
    "batches",
    metadata,
    Column("id", _Id, primary_key=True),
    #: What people see: `b` and 11 letters and digits. A job is `<uid>-<line>`.
    Column("uid", String(16), nullable=False, unique=True),
    Column("name", String(200)),
    #: Unique among batches; from `--idempotency-key`, or name and content.
    Column("idempotency_key", String(300), unique=True),
    #: SHA-256 over model, parameters and every request, in order.
    Column("digest", String(64)),
    Column("model", Text, nullable=False),
    Column("queue", String(200), nullable=False),
    Column("state", String(12), nullable=False),
    #: 0 … 9, higher is sooner.
    Column("priority", SmallInteger, nullable=False),
    #: Defaults of every line, as `db.sampling.normalise` returned them.
    Column("params", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("chunk_size", Integer, nullable=False),
    Column("total", BigInteger, nullable=False, server_default=text("0")),
    Column("succeeded", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
    Column("cancelled", BigInteger, nullable=False, server_default=text("0")),
    Column("expired", BigInteger, nullable=False, server_default=text("0")),
    Column("prompt_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("completion_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    #: While validating: when the producer last wrote to it. A stale one is swept away.
    Column("touched_at", Double, nullable=False),
    #: What is unfinished by then expires; NULL: there is no deadline.
    Column("expires_at", Double),
    #: What is asked of the model, of every line alike (`db.modes.Mode`).
    Column("mode", String(10), nullable=False, server_default=text("'generate'")),
    #: Name and type of each column of the input that is stored with the jobs
    #: (`db.input_columns`); NULL: there are none.
    Column("columns", JSON(none_as_null=True)),
    #: What its stored samples are like (`db.sample_counts.SampleCounts`).
    Column("samples", BigInteger, nullable=False, server_default=text("0")),
    Column("truncated", BigInteger, nullable=False, server_default=text("0")),
    Column("shortest_cut", Integer),
    Column("longest_cut", Integer),
    Column("with_reasoning", BigInteger, nullable=False, server_default=text("0")),
    Column("with_tool_calls", BigInteger, nullable=False, server_default=text("0")),
    Column("with_logprobs", BigInteger, nullable=False, server_default=text("0")),
    Index("ix_batches_name", "name"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    #: 1 … total, in input order.
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("custom_id", String(256)),
    Column("state", String(10), nullable=False),
    #: JSON: {"prompt"} or {"messages"}, whose chat may have "tools"; "completion" where one is
    #: scored, and "params" where the line overrides some.
    Column("request", Text, nullable=False),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("worker_id", BigInteger),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("error_code", String(64)),
    Column("error_message", Text),
    #: JSON of the input row's values (`db.input_columns`); NULL: there are none.
    Column("columns", Text),
    Index(
        "uq_jobs_custom_id",
        "batch_id",
        "custom_id",
        unique=True,
        postgresql_where=text("custom_id IS NOT NULL"),
        sqlite_where=text("custom_id IS NOT NULL"),
    ),
    Index(
        "ix_jobs_failed",
        "batch_id",
        "line",
        postgresql_where=text("state = 'failed'"),
        sqlite_where=text("state = 'failed'"),
    ),
)

results = Table(
    "results",
    metadata,
    Column("batch_id", BigInteger, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    #: 0 … n-1. The key makes a second set of results for a job impossible.
    Column("sample", SmallInteger, primary_key=True, autoincrement=False),
    #: Both NULL unless text was generated.
    Column("text", Text),
    Column("finish_reason", String(10)),
    #: Tokens that were generated or scored.
    Column("completion_tokens", Integer, nullable=False),
    #: JSON list, a token each; NULL where not asked for.
    Column("logprobs", Text),
    #: Of a score: of all tokens together, in nats.
    Column("logprob", Double),
    #: Of an embedding: as `db.vectors` packs it.
    Column("embedding", LargeBinary),
    #: What a reasoning model thought before its text; NULL: it did not, or does not mark it.
    Column("reasoning", Text),
    #: JSON list of the calls that the answer asks for, as OpenAI writes them; NULL: none.
    Column("tool_calls", Text),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("batch_id", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("worker_id", BigInteger),
    #: NULL: the worker never said.
    Column("started_at", Double),
    Column("ended_at", Double, nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("error_message", Text, nullable=False),
    #: Of an answer that was not good enough: JSON of what it was drawn with (seed and parameters),
    #: and JSON list of its samples. NULL: there was no answer.
    Column("params", Text),
    Column("samples", Text),
    Index("ix_attempts_batch_id", "batch_id", "line"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", _Id, primary_key=True),
    #: host:pid:random.
    Column("name", String(200), nullable=False, unique=True),
    Column("host", String(200), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queue", String(200), nullable=False),
    Column("engine", String(40), nullable=False),
    Column("engine_version", String(80), nullable=False),
    Column("model", Text, nullable=False),
    Column("revision", String(80)),
    Column("device", String(80), nullable=False),
    Column("dtype", String(20), nullable=False),
    #: Which of its ways of computing the engine took; NULL: it has one.
    Column("backend", String(80)),
    #: What the device is; NULL: not known.
    Column("hardware", String(80)),
    #: SHA-256 over the loaded weight files, written once it is known; NULL: not known.
    Column("weights", String(64)),
    #: SHA-256 over the files of tokenizer and chat template; NULL: not known.
    Column("tokenizer", String(64)),
    #: JSON: name -> digest of each LoRA adapter that is loaded beside the model; NULL: none.
    Column("adapters", Text),
    Column("parameters", BigInteger, nullable=False),
    Column("kv_tokens", BigInteger),
    Column("context_length", BigInteger),
    Column("capacity", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("stopped_at", Double),
    #: By when it ends, of a worker that finishes what it has and claims nothing; NULL: it goes on.
    Column("stops_at", Double),
    Column("jobs", BigInteger, nullable=False, server_default=text("0")),
    Column("in_flight", Integer, nullable=False, server_default=text("0")),
    Column("prompt_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("completion_tokens", BigInteger, nullable=False, server_default=text("0")),
    #: Completion tokens a second over the last heartbeats.
    Column("tokens_per_second", Double, nullable=False, server_default=text("0")),
    Index("ix_workers_heartbeat_at", "heartbeat_at"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("batch_id", BigInteger, ForeignKey("batches.id"), nullable=False),
    Column("queue", String(200), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("state", String(8), nullable=False),
    #: The lines first … last of the batch, both included …
    Column("first_line", Integer, nullable=False),
    Column("last_line", Integer, nullable=False),
    #: … or of these only these (JSON list): the chunk of a retry.
    Column("lines", JSON(none_as_null=True)),
    #: Claims that ended without the worker saying so.
    Column("losses", SmallInteger, nullable=False, server_default=text("0")),
    Column("worker_id", BigInteger, ForeignKey("workers.id")),
    #: Fences every write: a worker that lost its lease holds an old token.
    Column("lease_token", String(32)),
    Column("lease_expires_at", Double),
    Column("claimed_at", Double),
    #: Not to be claimed before (back-off between attempts).
    Column("not_before", Double, nullable=False, server_default=text("0")),
    #: When its message went out; NULL: not yet.
    Column("sent_at", Double),
    Index("ix_chunks_batch", "batch_id", "first_line"),
    Index(
        "ix_chunks_open",
        "batch_id",
        postgresql_where=text("state <> 'done'"),
        sqlite_where=text("state <> 'done'"),
    ),
    Index(
        "ix_chunks_claim",
        "queue",
        text("priority DESC"),
        "id",
        postgresql_where=text("state = 'queued'"),
        sqlite_where=text("state = 'queued'"),
    ),
    Index(
        "ix_chunks_lease",
        "lease_expires_at",
        postgresql_where=text("state = 'running'"),
        sqlite_where=text("state = 'running'"),
    ),
    Index(
        "ix_chunks_unsent",
        "id",
        postgresql_where=text("state = 'queued' AND sent_at IS NULL"),
        sqlite_where=text("state = 'queued' AND sent_at IS NULL"),
    ),
)
