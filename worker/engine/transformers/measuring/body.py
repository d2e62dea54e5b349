"""A model in two parts: what reads tokens, and the head that makes logits of what was read.

Continuing a text needs the logits of its last token. A score needs those of many tokens, and with
a vocabulary of 262,144 the logits of a batch would take a thousand times its own memory: so the
body reads the whole batch once, and the head gets only those tokens that are asked for, a few at
a time. An embedding needs no head at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from worker.engine.transformers.loading import LoadedModel

#: Bytes of float32 logits at once.
CPU_LOGITS, DEVICE_LOGITS = 128 * 2**20, 256 * 2**20
#: Of a piece, one in so many tokens is left at least, after running out of memory.
_LEAST = 16


class Body:
    """Reads texts. The caller has the model's turn; nothing is kept between two calls."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Before any back-end: how the model attends now is its own way."""
        model: Any = loaded.model
        self.encoder_decoder = loaded.encoder_decoder
        self._model = model
        self._team = loaded.team
        self._device = loaded.device
        self._start = loaded.decoder_start_id or 0
        self._attention = model.config._attn_implementation  # noqa: SLF001
        whole = model.base_model is model or self.encoder_decoder
        self._inner = model.get_decoder() if whole else model.base_model
        #: What it answers with, whose other fields may all be empty.
        self._kind: type[Any] = BaseModelOutput
        room = CPU_LOGITS if loaded.device.type == "cpu" else DEVICE_LOGITS
        #: Tokens whose logits are made at once; less, after running out of memory.
        self.piece = max(1, room // (4 * loaded.vocabulary))
        self._least = max(1, self.piece // _LEAST)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """The model as it was loaded: continuous batching has it attend through its own cache."""
        before = self._model.config._attn_implementation  # noqa: SLF001
        if before != self._attention:
            self._model.set_attn_implementation(self._attention)
        try:
            with torch.inference_mode():
                yield
        finally:
            if before != self._attention:
                self._model.set_attn_implementation(before)

    def shrink(self) -> bool:
        """Halve the piece; False: it is small enough, and what is too large is the text itself."""
        smaller = max(self._least, self.piece // 2)
        shrunk, self.piece = smaller < self.piece, smaller
        return shrunk

    def read(self, **keywords: Any) -> Any:
        """What the body gives for these."""
        reader = self._model.get_encoder() if self.encoder_decoder else self._inner
        output = reader(**keywords)
        self._kind = type(output)
        return output

    @property
    def apart(self) -> bool:
        """Whether the model has a body that can be told from its head."""
        return self._inner is not self._model

    def states(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Last hidden states, of an encoder-decoder its encoder's: `[texts, longest, width]`.

        What lies behind a text's end is padding and counts for nothing.
        """
        ids, mask = self._padded(texts)
        more = {} if self.encoder_decoder else {"use_cache": False}
        keywords = {"input_ids": ids, "attention_mask": mask, "return_dict": True, **more}
        with self._team.together(self._model, "body", keywords):
            output = self.read(**keywords)
        states: Tensor = output.last_hidden_state
        return states

    def states_before(
        self, prompts: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]
    ) -> Tensor:
        """States from which each scored token is told, end to end: `[scored tokens, width]`."""
        if self.encoder_decoder:
            states = self._decoded(prompts, scored)
            first = [0] * len(prompts)
        else:
            states = self.states([[*a, *b] for a, b in zip(prompts, scored, strict=True)])
            first = [len(prompt) - 1 for prompt in prompts]
        parts = [
            row[begin : begin + len(tokens)]
            for row, begin, tokens in zip(states, first, scored, strict=True)
        ]
        return torch.cat(parts)

    def logits(self, states: Tensor) -> Iterator[Tensor]:
        """Of states `[tokens, width]`, `piece` at a time: `[piece, vocabulary]` float32.

        Each is valid until the next one. They are the whole model's, soft cap and scale included:
        it runs with a body that says what it is told to.
        """
        for part in torch.split(states, self.piece):
            with (
                self._team.together(self._model, "head", {"states": part}),
                self._saying(part.unsqueeze(0)),
            ):
                logits = self._model(**self._dummy(part), use_cache=False).logits[0]
            yield logits.float()

    def _decoded(self, prompts: Sequence[Sequence[int]], scored: Sequence[Sequence[int]]) -> Tensor:
        read = self.states(prompts)
        _, read_mask = self._padded(prompts)
        ids, mask = self._padded([[self._start, *tokens[:-1]] for tokens in scored])
        output = self._inner(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=read,
            encoder_attention_mask=read_mask,
            use_cache=False,
            return_dict=True,
        )
        self._kind = type(output)
        states: Tensor = output.last_hidden_state
        return states

    def _padded(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
        """Padded at the end, where no token of a decoder looks; no mask where nothing is padded."""
        rows = [torch.tensor(list(text), dtype=torch.int64) for text in texts]
        ids = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        if int(lengths.min()) == ids.shape[1]:
            return ids.to(self._device), None
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(torch.int64)
        return ids.to(self._device), mask.to(self._device)

    def _dummy(self, part: Tensor) -> dict[str, Any]:
        """As many tokens as there are states; which ones is not looked at."""
        ids = torch.zeros(1, part.shape[0], dtype=torch.int64, device=self._device)
        if not self.encoder_decoder:
            return {"input_ids": ids}
        read = BaseModelOutput(last_hidden_state=part.unsqueeze(0))
        return {"encoder_outputs": read, "decoder_input_ids": ids}

    @contextmanager
    def _saying(self, states: Tensor) -> Iterator[None]:
        said = self._kind(last_hidden_state=states)
        self._inner.forward = lambda *_, **__: said
        try:
            yield
        finally:
            self._inner.__dict__.pop("forward", None)
