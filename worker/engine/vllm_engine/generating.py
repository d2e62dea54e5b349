"""One sample of vLLM's, in as many calls as it takes.

What is asked of the answer proper (a structure, stop strings) must leave a model's thinking
alone, and vLLM takes it for the whole text. So the thinking is a call of its own, which ends at
its mark; the answer is the next one, whose prompt goes on with the thinking. vLLM has that in its
cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.engine.shared.thinking import Phases
from worker.engine.vllm_engine.runner import Generate

#: Tokens beyond the mark that are looked at to see whether the model thinks: it may write white
#: space before.
_MORE = 2


@dataclass(slots=True)
class Made:
    """What vLLM generated of a sample."""

    token_ids: list[int] = field(default_factory=list)
    #: A mapping a token, of token id to log-probability and rank; empty if not asked for.
    logprobs: list[Mapping[int, Any]] = field(default_factory=list)
    finish_reason: str = "length"
    #: vLLM's RequestOutputs.
    outputs: list[Any] = field(default_factory=list)

    def add(self, output: Any, tokens: int | None = None) -> None:
        """Go on with an output, or with its first `tokens`."""
        whole = output.outputs[0]
        self.outputs.append(output)
        self.token_ids += list(whole.token_ids)[:tokens]
        self.logprobs += list(whole.logprobs or ())[:tokens]
        self.finish_reason = whole.finish_reason


async def generate_sample(
    generate: Generate,
    prompt_ids: Sequence[int],
    arguments: Mapping[str, Any],
    name: str,
    adapter: str | None,
    phases: Phases | None,
) -> Made:
    """`arguments` are those of the whole sample; `phases`: it may think first."""
    made = Made()
    if phases is not None and not phases.thinking:
        await _peek(generate, prompt_ids, arguments, name, adapter, phases, made)
    if phases is not None and phases.thinking:
        await _think(generate, prompt_ids, arguments, name, adapter, phases, made)
        if not phases.answering:
            return made
    left = arguments["max_tokens"] - len(made.token_ids)
    if left < 1:
        made.finish_reason = "length"
        return made
    rest = {**arguments, "max_tokens": left, "seed": _seed(arguments, made)}
    made.add(await generate([*prompt_ids, *made.token_ids], rest, f"{name}/answer", adapter))
    return made


async def _peek(
    generate: Generate,
    prompt_ids: Sequence[int],
    arguments: Mapping[str, Any],
    name: str,
    adapter: str | None,
    phases: Phases,
    made: Made,
) -> None:
    """Whether it begins with thinking: then that is kept, else nothing."""
    some = min(arguments["max_tokens"], len(phases.open_ids) + _MORE)
    output = await generate(
        list(prompt_ids), {**_free(arguments), "max_tokens": some}, f"{name}/peek", adapter
    )
    tokens = list(output.outputs[0].token_ids)
    for place, token_id in enumerate(tokens, start=1):
        thought = phases.thinking
        phases.push(token_id)
        if phases.answering:
            if thought:
                made.add(output, place)
            return
    if phases.thinking:
        made.add(output)


async def _think(
    generate: Generate,
    prompt_ids: Sequence[int],
    arguments: Mapping[str, Any],
    name: str,
    adapter: str | None,
    phases: Phases,
    made: Made,
) -> None:
    """On to the mark that ends the thinking, or to the limit."""
    left = arguments["max_tokens"] - len(made.token_ids)
    if left < 1 or made.finish_reason == "stop":
        return
    thinking = {
        **_free(arguments),
        "max_tokens": left,
        "stop": [phases.close],
        "detokenize": True,
        "skip_special_tokens": False,
        "seed": _seed(arguments, made),
    }
    output = await generate([*prompt_ids, *made.token_ids], thinking, f"{name}/thinking", adapter)
    made.add(output)
    for token_id in output.outputs[0].token_ids:
        phases.push(token_id)


def _free(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without what is asked of the answer."""
    # An end token has no place before the mark where a structure has to come.
    ignored = arguments["ignore_eos"] or arguments["structured_outputs"] is not None
    return {**arguments, "stop": [], "structured_outputs": None, "ignore_eos": ignored}


def _seed(arguments: Mapping[str, Any], made: Made) -> int | None:
    """Another one for each call, whose draws would else be those of the last."""
    seed: int | None = arguments["seed"]
    return None if seed is None else (seed + len(made.token_ids)) % 2**63
