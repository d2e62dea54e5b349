"""A text that is there already, as tokens, and whether the model can take it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from worker.engine.adapters import unknown_adapter
from worker.engine.protocol import Failed, Measurement, OnDone, Outcome, ScoreRequest
from worker.engine.shared.prompt import Prompter


@dataclass(slots=True, eq=False)
class Measuring:
    """A request that is being worked on."""

    request: Measurement
    on_done: OnDone
    #: What the model is given …
    prompt_ids: Sequence[int]
    #: … and what is scored after it; nothing of it for an embedding.
    scored_ids: Sequence[int]
    #: Unix seconds at which the model first worked on it.
    started_at: float = 0.0
    #: What to answer, once it is known.
    outcome: Outcome | None = None
    #: Answered already.
    dropped: bool = False

    @property
    def tokens(self) -> int:
        return len(self.prompt_ids) + len(self.scored_ids)


@dataclass(frozen=True, slots=True)
class Measurable:
    """Which texts a loaded model can take."""

    prompter: Prompter
    encoder_decoder: bool
    #: Tokens of prompt and completion together; of an encoder-decoder, of each. None: no limit.
    context_length: int | None
    #: Adapters that are loaded beside it, by name.
    adapters: Collection[str] = ()

    def read(self, request: Measurement, on_done: OnDone) -> Measuring | Failed:
        unknown = unknown_adapter(request.params.adapter, self.adapters)
        if unknown is not None:
            return unknown
        prompt = self.prompter.prompt(request)
        if isinstance(prompt, Failed):
            return prompt
        given, scored = prompt.token_ids, list[int]()
        if isinstance(request, ScoreRequest):
            if request.completion is not None:
                joined = not self.encoder_decoder
                found = self.prompter.completion(prompt, request.completion, joined=joined)
                if isinstance(found, Failed):
                    return found
                scored = found
            elif self.encoder_decoder:
                return Failed(
                    "completion_missing",
                    "the model is an encoder-decoder, which scores a completion after a prompt: "
                    "give both",
                )
            else:  # nothing stands before the first token that it could be told from
                given, scored = given[:1], given[1:]
            if not scored:
                return Failed(
                    "nothing_to_score", "there is no token to score: write at least one more word"
                )
        return self._fitting(Measuring(request, on_done, given, scored))

    def _fitting(self, one: Measuring) -> Measuring | Failed:
        sizes = (len(one.prompt_ids), len(one.scored_ids))
        longest = max(sizes) if self.encoder_decoder else sum(sizes)
        if self.context_length is None or longest <= self.context_length:
            return one
        what = "longer of prompt and completion" if self.encoder_decoder else "text"
        return Failed(
            "prompt_too_long",
            f"the {what} has {longest} tokens and the model takes {self.context_length}: "
            "shorten it",
        )


def pick(pending: Sequence[Measuring], tokens: int) -> list[Measuring]:
    """The oldest, and those of its kind and about its length that fit into one pass with it.

    About: at most a quarter and 8 tokens longer or shorter. Padded to the longest, all together
    have at most `tokens` tokens; the oldest runs whatever its length.
    """
    first = pending[0]
    slack = first.tokens // 4 + 8
    batch, width = [first], first.tokens
    for one in pending[1:]:
        if type(one.request) is not type(first.request) or abs(one.tokens - first.tokens) > slack:
            continue
        wider = max(width, one.tokens)
        if (len(batch) + 1) * wider <= tokens:
            batch.append(one)
            width = wider
    return batch
