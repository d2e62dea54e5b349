"""One sample in the making: what it may still get, what it got, and when it is done.

Nothing here knows how the tokens are computed: both back-ends feed `accept`, one token at a
time, and read `row` before each.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from db.sampling import SamplingParams
from worker.engine.shared import guide as guides
from worker.engine.shared.detokenizer import TokenScore
from worker.engine.shared.guide import Guide
from worker.engine.shared.rows import NOT_FINITE, Row, uniform
from worker.engine.shared.thinking import Phases
from worker.engine.stopping import StopDetector
from worker.engine.text_stream import Decode

#: Why a sample can't go on: the model's logits are NaN or infinite; its structure became too
#: complex for llguidance.
NOT_FINITE_ERROR, STRUCTURE_ERROR = "not_finite", "structure_failed"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Continuation:
    """The tokens of one sample, from the prompt's last token to the sample's own last one."""

    #: Unique in the engine, even if a request's id comes again.
    id: str
    request_id: str
    params: SamplingParams
    seed: int
    index: int
    prompt_ids: Sequence[int]
    #: New tokens at most, 1 or more.
    limit: int
    #: Ids that end the sample; counted. Special ones don't show in the text.
    end_ids: frozenset[int]
    decode: Decode
    #: The prompt's last tokens, behind which the text is decoded; none: they begin a text.
    context: Sequence[int] = ()
    #: It follows what the checkpoint asks of every text; a structure is followed instead.
    ruled: bool = True
    #: The checkpoint's rules make the last token that the limit allows an end token.
    forced_end: bool = False
    #: Ids that the repetition penalty starts from; an encoder-decoder's is not the prompt.
    penalised_ids: Sequence[int] = ()
    #: What the text must look like; None: anything.
    guide: Guide | None = None
    #: Where its thinking ends, for what is asked of the answer alone; None: there is none.
    phases: Phases | None = None
    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    #: `stop` or `length` once it is done.
    finish_reason: str | None = None
    #: A code once it can't go on.
    error: str | None = None
    #: Nobody waits for it any more.
    cancelled: bool = False
    #: Unix seconds at which the model first worked on it.
    started_at: float | None = None
    _seen: dict[int, None] = field(init=False)
    _stops: StopDetector | None = field(init=False)

    def __post_init__(self) -> None:
        wanted = self.params.repetition_penalty != 1
        self._seen = dict.fromkeys(self.penalised_ids) if wanted else {}
        stops = self.params.stop
        self._stops = StopDetector(self.decode, stops, self.context) if stops else None
        if self.phases is not None:
            self.phases.restart()

    @property
    def done(self) -> bool:
        return self.cancelled or self.finish_reason is not None or self.error is not None

    @property
    def needed_tokens(self) -> int:
        """Prompt and text at their longest."""
        return len(self.prompt_ids) + self.limit

    def row(self) -> Row:
        """What its next token is chosen with."""
        params = self.params
        allowed = None if self.guide is None else self.guide.allowed
        if params.greedy:
            return Row(
                0.0,
                repetition_penalty=params.repetition_penalty,
                seen=tuple(self._seen),
                allowed=allowed,
            )
        return Row(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            seen=tuple(self._seen),
            allowed=allowed,
            uniform=uniform(self.seed, self.index, len(self.token_ids)),
        )

    def start(self) -> None:
        """The model is about to work on it; only the first call counts."""
        if self.started_at is None:
            self.started_at = time.time()

    def restart(self) -> None:
        """Forget the tokens: the same ones come again, as each is fixed by its position."""
        self.token_ids.clear()
        self.scores.clear()
        self.finish_reason = self.error = None
        if self.guide is not None:
            self.guide = self.guide.copy()
        self.__post_init__()

    def fork(self) -> Continuation:
        """One that goes its own way from here, for trying tokens out; it knows no stop strings."""
        fork = copy.copy(self)
        fork.token_ids, fork.scores = list(self.token_ids), []
        fork._seen, fork._stops = dict(self._seen), None  # noqa: SLF001 - of its own class
        if self.guide is not None:
            fork.guide = self.guide.fork()
        if self.phases is not None:
            fork.phases = self.phases.fork()
        return fork

    def accept(self, token_id: int) -> bool:
        """Take the next token; True when it is the last one."""
        if token_id == NOT_FINITE:
            self.error = NOT_FINITE_ERROR
            return True
        own = self._own(token_id)
        if self.guide is not None and self.guide.error:
            self.error = STRUCTURE_ERROR
            return True
        self.token_ids.append(token_id)
        if self.params.repetition_penalty != 1:
            self._seen[token_id] = None
        at_limit = len(self.token_ids) >= self.limit
        if (
            (token_id in self.end_ids and not (at_limit and self.forced_end))
            or (self._stops is not None and any(self._stops.push(one) for one in own))
            or (self.guide is not None and self.guide.ended)
        ):
            self.finish_reason = "stop"
        elif at_limit:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def _own(self, token_id: int) -> Sequence[int]:
        """The tokens that are known by this one to be the answer's own; the guide follows."""
        phases, guide = self.phases, self.guide
        own: Sequence[int] = (token_id,)
        if phases is not None and not phases.answering:
            if guide is None or phases.begun or token_id == guide.thinks_with:
                own = phases.push(token_id)
            else:
                phases.settle()
        if guide is not None:
            for one in own:
                if one not in self.end_ids:
                    guide.accept(one)
        return own


def look_ahead(continuations: Iterable[Continuation], vocabulary: int) -> None:
    """Before `row`: find out what each may say next; `vocabulary` is that of the logits."""
    guided = [(one, one.guide) for one in continuations if one.guide is not None]
    asked = [guide for one, guide in guided if one.phases is None or not one.phases.begun]
    guides.look_ahead(asked, vocabulary)
    for one, guide in guided:
        phases = one.phases
        if phases is None or phases.answering:
            continue
        opens_with = phases.opens_with
        if phases.thinking:
            # It has to end with its mark: no end token may come before.
            guide.allowed = guides.all_but(one.end_ids, vocabulary)
        elif phases.begun and opens_with is not None:
            guide.allowed = guides.only(opens_with, vocabulary)
        elif opens_with is not None:
            guide.let(opens_with)
