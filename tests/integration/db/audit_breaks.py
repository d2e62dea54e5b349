"""One change by hand for every way to break an invariant; the batches are those of test_audit."""

from __future__ import annotations

from typing import NamedTuple


class Break(NamedTuple):
    #: The invariant that it breaks, alone.
    name: str
    #: One a `;`, with the batches' keys as `:busy`, `:done`, `:paused`.
    statements: str
    number: int
    #: The first ones, with the batches' ids as `{busy}`, `{done}`, `{paused}`.
    examples: list[str]


_RESULT = (
    "INSERT INTO results"
    " (batch_id, line, sample, text, finish_reason, completion_tokens, logprobs) VALUES"
)

BREAKS = [
    Break("batch states", "UPDATE batches SET state='odd' WHERE id=:done", 1, ["{done}"]),
    Break(
        "job states",
        "UPDATE jobs SET state='odd' WHERE batch_id=:busy AND line=12",
        1,
        ["{busy}-12"],
    ),
    Break(
        "job states",
        "UPDATE jobs SET state='running' WHERE batch_id=:busy AND line>10",
        2,
        ["{busy}-11", "{busy}-12"],
    ),
    Break(
        "chunk states",
        "UPDATE chunks SET state='odd' WHERE batch_id=:done",
        1,
        ["chunk 1 of {done}"],
    ),
    Break(
        "jobs without a batch",
        "INSERT INTO jobs (batch_id, line, state, request) VALUES (999, 7, 'queued', '{}')",
        1,
        ["line 7 of no batch (batch_id 999)"],
    ),
    Break(
        "chunks without a batch",
        "INSERT INTO chunks (id, batch_id, queue, priority, state, first_line, last_line)"
        " VALUES (77, 999, 'q', 5, 'queued', 1, 1)",
        1,
        ["chunk 77 of no batch (batch_id 999)"],
    ),
    Break(
        "results without a job",
        f"{_RESULT} (:busy, 99, 0, '', 'stop', 0, NULL);"
        f"{_RESULT} (:busy, 99, 1, '', 'stop', 0, NULL);"
        "UPDATE batches SET samples=samples+2 WHERE id=:busy",
        1,
        ["{busy}-99"],
    ),
    Break("lines", "UPDATE batches SET total=total+1 WHERE id=:busy", 1, ["{busy}"]),
    Break("lines", "DELETE FROM jobs WHERE batch_id=:busy AND line=11", 1, ["{busy}"]),
    Break("lines", "UPDATE jobs SET line=13 WHERE batch_id=:busy AND line=2", 1, ["{busy}"]),
    Break("counters", "UPDATE batches SET succeeded=succeeded-1 WHERE id=:busy", 1, ["{busy}"]),
    Break("counters", "UPDATE batches SET failed=failed+1 WHERE id=:done", 1, ["{done}"]),
    Break("counters", "UPDATE batches SET cancelled=1 WHERE id=:done", 1, ["{done}"]),
    Break("counters", "UPDATE batches SET expired=1 WHERE id=:done", 1, ["{done}"]),
    Break("tokens", "UPDATE batches SET prompt_tokens=0 WHERE id=:done", 1, ["{done}"]),
    Break("tokens", "UPDATE batches SET completion_tokens=1 WHERE id=:paused", 1, ["{paused}"]),
    Break("sample counters", "UPDATE batches SET samples=8 WHERE id=:done", 1, ["{done}"]),
    Break("sample counters", "UPDATE batches SET truncated=1 WHERE id=:paused", 1, ["{paused}"]),
    Break(
        "sample counters",
        "UPDATE results SET finish_reason='length' WHERE batch_id=:done AND line=2;"
        "UPDATE batches SET truncated=2, shortest_cut=2 WHERE id=:done",
        1,
        ["{done}"],
    ),
    Break(
        "sample counters",
        "UPDATE results SET reasoning='Hm' WHERE batch_id=:busy AND line=1",
        1,
        ["{busy}"],
    ),
    Break(
        "job tokens",
        "UPDATE jobs SET completion_tokens=99 WHERE batch_id=:done AND line=4",
        1,
        ["{done}-4"],
    ),
    Break(
        "missing results",
        "DELETE FROM results WHERE batch_id=:done AND line=2;"
        "UPDATE batches SET completion_tokens=completion_tokens-4, samples=samples-2"
        " WHERE id=:done",
        1,
        ["{done}-2"],
    ),
    Break(
        "unearned results",
        f"{_RESULT} (:busy, 2, 0, '', 'stop', 0, NULL);"
        f"{_RESULT} (:busy, 12, 0, '', 'stop', 0, NULL);"
        "UPDATE batches SET samples=samples+2 WHERE id=:busy",
        2,
        ["{busy}-2", "{busy}-12"],
    ),
    Break(
        "samples",
        "UPDATE results SET sample=2 WHERE batch_id=:done AND line=1 AND sample=1",
        1,
        ["{done}-1"],
    ),
    Break(
        "samples",
        "UPDATE results SET sample=5 WHERE batch_id=:done AND line=1 AND sample=0",
        1,
        ["{done}-1"],
    ),
    Break(
        "samples",  # one of the batch's two, and two of the line's three
        "DELETE FROM results WHERE batch_id=:done AND line IN (1, 4) AND sample=1;"
        "UPDATE results SET sample=1 WHERE batch_id=:done AND line=4 AND sample=2;"
        "UPDATE jobs SET completion_tokens=completion_tokens-2"
        " WHERE batch_id=:done AND line IN (1, 4);"
        "UPDATE batches SET completion_tokens=completion_tokens-4, samples=samples-2"
        " WHERE id=:done",
        2,
        ["{done}-1", "{done}-4"],
    ),
    Break(
        "samples",  # three of a list of two prompts, and three of each were asked for
        """UPDATE jobs SET request='{"prompts": ["x", "y"], "params": {"n": 3}}'"""
        " WHERE batch_id=:done AND line=4",
        1,
        ["{done}-4"],
    ),
    Break(
        "samples",  # two, as the batch's n says, of a list of which it is two of each
        """UPDATE jobs SET request='{"prompts": ["x", "y"]}' WHERE batch_id=:done AND line=1""",
        1,
        ["{done}-1"],
    ),
    Break(
        "samples",  # two, as the batch's n says, where the line's own is three
        """UPDATE jobs SET request='{"prompt": "x", "params": {"n": 3}}'"""
        " WHERE batch_id=:done AND line=1",
        1,
        ["{done}-1"],
    ),
    Break(
        "ended batches",
        "UPDATE jobs SET state='queued', finished_at=NULL WHERE batch_id=:done AND line=3;"
        "UPDATE batches SET failed=failed-1 WHERE id=:done",
        1,
        ["{done}-3"],
    ),
    Break(
        "open batches",
        "UPDATE batches SET state='in_progress', finished_at=NULL WHERE id=:done",
        1,
        ["{done}"],
    ),
    Break(
        "stranded jobs",
        "UPDATE chunks SET state='done' WHERE batch_id=:busy AND first_line=9",
        4,
        ["{busy}-9", "{busy}-10", "{busy}-11", "{busy}-12"],
    ),
    Break(
        "stranded jobs",
        "UPDATE chunks SET lines='[9, 10, 12]' WHERE batch_id=:busy AND first_line=9",
        1,
        ["{busy}-11"],
    ),
    Break("stranded jobs", "DELETE FROM chunks WHERE batch_id=:paused", 4, ["{paused}-1"]),
    Break(
        "doubled jobs",
        "INSERT INTO chunks (batch_id, queue, priority, state, first_line, last_line)"
        " SELECT id, queue, 5, 'queued', 8, 9 FROM batches WHERE id=:busy",
        2,
        ["{busy}-8", "{busy}-9"],
    ),
    Break(
        "doubled jobs",
        "INSERT INTO chunks (batch_id, queue, priority, state, first_line, last_line, lines)"
        " SELECT id, queue, 5, 'held', 1, 4, '[1, 4]' FROM batches WHERE id=:paused",
        2,
        ["{paused}-1", "{paused}-4"],
    ),
    Break(
        "chunks and batches",
        "UPDATE chunks SET state='held' WHERE batch_id=:busy AND first_line=9",
        1,
        ["chunk 4 of {busy}"],
    ),
    Break(
        "chunks and batches",
        "UPDATE chunks SET state='queued' WHERE batch_id IN (:done, :paused)",
        2,
        ["chunk 1 of {done}", "chunk 5 of {paused}"],
    ),
    Break(
        "chunk lines",
        "UPDATE chunks SET last_line=13 WHERE batch_id=:busy AND first_line=9",
        1,
        ["chunk 4 of {busy}"],
    ),
    Break(
        "chunk lines",
        "UPDATE chunks SET lines='[9, 10, 11, 12, 13]' WHERE batch_id=:busy AND first_line=9",
        1,
        ["chunk 4 of {busy}"],
    ),
    Break(
        "leases", "UPDATE chunks SET worker_id=NULL WHERE state='running'", 1, ["chunk 3 of {busy}"]
    ),
    Break(
        "leases",
        "UPDATE chunks SET lease_token=NULL WHERE state='running'",
        1,
        ["chunk 3 of {busy}"],
    ),
    Break(
        "leases",
        "UPDATE chunks SET lease_expires_at=NULL WHERE state='running'",
        1,
        ["chunk 3 of {busy}"],
    ),
    Break(
        "leases",
        "UPDATE chunks SET lease_token='t' WHERE batch_id=:done;"
        "UPDATE chunks SET lease_expires_at=1 WHERE batch_id=:paused",
        2,
        ["chunk 1 of {done}", "chunk 5 of {paused}"],
    ),
    Break(
        "overdue leases",
        "UPDATE chunks SET lease_expires_at=1 WHERE state='running';"
        "UPDATE workers SET started_at=1",
        1,
        ["chunk 3 of {busy}"],
    ),
    Break(
        "lost chunks",
        "UPDATE chunks SET not_before=9e9 WHERE state='queued'",
        1,
        ["chunk 4 of {busy}"],
    ),
    Break(
        "lost chunks",
        "UPDATE chunks SET queue='elsewhere' WHERE state='queued'",
        1,
        ["chunk 4 of {busy}"],
    ),
    Break("batch times", "UPDATE batches SET finished_at=NULL WHERE id=:done", 1, ["{done}"]),
    Break("batch times", "UPDATE batches SET finished_at=started_at WHERE id=:busy", 1, ["{busy}"]),
    Break(
        "batch times", "UPDATE batches SET created_at=created_at+999 WHERE id=:busy", 1, ["{busy}"]
    ),
    Break(
        "batch times",
        "UPDATE batches SET finished_at=started_at-999 WHERE id=:done",
        1,
        ["{done}"],
    ),
    Break(
        "job times",
        "UPDATE jobs SET finished_at=NULL WHERE batch_id=:done AND line=1",
        1,
        ["{done}-1"],
    ),
    Break(
        "job times",
        "UPDATE jobs SET finished_at=5 WHERE batch_id=:busy AND line=9;"
        "UPDATE jobs SET finished_at=started_at-999 WHERE batch_id=:done AND line=2",
        2,
        ["{done}-2", "{busy}-9"],
    ),
]
