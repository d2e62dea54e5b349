"""One sample of vLLM's, in as many calls as it takes.

What is asked of the answer proper (a structure, stop strings) must leave a model's thinking
alone, and vLLM takes it for the whole text. So the thinking is a call of its own, which ends at
its mark; the answer is the next one, whose prompt goes on with the thinking. vLLM has that in its
cache.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    turn_ends: Collection[int] = (),
) -> Made:
    """`arguments` are those of the whole sample; `phases`: it may think first.

    `turn_ends`: those of its stop tokens that have no place in the thinking before a structure.
    """
    sample = _Sample(generate, prompt_ids, arguments, name, adapter, turn_ends)
    if phases is not None:
        if not phases.thinking:
            await sample.peek(phases)
        if phases.thinking:
            await sample.think(phases)
            if not phases.answering:
                return sample.made
    await sample.answer()
    return sample.made


@dataclass(frozen=True, slots=True)
class _Sample:
    """What every call of a sample needs, and what the calls have made so far."""

    generate: Generate
    prompt_ids: Sequence[int]
    arguments: Mapping[str, Any]
    name: str
    adapter: str | None
    turn_ends: Collection[int]
    made: Made = field(default_factory=Made)

    @property
    def _free(self) -> dict[str, Any]:
        """The arguments without what is asked of the answer."""
        arguments = self.arguments
        free = {**arguments, "stop": [], "structured_outputs": None}
        if arguments["structured_outputs"] is not None:
            # No end has a place before the mark behind which a structure has to come.
            stops = [one for one in arguments["stop_token_ids"] if one not in self.turn_ends]
            free |= {"ignore_eos": True, "stop_token_ids": stops}
        return free

    @property
    def left(self) -> int:
        """Tokens that it may still have."""
        return int(self.arguments["max_tokens"]) - len(self.made.token_ids)

    async def peek(self, phases: Phases) -> None:
        """Whether it begins with thinking: then that is kept, else nothing."""
        some = min(self.left, len(phases.open_ids) + _MORE)
        output = await self._call("peek", {**self._free, "max_tokens": some})
        for place, token_id in enumerate(output.outputs[0].token_ids, start=1):
            thought = phases.thinking
            phases.push(token_id)
            if phases.answering:
                if thought:
                    self.made.add(output, place)
                return
        if phases.thinking:
            self.made.add(output)

    async def think(self, phases: Phases) -> None:
        """On to the mark that ends the thinking, or to the limit."""
        if self.left < 1 or self.made.finish_reason == "stop":
            return
        to_the_mark = {"stop": [phases.close], "detokenize": True, "skip_special_tokens": False}
        output = await self._call("thinking", {**self._free, **to_the_mark})
        self.made.add(output)
        for token_id in output.outputs[0].token_ids:
            phases.push(token_id)

    async def answer(self) -> None:
        """The rest, under all that is asked of it."""
        if self.left < 1:
            self.made.finish_reason = "length"
        else:
            self.made.add(await self._call("answer", self.arguments))

    async def _call(self, step: str, arguments: Mapping[str, Any]) -> Any:
        """Go on behind what is there."""
        made = self.made.token_ids
        seed = _seed(self.arguments["seed"], len(made))
        most = min(self.left, arguments["max_tokens"])
        return await self.generate(
            [*self.prompt_ids, *made],
            {**arguments, "max_tokens": most, "seed": seed},
            f"{self.name}/{step}",
            self.adapter,
        )


def _seed(seed: int | None, made: int) -> int | None:
    """Another one for each call, whose draws would else be those of the last."""
    return None if seed is None else (seed + made) % 2**63
