"""Every invariant, in the order in which one would look: what the later ones rest on first."""

from __future__ import annotations

from db.queries.audit import batch_rows, coverage, job_rows, leases, ownership, samples
from db.queries.audit.question import Invariant

#: Nothing that a user does leads here.
_BUG = "a bug: keep a copy of the database, and report it with these ids"
_STUCK = "nothing runs them any more: promptmill cancel BATCH ends their batch; and report it"

INVARIANTS: tuple[Invariant, ...] = (
    Invariant(
        "batch states", "a batch's state is a known word", "batch", batch_rows.unknown_state, _BUG
    ),
    Invariant("job states", "a job's state is a known word", "job", job_rows.unknown_state, _BUG),
    Invariant(
        "chunk states", "a chunk's state is a known word", "chunk", ownership.unknown_state, _BUG
    ),
    Invariant(
        "jobs without a batch",
        "every job belongs to a batch",
        "job",
        ownership.jobs_without_batch,
        "nobody can reach them: delete these rows by hand",
    ),
    Invariant(
        "chunks without a batch",
        "every chunk belongs to a batch",
        "chunk",
        ownership.chunks_without_batch,
        "nobody can reach them: delete these rows by hand",
    ),
    Invariant(
        "results without a job",
        "every result belongs to a job",
        "job",
        ownership.results_without_job,
        "nobody can reach them: delete these rows by hand",
    ),
    Invariant(
        "lines",
        "a batch's jobs are the lines 1 to its total, without gaps",
        "batch",
        batch_rows.wrong_lines,
        "jobs were lost, or a delete was cut short: then finish it, promptmill delete BATCH",
    ),
    Invariant(
        "counters",
        "a batch counts its succeeded, failed, cancelled and expired jobs right",
        "batch",
        batch_rows.wrong_counters,
        _BUG,
    ),
    Invariant(
        "tokens",
        "a batch's tokens are those of its jobs and results",
        "batch",
        batch_rows.wrong_tokens,
        _BUG,
    ),
    Invariant(
        "sample counters",
        "a batch counts its samples right, and those that were cut or have reasoning, tool calls"
        " or log-probabilities",
        "batch",
        batch_rows.wrong_samples,
        _BUG,
    ),
    Invariant(
        "job tokens",
        "a job's completion tokens are those of its results",
        "job",
        samples.wrong_tokens,
        _BUG,
    ),
    Invariant(
        "missing results",
        "a succeeded job has a result",
        "job",
        samples.missing,
        _BUG,
    ),
    Invariant(
        "unearned results",
        "a job that has not succeeded has no result",
        "job",
        samples.unearned,
        _BUG,
    ),
    Invariant(
        "samples",
        "a succeeded job has the samples 0 to n-1, as many as were asked for",
        "job",
        samples.incomplete,
        _BUG,
    ),
    Invariant(
        "ended batches",
        "a batch that has ended has no open job",
        "job",
        batch_rows.open_job_of_ended,
        _BUG,
    ),
    Invariant(
        "open batches",
        "a batch that has not ended has an open job",
        "batch",
        batch_rows.nothing_left,
        "it waits for nothing: promptmill cancel BATCH ends it; and report it",
    ),
    Invariant(
        "stranded jobs",
        "every open job is in a chunk that is queued, running or held",
        "job",
        coverage.stranded,
        _STUCK,
    ),
    Invariant(
        "doubled jobs",
        "no job is in two open chunks at once, unless it was retried by hand meanwhile",
        "job",
        coverage.doubled,
        "it is generated twice and stored once: report it",
    ),
    Invariant(
        "chunks and batches",
        "a chunk is held where its batch is paused, done where it has ended, else neither",
        "chunk",
        ownership.out_of_step,
        "promptmill pause BATCH, then promptmill resume BATCH; and report it",
    ),
    Invariant(
        "chunk lines",
        "a chunk's lines are lines of its batch",
        "chunk",
        ownership.lines_outside,
        _BUG,
    ),
    Invariant(
        "leases",
        "a running chunk has a worker, a token and an end of its lease; no other has a lease",
        "chunk",
        leases.inconsistent,
        _BUG,
    ),
    Invariant(
        "overdue leases",
        "a lease that is over is noticed",
        "chunk",
        leases.overdue,
        "recovery is dead: look into the workers' logs, and start them anew",
    ),
    Invariant(
        "lost chunks",
        "a queued chunk is in its model's queue and soon due, so that a worker finds it",
        "chunk",
        leases.never_found,
        "promptmill pause BATCH, then promptmill resume BATCH; and report it",
    ),
    Invariant(
        "batch times",
        "a batch is created, then started, then finished, and finished only once it has ended",
        "batch",
        batch_rows.wrong_times,
        "look whether the database's clock was set back; else report it",
    ),
    Invariant(
        "job times",
        "a job is started, then finished, and finished only once it has ended",
        "job",
        job_rows.wrong_times,
        "look whether the clocks of database or workers were set back; else report it",
    ),
)
