"""How long a batch still takes, from how its jobs have finished so far: pure arithmetic.

Jobs finish in bursts where an engine runs requests of equal length together, and evenly where
lengths differ. The pace is therefore taken from one arrival to another, over whole bursts, and the
time since the last arrival counts as progress. No estimate is better than a wrong one: there is
none until the pace's standard error is small, and none at the very end, where the longest
request decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

#: An estimate needs this many finished jobs, or a pace that hardly varies; and several arrivals.
_ENOUGH_JOBS, _STEADY = 16, 0.05
_ENOUGH_ARRIVALS = 4
#: The largest relative standard error of an estimate that is shown: two of them are a factor
#: of about 1.4.
_LARGEST_ERROR = 0.18
#: Below this many waves of running jobs, whichever request is longest decides.
_LAST_WAVES = 2
#: The pace is taken over the last half of what is done, but not over fewer waves or jobs.
_WAVES, _JOBS = 8, 64
#: A worker's rate that differs from the whole run's by more than this factor replaces it: the
#: batch was paused, or workers joined.
_DISAGREEMENT = 1.5
#: Seconds for which another number of workers must hold before it counts: a worker between two
#: chunks has none, and one that joins has reported its rate by then.
_SETTLED = 5.0
#: Samples that are kept; older ones are thinned out.
_MOST_SAMPLES = 4096


class Sample(NamedTuple):
    """How many jobs were done at one moment (seconds, on any clock that only runs forward)."""

    at: float
    done: int


@dataclass(frozen=True, slots=True)
class _Window:
    """What happened between two arrivals."""

    jobs: int
    seconds: float
    #: Relative standard error of `seconds / jobs`, the ratio estimator's.
    error: float
    #: The longest time between two arrivals.
    gap: float
    arrivals: int

    @property
    def meaningful(self) -> bool:
        enough = self.jobs >= _ENOUGH_JOBS or self.error <= _STEADY
        return enough and self.arrivals >= _ENOUGH_ARRIVALS


def time_left(samples: Sequence[Sample], total: int, running: int) -> float | None:
    """Seconds until all `total` jobs are done; None where nobody can tell yet.

    `samples` are in order of time and leave out the time in which nothing could run (loading, a
    pause). `running` jobs are computed at once.
    """
    arrivals = _arrivals(samples)
    if len(arrivals) < 3:
        return None
    now, done = samples[-1]
    rest = total - done
    window = _measured(_window(arrivals, running))
    if rest < _LAST_WAVES * running or window.jobs < 2 * running or not window.meaningful:
        return None
    # What is left varies too, and the less is left, the more.
    if window.error * math.sqrt(1 + window.jobs / rest) > _LARGEST_ERROR:
        return None
    since = now - arrivals[-1].at
    late = max(0.0, since - window.gap)
    pace = (window.seconds + late) / window.jobs
    # Requests that don't end together leave slots idle at the end, for about one request's time.
    together = window.gap > 0.8 * running * pace
    tail = 0.0 if together else running * pace
    return max(0.0, rest * pace + tail - min(since, window.gap))


def stored_time_left(
    *, seconds: float, done: int, total: int, running: int, recent_rate: float | None
) -> float | None:
    """The same from stored facts alone, for whoever has not watched: the whole run's rate.

    `seconds` since the first job began; `recent_rate`: jobs a second by the workers' own counters,
    None where they have none.
    """
    rest = total - done
    if seconds <= 0 or done < max(_ENOUGH_JOBS, 2 * running) or rest < _LAST_WAVES * running:
        return None
    rate = done / seconds
    if recent_rate and not 1 / _DISAGREEMENT <= recent_rate / rate <= _DISAGREEMENT:
        rate = recent_rate
    return rest / rate


class Pace:
    """The samples of one batch that somebody watches.

    When workers join or leave, the samples from before are converted to what the present workers
    would have taken, so that the estimate follows at once.
    """

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._active = 0.0
        self._last: float | None = None
        #: How many workers made the samples, and their last rate together.
        self._workers, self._rate = 0, 0.0
        #: Since when there is another number of workers, in active time.
        self._changed: float | None = None

    def add(
        self, now: float, done: int, *, active: bool, workers: int = 0, rate: float = 0.0
    ) -> None:
        """`active`: jobs could run since the sample before; other time is left out.

        `workers`: how many work on the batch now, and `rate`: how fast together, in tokens a
        second; 0 where that is not known.
        """
        if self._last is not None and active:
            self._active += now - self._last
        self._last = now
        if active and workers:
            self._compare(workers, rate)
        if self._samples and done < self._samples[-1].done:
            self._samples.clear()  # failed jobs were queued again
        if not active and self._samples and done == self._samples[-1].done:
            return
        # Of samples without news between them, only the first and the last matter.
        if len(self._samples) > 1 and self._samples[-2].done == self._samples[-1].done == done:
            self._samples.pop()
        self._samples.append(Sample(self._active, done))
        if len(self._samples) > _MOST_SAMPLES:
            self._samples[1:-2] = self._samples[2:-2:2]

    def time_left(self, total: int, running: int) -> float | None:
        """See `time_left`."""
        return time_left(self._samples, total, running)

    def _compare(self, workers: int, rate: float) -> None:
        """Convert the samples once another number of workers has held for a while."""
        if workers == self._workers or not self._workers:
            self._workers, self._rate, self._changed = workers, rate, None
        elif self._changed is None:
            self._changed = self._active
        elif self._active - self._changed >= _SETTLED:
            known = rate > 0 and self._rate > 0
            speedup = rate / self._rate if known else workers / self._workers
            self._samples = _converted(self._samples, self._changed, speedup)
            self._workers, self._rate, self._changed = workers, rate, None


def _converted(samples: Sequence[Sample], until: float, speedup: float) -> list[Sample]:
    """The samples, with the time before `until` as long as at `speedup` times the speed."""
    return [
        Sample(until - max(0.0, until - at) / speedup + max(0.0, at - until), done)
        for at, done in samples
    ]


def _arrivals(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample, and those at which more was done than before."""
    arrivals = list(samples[:1])
    for sample in samples[1:]:
        if sample.done > arrivals[-1].done:
            arrivals.append(sample)
    return arrivals


def _window(arrivals: Sequence[Sample], running: int) -> Sequence[Sample]:
    last = arrivals[-1].done
    least = max((last - arrivals[0].done) / 2, _WAVES * running, _JOBS)
    start = 0
    for index, arrival in enumerate(arrivals[:-2]):
        if last - arrival.done < least:
            break
        start = index
    return arrivals[start:]


def _measured(window: Sequence[Sample]) -> _Window:
    jobs = window[-1].done - window[0].done
    seconds = window[-1].at - window[0].at
    pace = seconds / jobs
    steps = [(after.at - before.at, after.done - before.done) for before, after in pairwise(window)]
    spread = math.sqrt(sum((gap - count * pace) ** 2 for gap, count in steps))
    return _Window(
        jobs=jobs,
        seconds=seconds,
        error=spread / seconds if seconds > 0 else math.inf,
        gap=max(gap for gap, _ in steps),
        arrivals=len(window),
    )
