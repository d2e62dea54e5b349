"""Which prompts a model can take, and how far each may go."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

from db.structure import lark
from worker.engine.adapters import unknown_adapter
from worker.engine.protocol import Failed, Request
from worker.engine.room import room, strange_stop
from worker.engine.shared.continuation import Continuation
from worker.engine.shared.guide import Guide, Guides
from worker.engine.shared.prompt import Prompt, Prompter

_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Admission:
    """What a loaded model can take."""

    prompter: Prompter
    guides: Guides
    end_ids: frozenset[int]
    vocabulary: int
    #: Tokens of prompt and text together; of an encoder-decoder, of each. None: no limit.
    context_length: int | None
    #: What an encoder-decoder's text begins with; None: the text goes on from the prompt.
    decoder_start_id: int | None = None
    #: Adapters that are loaded beside it, by name.
    adapters: Collection[str] = ()
    #: The checkpoint's rules make the last token that a limit allows an end token.
    forced_end: bool = False

    def continuations(
        self, request: Request, prompt: Prompt, longest: int | None
    ) -> list[Continuation] | Failed:
        """The request's samples, ready to run; `longest` is what the KV cache holds of one."""
        params, start = request.params, self.decoder_start_id
        unknown = unknown_adapter(params.adapter, self.adapters)
        if unknown is not None:
            return unknown
        limit = room(
            len(prompt.token_ids),
            params,
            context_length=self.context_length,
            longest=longest,
            joined=start is None,
        )
        if isinstance(limit, Failed):
            return limit
        strange = strange_stop(params, self.vocabulary)
        if strange is not None:
            return strange
        guide = self._guide(request)
        if isinstance(guide, Failed):
            return guide
        end_ids = frozenset(params.stop_token_ids)
        if not params.ignore_eos:
            end_ids |= self.end_ids if prompt.opening is None else self.chat_end_ids
        serial = next(_serial)
        return [
            Continuation(
                id=f"{request.id}#{index}@{serial}",
                request_id=request.id,
                params=params,
                seed=request.seed,
                index=index,
                prompt_ids=prompt.token_ids,
                limit=limit,
                end_ids=end_ids,
                decode=self.prompter.detokenizer.decode,
                context=prompt.context,
                penalised_ids=prompt.token_ids if start is None else (start,),
                guide=None if guide is None else guide.copy(),
                ruled=guide is None,
                forced_end=self.forced_end and guide is None,
                phases=self.prompter.phases(request, prompt),
            )
            for index in range(params.n)
        ]

    @property
    def chat_end_ids(self) -> frozenset[int]:
        """Ids that end a chat's answer; the model may have no row for some."""
        ends = (one for one in self.prompter.turn_ends if one < self.vocabulary)
        return self.end_ids | frozenset(ends)

    def _guide(self, request: Request) -> Guide | Failed | None:
        calls, wanted = self.prompter.reader.calls_grammar(request), request.params.structure
        if isinstance(calls, Failed):
            return calls
        try:
            if calls is not None:
                return self.guides.guide_along(lark(calls))
            return None if wanted is None else self.guides.guide(wanted)
        except ValueError as error:
            return Failed("bad_structure", f"the text can't be given this structure: {error}")
