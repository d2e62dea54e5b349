"""What a job's row says of itself."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, or_, select

from db.queries.audit.question import Scope
from db.schema import jobs
from db.states import JOB_TERMINAL, JobState

#: Seconds that a clock may have been set back in between: no order of times is finer than that.
CLOCK_STEP = 60.0

#: A running job is stored as queued.
_STORED = [state for state in JobState if state != JobState.RUNNING]


def unknown_state(scope: Scope) -> Select[Any]:
    return _jobs(scope).where(jobs.c.state.not_in(_STORED))


def wrong_times(scope: Scope) -> Select[Any]:
    return _jobs(scope).where(
        or_(
            jobs.c.finished_at < jobs.c.started_at - CLOCK_STEP,
            jobs.c.state.in_(list(JOB_TERMINAL)) & jobs.c.finished_at.is_(None),
            (jobs.c.state == JobState.QUEUED) & jobs.c.finished_at.is_not(None),
        )
    )


def _jobs(scope: Scope) -> Select[Any]:
    return select(jobs.c.batch_id, jobs.c.line.label("item")).where(scope.covers(jobs.c.batch_id))
