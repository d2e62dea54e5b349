"""What a plain model says of a text, in float64: what scores and embeddings are held against."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from db.modes import EmbedParams, ScoreParams
from tests.support.collector import Collector
from worker.engine.protocol import (
    EmbedRequest,
    Measurement,
    MeasuringEngine,
    Outcome,
    ScoreRequest,
)

if TYPE_CHECKING:
    import torch


def score_of(id: str, prompt: str, completion: str | None = None, **params: Any) -> ScoreRequest:  # noqa: A002
    return ScoreRequest(id, ScoreParams(**params), prompt=prompt, completion=completion)


def embedding_of(id: str, prompt: str, **params: Any) -> EmbedRequest:  # noqa: A002
    return EmbedRequest(id, EmbedParams(**params), prompt)


def measured(engine: Any, requests: Iterable[Measurement]) -> dict[str, Outcome]:
    """Ask all at once and wait for all; each was answered exactly once so far."""
    assert isinstance(engine, MeasuringEngine)
    collector = Collector()
    wanted = list(requests)
    for one in wanted:
        engine.measure(one, collector.on_done)
    answers = collector.wait(len(wanted))
    assert sorted(name for name, _ in collector.answers) == sorted(one.id for one in wanted)
    return answers


class Reference:
    """The same checkpoint, loaded once more and called one text at a time."""

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        self.torch = torch
        shape = transformers.AutoConfig.from_pretrained(folder)
        self.encoder_decoder = bool(shape.is_encoder_decoder)
        kind = (
            transformers.AutoModelForSeq2SeqLM
            if self.encoder_decoder
            else transformers.AutoModelForCausalLM
        )
        self.model: Any = kind.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)

    def logprobs(self, prompt: str, completion: str | None = None) -> list[float]:
        """Of each token of the completion, or of a text's from the second on."""
        given = self.tokenizer(prompt)["input_ids"]
        torch = self.torch
        with torch.inference_mode():
            if self.encoder_decoder:
                assert completion is not None
                scored = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
                start = self.model.config.decoder_start_token_id
                logits = self.model(
                    input_ids=torch.tensor([given]),
                    decoder_input_ids=torch.tensor([[start, *scored[:-1]]]),
                ).logits[0]
            else:
                whole = self.tokenizer(prompt + (completion or ""))["input_ids"]
                first = 1 if completion is None else len(given)
                scored = whole[first:]
                logits = self.model(torch.tensor([whole])).logits[0, first - 1 : -1]
        likely = logits.double().log_softmax(dim=-1)
        return [float(row[token]) for row, token in zip(likely, scored, strict=True)]

    def states(self, text: str) -> torch.Tensor:
        """Last hidden states, an encoder-decoder's encoder's: `[tokens, width]` float64."""
        torch = self.torch
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            if self.encoder_decoder:
                states = self.model.get_encoder()(ids).last_hidden_state
            else:
                states = self.model(ids, output_hidden_states=True).hidden_states[-1]
        return states[0].double()  # type: ignore[no-any-return]
