"""The model of a worker, from its name to a started engine, with a word on how far it has come."""

from __future__ import annotations

import logging
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from db.checkpoint import weight_files
from db.gguf import is_gguf, local_file
from db.settings import Settings
from worker.engine.protocol import Engine, EngineConfig, EngineInfo
from worker.engine.registry import check, create
from worker.engine.shared.load_progress import share_read
from worker.engine.shared.weight_files import check_folder, check_weights
from worker.prompt_lists import with_prompt_lists

if TYPE_CHECKING:
    from worker.engine.shared.hub import Download

logger = logging.getLogger(__name__)

#: Engines whose model may come from the hub.
_FROM_HUB = frozenset({"transformers", "keras", "vllm"})

#: Seconds until the first further line, and between two.
_FIRST, _NEXT = 10.0, 30.0

_GB = 1e9


def load_engine(settings: Settings, model: str) -> tuple[Engine, EngineInfo]:
    """An engine with `model` loaded; the caller closes it. Raises PromptmillError.

    It takes requests with several prompts.
    """
    config = engine_config(settings, model)
    with LoadingReport(settings.engine, config) as report:
        check(settings.engine, config)
        if settings.engine in _FROM_HUB:
            report.expect(_look_at_files(config))
        engine = with_prompt_lists(create(settings.engine, config))
        return engine, engine.start()


def _look_at_files(config: EngineConfig) -> Download | None:
    """What is to be fetched. Raises ModelLoadError for what is seen without a model library."""
    if not is_gguf(config.model) and local_file(Path(config.model).expanduser()) is None:
        check_folder(config.model)
        check_weights(config.model)
    if find_spec("huggingface_hub") is None:  # the engine is not installed, and says so itself
        return None
    from worker.engine.shared import hub

    return hub.look(config)


def engine_config(settings: Settings, model: str) -> EngineConfig:
    """What the settings say of loading `model`."""
    return EngineConfig(
        model=model,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        max_concurrency=settings.max_concurrency,
        kv_memory_fraction=settings.kv_memory_fraction,
        max_batch_tokens=settings.max_batch_tokens,
        options=settings.engine_options,
        adapters=settings.adapters,
    )


class LoadingReport:
    """Logs that a model is being loaded: at once, and then now and then how far it is."""

    def __init__(self, engine: str, config: EngineConfig) -> None:
        self._model = config.model
        self._engine = engine
        self._download: Download | None = None
        self._size = _size(config.model)
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="promptmill-loading", daemon=True)

    def __enter__(self) -> Self:
        self._say(f"loading {self._model}{_in_gb(' ({} of weights)', self._size)}")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def expect(self, download: Download | None) -> None:
        """This is to be fetched first."""
        self._download = download
        if download is not None:
            self._say(f"loading {self._model}: {_in_gb('{} to download', download.total)}")

    def stage(self) -> str:
        """How far it is, in words."""
        download, share = self._download, share_read()
        if share is not None:
            return f"{share:.0%} of the weights are in memory"
        if download is not None and (done := download.done()) < download.total:
            return (
                f"downloaded {done / _GB:.1f} of {download.total / _GB:.1f} GB "
                f"({done / download.total:.0%})"
            )
        return f"{time.monotonic() - self._started:.0f} s so far"

    def _run(self) -> None:
        pause = _FIRST
        while not self._ended.wait(pause):
            self._say(f"loading {self._model}: {self.stage()}")
            pause = _NEXT

    def _say(self, text: str) -> None:
        logger.info("%s", text, extra={"action": "loading", "engine": self._engine})


def _size(model: str) -> int:
    """Bytes of the weight files of a local model; 0 where they are not here."""
    try:
        return sum(file.stat().st_size for file in weight_files(Path(model)))
    except (OSError, ValueError, AttributeError):
        return 0


def _in_gb(text: str, size: int) -> str:
    return text.format(f"{size / _GB:.1f} GB") if size else ""
