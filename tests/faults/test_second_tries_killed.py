"""A worker that is killed while it asks again: the next one asks the same, and keeps it once."""

from __future__ import annotations

import pytest

from db.sampling import seed_of
from tests.acceptance.mill import Mill
from tests.faults.proof import BUSY, JOBS, SABOTEUR, attempts, killed, proven, some

#: Every text has three words: it is cut at one and at two, and whole at the third try.
_PARAMS = {"max_tokens": 1, "retry_max_tokens": 4}
_MOMENTS = ["asking again:after:21", "flushing:after:2"]
_MORE = ["asking again:before:1", "asking again:before:150", "flushed:before:1", "flushed:after:2"]


@pytest.mark.parametrize("moment", some(_MOMENTS, _MORE))
def test_given_second_tries_when_the_worker_is_killed_then_the_next_one_repeats_them_and_keeps_each(
    both: Mill, moment: str
) -> None:
    batch = both.client.submit(both.numbered(JOBS), model=both.model, params=_PARAMS).id
    killed(both.start_worker(BUSY, module=SABOTEUR, SABOTAGE=moment))
    assert not both.client.batch(batch).finished
    both.worker()
    proven(both, batch)
    assert attempts(both, batch) <= {1, 2}
    for line in range(1, JOBS + 1):
        job = both.job(batch, line)
        kept = [one for one in job.history if one.error_code != "worker_lost"]
        assert [(one.error_code, one.params) for one in kept] == [
            ("truncated", {"seed": seed_of(batch, line), "max_tokens": limit}) for limit in (1, 2)
        ]
        assert len(job.history) == len(kept) + job.attempts - 1
