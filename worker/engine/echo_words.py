"""What the engine `echo` answers, pure: the prompt's own words.

Its "tokens" are words between white space; a word's token id is its place in the prompt. The
text is the prompt's words once, then it ends (`stop`); under `ignore_eos` they repeat up to the
limit. At temperature 0 it begins with the first word, else with word (seed + sample index), so
that a seed shows. Everything else means what SamplingParams says; as the echo is always
certain, every log-probability is 0 and the filters (top_p, …) have nothing to cut.

Scored, a word has a log-probability of minus its number of characters. Embedded, a word is
DIMENSIONS numbers from a digest of it.
"""

from __future__ import annotations

import hashlib
import math
import time
from array import array

from db.chat import text_of
from worker.engine.protocol import (
    Completed,
    Embedded,
    EmbedRequest,
    Failed,
    Measurement,
    Request,
    Sample,
    Scored,
    ScoreRequest,
    TokenLogprob,
    TopLogprob,
)
from worker.engine.stopping import find_stop

#: Numbers of an embedding.
DIMENSIONS = 8


def answer(request: Request) -> Completed | Failed:
    """What the echo says to a request, at once."""
    if request.messages is None:
        prompt = _plain(request)
    else:
        prompt = text_of(request.messages[-1].get("content")) if request.messages else None
    if not isinstance(prompt, str):
        return Failed("bad_chat", "the echo engine needs a last message with a text")
    words = prompt.split()
    if not words:
        return Failed("empty_prompt", "the prompt has no tokens: write at least one word")
    limit = request.params.token_limit(len(words), None)
    if limit < 1:
        return Failed(
            "prompt_too_long",
            f"the prompt has {len(words)} tokens and max_length is {request.params.max_length}, "
            "which counts them too: raise it, or give max_tokens",
        )
    samples = tuple(
        _sample(request, prompt, words, limit, index) for index in range(request.params.n)
    )
    return Completed(samples, len(words), time.time())


def _sample(request: Request, prompt: str, words: list[str], limit: int, index: int) -> Sample:
    params = request.params
    first = 0 if params.greedy else (request.seed + index) % len(words)
    length = limit if params.ignore_eos else min(limit, len(words))
    ids = [(first + place) % len(words) for place in range(length)]
    reason = "length" if params.ignore_eos or limit < len(words) else "stop"
    if params.stop_token_ids:
        for place, token_id in enumerate(ids):
            if token_id in params.stop_token_ids:
                ids, reason = ids[: place + 1], "stop"
                break
    text = " ".join(map(words.__getitem__, ids))
    stop = find_stop(text, params.stop)
    if stop is not None:
        ids, reason = ids[: len(text[: stop[1]].split())], "stop"
        text = text[: stop[0]]
    return Sample(
        index=index,
        text=f"{prompt} {text}" if params.echo else text,
        finish_reason=reason,
        completion_tokens=len(ids),
        logprobs=_certain(words, ids, params.alternatives) if params.wants_logprobs else None,
    )


def _certain(words: list[str], ids: list[int], alternatives: int) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(words[one], one, 0.0, (top,) if alternatives else ())
        for one in ids
        for top in [TopLogprob(words[one], one, 0.0)]
    )


def measured(request: Measurement) -> Scored | Embedded | Failed:
    """What the echo says to a request for a score or an embedding, at once."""
    return _embedded(request) if isinstance(request, EmbedRequest) else _scored(request)


def _scored(request: ScoreRequest) -> Scored | Failed:
    context = (_plain(request) or str(request.messages)).split()
    if request.completion is not None:
        words = request.completion.split()
    else:
        context, words = context[:1], context[1:]
    if not words:
        return Failed(
            "nothing_to_score", "there is no token to score: write at least one more word"
        )
    costs = [-float(len(word)) for word in words]
    logprobs = tuple(
        TokenLogprob(
            word, at, cost, (TopLogprob(word, at, cost),) if request.params.alternatives else ()
        )
        for at, (word, cost) in enumerate(zip(words, costs, strict=True))
    )
    return Scored(
        logprob=sum(costs),
        tokens=len(words),
        prompt_tokens=len(context),
        started_at=time.time(),
        logprobs=logprobs if request.params.wants_logprobs else None,
    )


def _embedded(request: EmbedRequest) -> Embedded | Failed:
    words = (_plain(request) or "").split()
    if not words:
        return Failed("empty_prompt", "the prompt has no tokens: write at least one word")
    chosen = {"mean": words, "last": words[-1:], "first": words[:1]}[request.params.pooling]
    rows = [_digits(word) for word in chosen]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    length = math.hypot(*means) if request.params.normalize else 0.0
    vector = array("f", [one / (length or 1.0) for one in means])
    return Embedded(vector, request.params.precision, len(words), time.time())


def _plain(request: Request | Measurement) -> str | None:
    """The prompt; token ids are its words."""
    return request.prompt if request.prompt_ids is None else " ".join(map(str, request.prompt_ids))


def _digits(word: str) -> list[float]:
    """DIMENSIONS numbers from -1 to just below 1."""
    digest = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=DIMENSIONS).digest()
    return [byte / 128 - 1 for byte in digest]
