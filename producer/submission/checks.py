"""What can be wrong with a line only in the light of its batch."""

from __future__ import annotations

from db.errors import UsageError
from db.modes import Mode
from producer.model_files import canonical_model, chat_template_state, is_encoder_decoder
from producer.reading import BadLine, Line
from producer.submission.order import Order


class LineChecks:
    """Its model, and whether that model can do it. Looks at the model's files once."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._no_template: bool | None = None
        self._needs_completion: bool | None = None if order.mode is Mode.SCORE else False
        self._canonical: dict[str, str] = {}

    def check(self, line: Line | BadLine) -> Line | BadLine:
        if isinstance(line, BadLine):
            return line
        if self._needs_completion is not False and self._lacks_completion(line):
            return _bad(
                line,
                f"has no 'completion', and model '{self._order.model}' is an encoder-decoder, "
                "which scores a completion after a prompt: give both",
            )
        if line.model is None and "messages" not in line.request:
            return line
        if line.model in self._order.adapters:
            adapted = _adapted(line, line.model)
            if isinstance(adapted, BadLine):
                return adapted
            line = adapted
        elif not self._order.ignore_line_model and self._is_foreign(line.model):
            return _bad(
                line,
                f"asks for model '{line.model}', and this batch is for '{self._order.model}': "
                "submit it as a batch of its own, give --adapter if that is the name of a LoRA "
                "adapter, or give --ignore-line-model",
            )
        if "messages" in line.request and self._lacks_template():
            return _bad(
                line,
                f"is a chat, and model '{self._order.model}' has no chat template: give a "
                "prompt, or use a model that is made for chats",
            )
        return line

    def _is_foreign(self, model: str | None) -> bool:
        if model is None or model == self._order.model:
            return False
        if model not in self._canonical:
            self._canonical[model] = _canonical_or_same(model)
        return self._canonical[model] != self._order.model

    def _lacks_completion(self, line: Line) -> bool:
        if self._needs_completion is None:
            self._needs_completion = is_encoder_decoder(self._order.model)
        return self._needs_completion and "completion" not in line.request

    def _lacks_template(self) -> bool:
        if self._no_template is None:
            self._no_template = chat_template_state(self._order.model) == "absent"
        return self._no_template


def _canonical_or_same(model: str) -> str:
    """A name that can be no model's stays as it is."""
    try:
        return canonical_model(model)
    except UsageError:
        return model


def _adapted(line: Line, adapter: str) -> Line | BadLine:
    """The line with the adapter that its `model` names among its parameters."""
    params = line.request.get("params", {})
    if params.get("adapter", adapter) != adapter:
        return _bad(
            line,
            f"asks for model '{adapter}' and for adapter '{params['adapter'] or ''}': give one",
        )
    return line._replace(request={**line.request, "params": {**params, "adapter": adapter}})


def _bad(line: Line, reason: str) -> BadLine:
    return BadLine(line.source, line.number, reason, line.custom_id, columns=line.columns)
