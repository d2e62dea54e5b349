"""The engine itself: options, and what `start` loads. It imports keras only at the start."""

from __future__ import annotations

from importlib.util import find_spec

from worker.engine.kerashub import framework
from worker.engine.kerashub.backend import KerasBackend
from worker.engine.kerashub.compiled import Passes
from worker.engine.kerashub.loading import load
from worker.engine.options import OptionReader
from worker.engine.parameters import refusal
from worker.engine.protocol import EngineConfig, EngineInfo, OnDone, Request
from worker.engine.shared.admission import Admission
from worker.engine.shared.answering import AnsweringEngine, Started
from worker.engine.shared.guide import Guides
from worker.engine.shared.prompt import Prompter

#: Engine options and the words that they take.
OPTIONS = {
    #: What keras computes with; `auto`: what KERAS_BACKEND says, else TensorFlow.
    "backend": ("auto", *framework.FRAMEWORKS),
    #: Which checkpoints: the types that are compared with PyTorch, or all that KerasHub reads.
    "models": ("compared", "any"),
}


class KerasEngine(AnsweringEngine):
    """One KerasHub model on one device."""

    def __init__(self, config: EngineConfig) -> None:
        """Reads the settings only.

        Raises SettingsError for an unknown option, ModuleNotFoundError where KerasHub is not
        installed: importing it takes seconds and fixes the framework, so that waits for `start`.
        """
        super().__init__(config)
        options = OptionReader("keras", config.options, OPTIONS)
        option = options.choice("backend", OPTIONS["backend"], "auto")
        self._insist = options.choice("models", OPTIONS["models"], "compared") == "any"
        options.finish()
        self._framework = framework.wanted(option)
        if find_spec("keras_hub") is None:
            raise ModuleNotFoundError("No module named 'keras_hub'", name="keras_hub")

    def submit(self, request: Request, on_done: OnDone) -> None:
        refused = None if self._closed else refusal("keras", request.params)
        if refused is not None:
            on_done(request.id, refused)
        else:
            super().submit(request, on_done)

    def _load(self) -> tuple[Started, EngineInfo]:
        loaded = load(self._config, self._framework, insist=self._insist)
        passes = Passes(loaded.model, loaded.device)
        vocabulary = passes.vocabulary()
        prompter = Prompter(loaded.tokenizer, readable=vocabulary)
        admission = Admission(
            prompter=prompter,
            guides=Guides(loaded.tokenizer, vocabulary, loaded.end_ids | prompter.turn_ends),
            end_ids=loaded.end_ids,
            vocabulary=vocabulary,
            context_length=loaded.context_length,
        )
        backend = KerasBackend(loaded, passes, self._config)
        backend.start(self._on_end)
        info = EngineInfo(
            engine="keras",
            engine_version=framework.version(self._framework),
            model=self._config.model,
            revision=loaded.revision,
            device=loaded.device.name,
            dtype=loaded.dtype,
            parameters=loaded.model.count_params(),
            capacity=backend.capacity,
            context_length=loaded.context_length,
            backend=self._framework,
            folder=loaded.folder,
        )
        return Started(prompter, admission, backend), info
