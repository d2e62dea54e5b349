"""Our parameters in vLLM's words, and what vLLM says in ours. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from db.sampling import SamplingParams
from worker.engine.protocol import Failed, Request, Sample
from worker.engine.shared.detokenizer import TokenScore
from worker.engine.shared.prompt import Prompt, Prompter
from worker.engine.structures import for_vllm
from worker.engine.vllm_engine.generating import Made

#: The highest temperature that vLLM takes.
HOTTEST = 2.0


def too_hot(params: SamplingParams) -> Failed | None:
    """Why vLLM would not take these parameters; None: it takes them."""
    if params.temperature <= HOTTEST:
        return None
    return Failed(
        "unsupported_parameter",
        f"engine 'vllm' takes a temperature of {HOTTEST:g} at most, not {params.temperature:g}",
    )


def sample_seed(seed: int, index: int) -> int:
    """The seed of one sample: 63 bits, told by the request's seed and the sample's number.

    Not `seed + index`, by which the samples of neighbouring seeds would be the same.
    """
    digest = hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def arguments(
    request: Request,
    limit: int,
    index: int,
    calls: str | None = None,
    turn_ends: Collection[int] = (),
) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams for one sample of at most `limit` tokens.

    `turn_ends`: tokens that end a chat, besides those that vLLM has from the checkpoint.
    `calls`: a grammar in Lark's notation that the answer follows, in place of any structure.
    """
    params = request.params
    wanted = {"grammar": calls} if calls else params.structure and for_vllm(params.structure)
    return {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": max(0, params.top_k),
        "min_p": params.min_p,
        "repetition_penalty": params.repetition_penalty,
        "seed": None if params.greedy else sample_seed(request.seed, index),
        "stop": list(params.stop),
        "stop_token_ids": _stop_token_ids(request, turn_ends),
        # Past the end of a structure vLLM would go on without one.
        "ignore_eos": params.ignore_eos and wanted is None,
        "max_tokens": limit,
        "structured_outputs": wanted,
        "logprobs": params.alternatives if params.wants_logprobs else None,
        # vLLM looks for stop strings; the text itself is ours to decode and to cut.
        "detokenize": bool(params.stop),
        "include_stop_str_in_output": True,
    }


def _stop_token_ids(request: Request, turn_ends: Collection[int]) -> list[int]:
    """vLLM stops at these under `ignore_eos`, too."""
    params = request.params
    if request.messages is None or params.ignore_eos:
        return list(params.stop_token_ids)
    return sorted({*params.stop_token_ids, *turn_ends})


def sample(request: Request, index: int, made: Made, prompt: Prompt, prompter: Prompter) -> Sample:
    """What vLLM generated, as the engine gives it."""
    params, token_ids = request.params, made.token_ids
    said = prompter.message(request, prompt, token_ids, made.finish_reason, index)
    return Sample(
        index=index,
        text=said.text,
        finish_reason=said.finish_reason,
        completion_tokens=len(token_ids),
        logprobs=prompter.logprobs(
            _scores(token_ids, made.logprobs, params.alternatives), prompt.token_ids
        )
        if params.wants_logprobs
        else None,
        reasoning=said.reasoning,
        tool_calls=said.tool_calls,
    )


def _scores(
    token_ids: Sequence[int], positions: Sequence[Mapping[int, Any]], alternatives: int
) -> Iterator[TokenScore]:
    """One a token; vLLM gives a mapping of token id to log-probability and rank (from 1)."""
    for token_id, position in zip(token_ids, positions, strict=True):
        ranked = sorted(position.items(), key=lambda item: item[1].rank)
        top = tuple((other, found.logprob) for other, found in ranked if found.rank <= alternatives)
        yield TokenScore(token_id, position[token_id].logprob, top)
