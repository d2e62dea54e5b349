"""Asking again where an answer is cut or breaks its structure: what to ask, and what to keep. Pure.

    retry_max_tokens   an answer that was cut is asked for with twice the limit and the same seed,
                       so that it begins the same
    retry_invalid      one that is whole and breaks its structure, with a new seed

Limits and seeds are functions of the job: whoever repeats it, after a crash or to replay it, asks
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from db.sampling import DEFAULT_MAX_TOKENS, SamplingParams, seed_of_try
from db.validity import checker
from db.wording import count_of
from worker.engine.protocol import Completed, Failed, Request, Sample

TRUNCATED = "truncated"
INVALID_STRUCTURE = "invalid_structure"
#: Nothing is wrong with it: an earlier try had the sample already.
SURPLUS = "surplus"

#: Their answers come from elsewhere: it may count tokens otherwise than it limits them, and a
#: greedy text need not be the same again.
_ELSEWHERE = frozenset({"openai"})


class Flaw(NamedTuple):
    """Why a sample does not do."""

    #: TRUNCATED or INVALID_STRUCTURE.
    code: str
    #: For people, after "the text".
    reason: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A request and what came of it."""

    request: Request
    outcome: Completed | Failed
    #: A sample's each, None where it will do; empty where there was no answer.
    flaws: tuple[Flaw | None, ...]
    #: Unix seconds of this process.
    ended_at: float

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.outcome.samples if isinstance(self.outcome, Completed) else ()


class Kept(NamedTuple):
    """A try that goes into the job's history."""

    tried: Tried
    code: str
    #: For people.
    message: str


class Verdict(NamedTuple):
    """What a job gets of its tries."""

    outcome: Completed | Failed
    kept: tuple[Kept, ...]


def may_ask_again(request: Request) -> bool:
    return request.params.retry_max_tokens is not None or request.params.retry_invalid is not None


def tried(request: Request, outcome: Completed | Failed, ended_at: float) -> Tried:
    """The outcome with its samples judged."""
    samples = outcome.samples if isinstance(outcome, Completed) else ()
    return Tried(
        request, outcome, tuple(_flaw(request.params, sample) for sample in samples), ended_at
    )


def next_try(tries: Sequence[Tried], engine: str) -> Request | None:
    """What to ask after these tries of one job, at least one, on the engine of this name.

    As a whole, if any sample wants it. Length comes first: a text that was cut breaks its
    structure only because it was.
    """
    last = tries[-1]
    params = last.request.params
    wanting = [at for at in range(len(last.samples)) if all(one.flaws[at] for one in tries)]
    if any(_would_grow(tries, at, engine) for at in wanting):
        limit = min(2 * _limit(params), params.retry_max_tokens or 0)
        return _again(tries, params.model_copy(update={"max_tokens": limit}), last.request.seed)
    if any(_is(INVALID_STRUCTURE, last.flaws[at]) for at in wanting) and _may_differ(
        params, engine
    ):
        seeds = len({one.request.seed for one in tries})
        if seeds <= (params.retry_invalid or 0):
            return _again(tries, params, seed_of_try(tries[0].request.seed, seeds))
    return None


def verdict(tries: Sequence[Tried]) -> Verdict:
    """Of all tries: per sample the first text that will do, else the last one.

    A text that is cut is better than none, one that breaks its structure is not: it fails the job.
    """
    answered = [one for one in tries if one.samples]
    last = tries[-1]
    if not answered:
        return Verdict(last.outcome, ())
    chosen = [_chosen(answered, at) for at in range(len(answered[-1].samples))]
    if not any(_is(INVALID_STRUCTURE, one.flaws[at]) for at, one in enumerate(chosen)):
        return Verdict(_whole(answered, chosen), _kept(tries, chosen))
    if isinstance(last.outcome, Failed):
        return Verdict(last.outcome, _kept(tries, []))
    stops = "leave out stop, which may end it early, " if last.request.params.stop else ""
    advice = f"{stops}raise retry_invalid, or say in the prompt what is wanted"
    message = f"{_told(last)}, after {count_of(len(tries), 'answer')}: {advice}"
    kept = (*_kept(tries[:-1], []), Kept(last, INVALID_STRUCTURE, message))
    return Verdict(Failed(INVALID_STRUCTURE, message), kept)


def _flaw(params: SamplingParams, sample: Sample) -> Flaw | None:
    if sample.finish_reason == "length":
        return Flaw(TRUNCATED, f"was cut after {count_of(sample.completion_tokens, 'token')}")
    wanted = params.structure
    # Only a text that ended by itself must be of its structure.
    if sample.finish_reason != "stop" or params.retry_invalid is None or wanted is None:
        return None
    reason = checker(wanted)(sample.text)
    return None if reason is None else Flaw(INVALID_STRUCTURE, f"breaks its structure ({reason})")


def _is(code: str, flaw: Flaw | None) -> bool:
    return flaw is not None and flaw.code == code


def _would_grow(tries: Sequence[Tried], at: int, engine: str) -> bool:
    """Whether a larger limit may give more: not where it was another one that cut the text."""
    last = tries[-1]
    limit, bound = _limit(last.request.params), last.request.params.retry_max_tokens
    if not _is(TRUNCATED, last.flaws[at]) or bound is None or limit >= bound:
        return False
    tokens = last.samples[at].completion_tokens
    if engine not in _ELSEWHERE:
        return tokens >= limit  # else the context, or the KV cache, is full
    shorter = [one for one in tries[:-1] if one.request.seed == last.request.seed]
    return not tokens or not shorter or tokens > shorter[-1].samples[at].completion_tokens


def _may_differ(params: SamplingParams, engine: str) -> bool:
    """Whether a new seed may give another text."""
    return not params.greedy or engine in _ELSEWHERE


def _again(tries: Sequence[Tried], params: SamplingParams, seed: int) -> Request:
    """Under an id of its own: an engine may not have forgotten the one that it answers."""
    first = tries[0].request
    return replace(first, id=f"{first.id}#{len(tries) + 1}", params=params, seed=seed)


def _limit(params: SamplingParams) -> int:
    """In tokens; `max_length` and a second try for length exclude each other."""
    return params.max_tokens or DEFAULT_MAX_TOKENS


def _chosen(answered: Sequence[Tried], at: int) -> Tried:
    return next((one for one in answered if one.flaws[at] is None), answered[-1])


def _whole(answered: Sequence[Tried], chosen: Sequence[Tried]) -> Completed:
    outcomes = [one.outcome for one in answered if isinstance(one.outcome, Completed)]
    return Completed(
        samples=tuple(one.samples[at] for at, one in enumerate(chosen)),
        prompt_tokens=outcomes[-1].prompt_tokens,
        started_at=min(one.started_at for one in outcomes),
    )


def _kept(tries: Sequence[Tried], chosen: Sequence[Tried]) -> tuple[Kept, ...]:
    """All but one that is the result as a whole."""
    whole = chosen[0] if chosen and all(one is chosen[0] for one in chosen) else None
    return tuple(_history(one, chosen) for one in tries if one is not whole)


def _history(one: Tried, chosen: Sequence[Tried]) -> Kept:
    if isinstance(one.outcome, Failed):
        return Kept(one, one.outcome.code, one.outcome.message)
    flaw = next((flaw for flaw in one.flaws if flaw), None)
    if flaw is not None:
        return Kept(one, flaw.code, _told(one))
    had = ", ".join(str(at) for at, other in enumerate(chosen) if other is not one)
    return Kept(one, SURPLUS, f"an earlier try had given sample {had}")


def _told(one: Tried) -> str:
    alone = len(one.samples) == 1
    return "; ".join(
        f"{'the text' if alone else f'sample {at}'} {flaw.reason}"
        for at, flaw in enumerate(one.flaws)
        if flaw
    )
