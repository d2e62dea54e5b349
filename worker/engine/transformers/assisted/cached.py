"""A model that reads one text and remembers it, the last few tokens only as long as wanted.

What it remembers is transformers' DynamicCache, which knows the kinds of layers: full attention,
windows, and states that are no keys and values. Tokens read since the last `drop` can be taken
back from each.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from worker.engine.shared.metadata import one_line
from worker.engine.transformers import probe
from worker.engine.transformers.loading import LoadedModel
from worker.engine.transformers.projections import Projections

#: What a model raises whose cache is not what it should be.
_ODD = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class CachedModel:
    """One model and the text that it has read. The caller has its turn and inference mode."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        #: Tokens that were read and not dropped.
        self.length = 0
        #: Tokens that it tells apart, padding of its vocabulary included.
        self.vocabulary = _size(model.get_output_embeddings(), "out_features")
        #: Token ids that it can read.
        self.readable = _size(model.get_input_embeddings(), "num_embeddings")
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._cache: Any = None
        self._projections: Projections | None = None

    def quicken(self, rows: int) -> None:
        """On a CPU: multiply in the order that suits few tokens, at most `rows` at once."""
        self._projections = Projections(self._model, rows)

    def close(self) -> None:
        """Leave the model as it was, and let go of the text. Idempotent."""
        if self._projections is not None:
            self._projections.remove()
        self.forget()

    def forget(self) -> None:
        """Let go of the text; `begin` comes next."""
        self._cache, self.length = None, 0

    def begin(self) -> None:
        """Turn to another text."""
        self._cache = DynamicCache(config=self._model.config)
        self._cache.activate_past_recording()
        self.length = 0

    def read(self, token_ids: Sequence[int], keep: int) -> Tensor:
        """Read on; logits after each of the last `keep` tokens: `[keep, vocabulary]` float32.

        They are valid until the next call.
        """
        ids = torch.tensor([list(token_ids)], dtype=torch.int64, device=self._device)
        more = {"logits_to_keep": keep} if self._keeps else {}
        output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **more)
        self.length += len(token_ids)
        logits: Tensor = output.logits[0, -keep:]
        return logits.float()

    def drop(self, count: int) -> None:
        """Take the last `count` tokens back, which may be none.

        Only those read since the last call can be: windows keep no more than that.
        """
        if self.length:  # a window that has seen nothing can't even drop nothing
            self._cache.crop(-count)
        self.length -= count

    def kept(self) -> tuple[Any, int]:
        """What it has read so far, to be given to `resume`, as often as is wanted."""
        return copy.deepcopy(self._cache), self.length

    def resume(self, kept: tuple[Any, int]) -> None:
        """Go on from there."""
        cache, self.length = kept
        self._cache = copy.deepcopy(cache)


def _size(module: Any, name: str) -> int:
    """Packed weights have not the shape of what they stand for."""
    return int(getattr(module, name, None) or module.weight.shape[0])


def trial(loaded: LoadedModel) -> str | None:
    """What goes wrong where the model reads tokens that are taken back; None: nothing."""
    model = CachedModel(loaded.model, loaded.device)
    try:
        expected = probe.expected(loaded)
        with torch.inference_mode():
            return _disagreement(model, expected)
    except _ODD as error:
        return one_line(error)


def _disagreement(model: CachedModel, expected: probe.Expected) -> str | None:
    *first, last = expected.prompt_ids
    wrong = [0, 1, 2]
    model.begin()
    model.read(first, 1)
    model.drop(0)
    for place in expected.places:
        logits = model.read([last, *wrong], len(wrong) + 1)
        got = logits[0].log_softmax(dim=-1).cpu()
        model.drop(len(wrong))
        best = int(place.argmax())
        if not abs(float(got[best]) - float(place[best])) < probe.TOLERANCE:
            return f"a log-probability of {got[best]:.2f} where it has {place[best]:.2f} alone"
        last = best
    return None
