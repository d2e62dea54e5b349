"""The engine itself: which back-end a model gets. What becomes of a request: `answering`."""

from __future__ import annotations

import logging

import torch
import transformers

from db.errors import ModelLoadError
from worker.engine.options import OptionReader, tensor_parallel
from worker.engine.protocol import (
    Cancelled,
    EngineConfig,
    EngineInfo,
    Measurement,
    OnDone,
)
from worker.engine.shared.admission import Admission
from worker.engine.shared.answering import AnsweringEngine, Started
from worker.engine.shared.backend import Backend, traits, why_not_continuous
from worker.engine.shared.guide import Guides
from worker.engine.shared.prompt import Prompter
from worker.engine.transformers import quantization
from worker.engine.transformers.adapters.loading import with_adapters
from worker.engine.transformers.assisted import options as assistance
from worker.engine.transformers.assisted.backend import AssistedBackend
from worker.engine.transformers.continuous import ContinuousBackend, PagingUnsupported
from worker.engine.transformers.loading import LoadedModel, hardware
from worker.engine.transformers.measuring.measurer import Measurer
from worker.engine.transformers.parallel.start import load_on_devices
from worker.engine.transformers.parallel.team import Alone
from worker.engine.transformers.rules import Rules
from worker.engine.transformers.static import StaticBackend

#: Engine options and the words that they take.
OPTIONS = {
    "batching": ("auto", "continuous", "static"),
    #: Of continuous batching: our own, or transformers' own.
    "attention": ("packed", "sdpa"),
    #: Packs the weights of a plain checkpoint while it is loaded.
    "quantization": quantization.CHOICES,
    #: The rules of its own that a checkpoint's generation_config has; none: left out.
    "generation_rules": ("checkpoint", "none"),
    #: Devices that share the model; auto: all GPUs.
    "tensor_parallel": ("auto", "1", "2", "…"),
}

_log = logging.getLogger(__name__)


class TransformersEngine(AnsweringEngine):
    """One Hugging Face model on one device."""

    def __init__(self, config: EngineConfig) -> None:
        """Reads the settings only. Raises SettingsError for an unknown option."""
        super().__init__(config)
        options = OptionReader("transformers", config.options, [*OPTIONS, *assistance.OPTIONS])
        options.faults.of(tensor_parallel, config.options)
        self._team = Alone()
        self._batching = options.choice("batching", OPTIONS["batching"], "auto")
        self._attention = options.choice("attention", OPTIONS["attention"], "packed")
        self._quantize = options.choice("quantization", OPTIONS["quantization"], "none")
        rules = OPTIONS["generation_rules"]
        self._ruled = options.choice("generation_rules", rules, "checkpoint") != "none"
        self._assistance = options.faults.of(assistance.read, config.options, self._batching)
        options.finish()

    def _load(self) -> tuple[Started, EngineInfo]:
        loaded = load_on_devices(self._config, self._quantize)
        self._team = loaded.team
        try:
            return self._serve(with_adapters(loaded, self._config.adapters))
        except BaseException:
            loaded.team.close()
            raise

    def close(self) -> None:
        with self._team.hurried():
            super().close()
        self._team.close()

    def _serve(self, loaded: LoadedModel) -> tuple[Started, EngineInfo]:
        prompter = Prompter(
            loaded.tokenizer, joined=not loaded.encoder_decoder, readable=loaded.readable
        )
        measurer = Measurer(loaded, self._config, prompter)
        rules = Rules(loaded.model, loaded.end_ids, follow=self._ruled)
        rules.check(self._config.model)
        backend = self._backend(loaded, rules)
        vocabulary = loaded.vocabulary
        admission = Admission(
            prompter=prompter,
            guides=Guides(loaded.tokenizer, vocabulary, loaded.end_ids | prompter.turn_ends),
            end_ids=loaded.end_ids,
            vocabulary=vocabulary,
            context_length=loaded.context_length,
            adapters=loaded.adapters.digests,
            forced_end=rules.forces_end,
            decoder_start_id=loaded.decoder_start_id if loaded.encoder_decoder else None,
        )
        measurer.start()
        bounds = [one for one in (loaded.context_length, backend.longest) if one is not None]
        info = EngineInfo(
            engine="transformers",
            engine_version=f"{transformers.__version__}, torch {torch.__version__}",
            model=self._config.model,
            revision=loaded.revision,
            device=loaded.place,
            dtype=loaded.dtype,
            parameters=loaded.parameters,
            capacity=backend.capacity,
            kv_tokens=backend.kv_tokens,
            context_length=min(bounds, default=None),
            backend=backend.name,
            hardware=hardware(loaded.device, loaded.team.size),
            folder=loaded.folder,
            adapters=loaded.adapters.digests,
        )
        return Started(prompter, admission, backend, measurer), info

    def measure(self, request: Measurement, on_done: OnDone) -> None:
        measurer = None if self._closed else self._running.measurer
        if measurer is None:
            on_done(request.id, Cancelled())
        else:
            measurer.measure(request, on_done)

    def _backend(self, loaded: LoadedModel, rules: Rules) -> Backend:
        """The back-end that the model gets, started."""
        if self._assistance is not None:
            if rules.names:
                raise ModelLoadError(
                    f"model '{self._config.model}' can't be assisted, as its generation_config "
                    f"asks for {', '.join(rules.names)}: leave out the assistance, or set the "
                    "engine option generation_rules=none to go without its rules"
                )
            drafter = self._assistance.drafter(loaded, self._config)
            assisted = AssistedBackend(loaded, self._config, drafter)
            assisted.start(self._on_end)
            return assisted
        reason = why_not_continuous(traits(loaded.model))
        if reason and (self._batching == "continuous" or loaded.team.size > 1):
            raise ModelLoadError(
                f"model '{self._config.model}' can't be batched continuously, as {reason}: "
                "leave the engine option 'batching' at auto"
            )
        if not reason and self._batching != "static":
            continuous = ContinuousBackend(
                loaded, self._config, rules=rules, own_attention=self._attention == "packed"
            )
            try:
                continuous.start(self._on_end)
            except PagingUnsupported as error:
                if self._batching == "continuous" or loaded.team.size > 1:
                    raise
                _log.warning("%s (done)", error.message, extra={"action": "engine_static"})
            else:
                return continuous
        static = StaticBackend(loaded, self._config, rules)
        static.start(self._on_end)
        return static
