"""The estimate of what is left, against simulated runs whose end is known."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from statistics import median

import pytest

from producer.time_left import Pace, Sample, stored_time_left, time_left

#: Results become visible this often, and somebody looks that often (seconds).
_FLUSH, _LOOK = 0.25, 0.5

LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "equal": lambda _: 2.0,
    "uniform": lambda draw: draw.uniform(1, 3),
    "capped": lambda draw: 2.0 if draw.random() < 0.6 else draw.uniform(0.1, 2),
    "two kinds": lambda draw: 4.0 if draw.random() < 0.2 else 1.0,
}


def continuous(seconds: Sequence[float], slots: int, speeds: Sequence[float]) -> list[float]:
    """When jobs end that take the next free slot, in their order."""
    free = [(0.0, slot) for slot in range(slots)]
    ends = []
    for length in seconds:
        at, slot = heapq.heappop(free)
        ends.append(at + length / speeds[slot % len(speeds)])
        heapq.heappush(free, (ends[-1], slot))
    return ends


def static(seconds: Sequence[float], slots: int, _speeds: Sequence[float]) -> list[float]:
    """When jobs end that run in batches, each to the end of its longest."""
    ends, at = [], 0.0
    for first in range(0, len(seconds), slots):
        group = seconds[first : first + slots]
        at += max(group)
        ends += [at] * len(group)
    return ends


def looks(ends: Sequence[float]) -> list[Sample]:
    """What somebody sees who looks at the batch now and then."""
    visible = sorted(math.ceil(end / _FLUSH) * _FLUSH for end in ends)
    samples, done, at = [], 0, 0.0
    while done < len(visible):
        while done < len(visible) and visible[done] <= at:
            done += 1
        samples.append(Sample(at, done))
        at += _LOOK
    return samples


def factors(samples: Sequence[Sample], slots: int) -> list[float]:
    """How far each estimate after a tenth of the work is off, as a factor of 1 or more."""
    total, end = samples[-1].done, samples[-1].at
    off = []
    for count in range(3, len(samples), max(1, len(samples) // 60)):
        at, done = samples[count - 1]
        left = time_left(samples[:count], total, slots) if done >= total / 10 else None
        if left is not None:
            ratio = (left + _LOOK) / (end - at + _LOOK)
            off.append(max(ratio, 1 / ratio))
    return off


@pytest.mark.parametrize("slots", [1, 8, 64])
@pytest.mark.parametrize("arrange", [continuous, static])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_estimate_is_right_within_half_after_a_tenth(
    lengths: str, arrange: Callable[..., list[float]], slots: int
) -> None:
    off: list[float] = []
    for seed in range(4):
        draw = random.Random(seed)
        seconds = [LENGTHS[lengths](draw) for _ in range(max(200, 20 * slots))]
        off += factors(looks(arrange(seconds, slots, [1.0])), slots)
    assert len(off) > 20
    # A few first estimates are bad luck: three batches without a single long request.
    assert sum(factor > 1.5 for factor in off) <= len(off) / 20
    assert median(off) < 1.2


def test_estimate_holds_for_workers_of_two_speeds() -> None:
    draw = random.Random(1)
    seconds = [draw.uniform(1, 3) for _ in range(600)]
    off = factors(looks(continuous(seconds, 16, [1.0, 0.5])), 16)
    assert off
    assert sum(factor > 1.5 for factor in off) <= len(off) / 50


def test_estimate_follows_jobs_that_become_shorter() -> None:
    seconds = [2 * (1.25 - 0.5 * number / 400) for number in range(400)]
    off = factors(looks(continuous(seconds, 8, [1.0])), 8)
    assert off
    assert max(off) < 1.5


def test_equal_jobs_are_estimated_after_three_bursts() -> None:
    samples = looks(continuous([2.0] * 80, 8, [1.0]))
    first = next(
        done
        for count, (_, done) in enumerate(samples, 1)
        if time_left(samples[:count], 80, 8) is not None
    )
    assert first == 24
    assert max(factors(samples, 8)) < 1.2


def test_no_estimate_before_a_wave_is_over_and_none_for_the_last() -> None:
    few = [Sample(float(second), second) for second in range(20)]
    assert time_left(few, 1000, 64) is None
    assert time_left(few, 1000, 4) is not None
    assert time_left([*few, Sample(20.0, 997)], 1000, 4) is None


def test_no_estimate_from_erratic_arrivals() -> None:
    samples = [Sample(0, 0), Sample(1, 2), Sample(60, 4), Sample(61, 30), Sample(200, 33)]
    assert time_left(samples, 1000, 1) is None


def test_late_arrivals_make_the_estimate_longer() -> None:
    steady = [Sample(float(second), 4 * second) for second in range(20)]
    on_time = time_left(steady, 400, 4)
    late = time_left([*steady, Sample(60.0, steady[-1].done)], 400, 4)
    assert on_time is not None
    assert late is not None
    assert late > 2 * on_time


def test_time_in_which_nothing_runs_is_left_out() -> None:
    pace = Pace()
    for second in range(20):
        pace.add(float(second), 2 * second, active=True)
    before = pace.time_left(200, 2)
    for second in range(20, 500):
        pace.add(float(second), 38, active=False)
    assert pace.time_left(200, 2) == before
    for second in range(500, 510):
        pace.add(float(second), 2 * (second - 480), active=True)
    after = pace.time_left(200, 2)
    assert after == pytest.approx((200 - 58) / 2, rel=0.1)


@pytest.mark.parametrize(
    ("before", "after", "speedup"),
    [((1, 100.0), (2, 200.0), 2.0), ((1, 100.0), (2, 600.0), 6.0), ((1, 0.0), (2, 0.0), 2.0),
     ((2, 200.0), (1, 100.0), 0.5), ((3, 0.0), (2, 0.0), 2 / 3)],
)  # fmt: skip
def test_estimate_follows_workers_that_join_or_leave(
    before: tuple[int, float], after: tuple[int, float], speedup: float
) -> None:
    pace, done, total = Pace(), 0.0, 4000
    for second in range(100):
        pace.add(float(second), int(done), active=True, workers=before[0], rate=before[1])
        done += 16
    for second in range(100, 108):
        pace.add(float(second), int(done), active=True, workers=after[0], rate=after[1])
        done += 16 * speedup
    left = pace.time_left(total, 32)
    assert left == pytest.approx((total - done) / (16 * speedup), rel=0.1)


def test_worker_between_two_chunks_changes_no_estimate() -> None:
    steady, flickering = Pace(), Pace()
    for second in range(100):
        steady.add(float(second), 16 * second, active=True, workers=2, rate=200.0)
        workers = 1 if second % 10 < 3 else 2
        flickering.add(float(second), 16 * second, active=True, workers=workers, rate=200.0)
    assert flickering.time_left(4000, 32) == steady.time_left(4000, 32)


def test_failed_jobs_that_are_queued_again_begin_a_new_estimate() -> None:
    pace = Pace()
    for second in range(20):
        pace.add(float(second), 2 * second, active=True)
    pace.add(20.0, 10, active=True)
    assert pace.time_left(200, 2) is None


def test_a_long_watch_keeps_a_bounded_number_of_samples() -> None:
    pace = Pace()
    for second in range(20_000):
        pace.add(float(second), second, active=True)
    assert len(pace._samples) < 5000
    assert pace.time_left(30_000, 1) == pytest.approx(10_000, rel=0.1)


@pytest.mark.parametrize(
    ("recent_rate", "left"),
    [(None, 300.0), (1.5, 300.0), (2.0, 150.0), (10.0, 30.0), (0.1, 3000.0), (0.0, 300.0)],
)
def test_stored_estimate_takes_the_recent_rate_where_it_differs(
    recent_rate: float | None, left: float
) -> None:
    assert left == stored_time_left(
        seconds=100, done=100, total=400, running=8, recent_rate=recent_rate
    )


def test_no_stored_estimate_for_few_jobs_or_the_last_ones() -> None:
    for done, total in ((5, 100), (100, 130), (100, 100)):
        assert None is stored_time_left(
            seconds=100, done=done, total=total, running=32, recent_rate=None
        )
