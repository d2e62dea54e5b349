"""Which prompts a model can take, and how far each may go."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from db.structure import Structure
from worker.engine.protocol import Failed, Request
from worker.engine.transformers.continuation import Continuation
from worker.engine.transformers.guide import Guide, Guides
from worker.engine.transformers.prompt import Prompt, Prompter

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

    def continuations(
        self, request: Request, prompt: Prompt, longest: int | None
    ) -> list[Continuation] | Failed:
        """The request's samples, ready to run; `longest` is what the KV cache holds of one."""
        limit = self._limit(request, prompt, longest)
        if isinstance(limit, Failed):
            return limit
        params = request.params
        strange = [token for token in params.stop_token_ids if token >= self.vocabulary]
        if strange:
            return Failed(
                "bad_stop_token",
                f"stop_token_ids: {strange[0]} is no token of this model, "
                f"which has {self.vocabulary}",
            )
        guide = self._guide(params.structure)
        if isinstance(guide, Failed):
            return guide
        end_ids = frozenset(params.stop_token_ids)
        if not params.ignore_eos:
            end_ids |= self.end_ids
        start = self.decoder_start_id
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
                decode=self.prompter.decode,
                penalised_ids=prompt.token_ids if start is None else (start,),
                guide=None if guide is None else guide.copy(),
            )
            for index in range(params.n)
        ]

    def _guide(self, wanted: Structure | None) -> Guide | Failed | None:
        if wanted is None:
            return None
        try:
            return self.guides.guide(wanted)
        except ValueError as error:
            return Failed("bad_structure", f"the text can't be given this structure: {error}")

    def _limit(self, request: Request, prompt: Prompt, longest: int | None) -> int | Failed:
        """New tokens that each sample may get, at least 1."""
        length, params = len(prompt.token_ids), request.params
        joined = self.decoder_start_id is None
        needed = length + 1 if joined else length
        if self.context_length is not None and needed > self.context_length:
            what = "prompt and text together" if joined else "prompt"
            return Failed(
                "prompt_too_long",
                f"the prompt has {length} tokens and the model takes {self.context_length} of "
                f"{what}: shorten it",
            )
        if longest is not None and length + 1 > longest:
            return Failed(
                "kv_cache_too_small",
                f"the prompt has {length} tokens and the KV cache holds {longest} of one request: "
                "shorten it, raise the memory fraction or use a larger device",
            )
        bounds = [bound for bound in (self.context_length, longest) if bound is not None]
        limit = params.token_limit(length if joined else 1, min(bounds, default=None))
        if limit < 1:
            return Failed(
                "prompt_too_long",
                f"the prompt has {length} tokens and max_length is {params.max_length}, which "
                "counts them too: raise it, or give max_tokens",
            )
        return limit
