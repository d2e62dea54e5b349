"""Whether the model that would run now is the one that made the results of a batch.

    hub model    its commit
    folder       its config and layout, its tokenizer and template, every byte of its weights
    GGUF file    its header, every byte
    adapter      every byte

The cheap comes first. Bytes are read only where a file's size or times have changed since they
were last read: `db.checkpoint` remembers what they came to.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import orjson

from db.checkpoint import Weights, files_digest, folder_digest, tokenizer_digest
from db.gguf import BrokenGguf, hub_file, read_header
from db.records import ServedModel
from producer.model_files import find_model, hub_cache
from producer.servable import hub_is_forbidden

_COMMIT = re.compile(r"[0-9a-f]{40}")

#: The files of a LoRA adapter, as PEFT names them.
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")

#: Seconds for the hub to say which commit a branch means.
_HUB_TIMEOUT = 5.0

#: What reading a model's files may raise.
_UNREADABLE = (OSError, ValueError, AttributeError, BrokenGguf, struct.error)


class ModelNow:
    """A model on this machine, to be compared with what workers had loaded."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None,
        adapters: Mapping[str, str],
        memory: Path,
    ) -> None:
        """`revision`: of a hub model. `adapters`: name -> folder or hub id. `memory`: a folder
        that remembers the digests of files.
        """
        self._model = model
        self._revision = revision
        self._adapters = adapters
        self._memory = memory
        self._local = Path(model).exists()
        self._files = find_model(model)

    def change_since(self, served: ServedModel) -> str | None:
        """What is another than it was, in words; None: nothing, as far as can be known."""
        try:
            return (
                self._files_changed(served) if self._local else self._commit_changed(served)
            ) or self._adapter_changed(served)
        except _UNREADABLE:  # then it can't be loaded either, and the worker says why
            return None

    def _commit_changed(self, served: ServedModel) -> str | None:
        now, before = self._commit, served.revision
        if now is None or before is None or now == before:
            return None
        return f"its revision is {now[:12]}, and was {before[:12]}"

    def _files_changed(self, served: ServedModel) -> str | None:
        if self._files is None:
            return None
        if served.revision not in (None, self._layout):
            return "its config, or the layout of its weights, is another"
        if served.tokenizer not in (None, self._tokenizer):
            return "its tokenizer or chat template is another"
        if served.weights is None:
            return self._touched_since(served.started_at)
        return None if self._weights in (None, served.weights) else "its weights are others"

    def _touched_since(self, started_at: float) -> str | None:
        """A worker that ended before it had read its weights leaves no digest: times must do."""
        weights = Weights.of(self._files) if self._files is not None else None
        if weights is None or weights.changed_at <= started_at:
            return None
        return "its weight files were written anew"

    def _adapter_changed(self, served: ServedModel) -> str | None:
        before: dict[str, str] = orjson.loads(served.adapters) if served.adapters else {}
        for name, place in sorted(self._adapters.items()):
            folder = Path(place).expanduser()
            if name in before and folder.is_dir():
                now = files_digest(folder, [folder / file for file in _ADAPTER_FILES])
                if now != before[name]:
                    return f"adapter '{name}' is another"
        return None

    @cached_property
    def _layout(self) -> str | None:
        if self._files is None:
            return None
        if self._files.is_file():
            return read_header(self._files).digest
        return folder_digest(self._files)

    @cached_property
    def _tokenizer(self) -> str | None:
        return None if self._files is None else tokenizer_digest(self._files)

    @cached_property
    def _weights(self) -> str | None:
        return None if self._files is None else Weights.of(self._files).digest(self._memory)

    @cached_property
    def _commit(self) -> str | None:
        """The commit that a worker would load now; None: nobody here knows."""
        if self._revision is not None and _COMMIT.fullmatch(self._revision):
            return self._revision
        repository, _ = hub_file(self._model) or (self._model, None)
        return _hub_commit(repository, self._revision) or _cached_commit(repository, self._revision)


def _hub_commit(repository: str, revision: str | None) -> str | None:
    """As the hub says; None where it is not asked or does not answer."""
    if hub_is_forbidden() or find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import HfApi

    try:
        return HfApi().model_info(repository, revision=revision, timeout=_HUB_TIMEOUT).sha
    except Exception:  # noqa: BLE001 - of the client's HTTP library; a worker would say more
        return None


def _cached_commit(repository: str, revision: str | None) -> str | None:
    refs = hub_cache() / f"models--{repository.replace('/', '--')}" / "refs"
    try:
        return (refs / (revision or "main")).read_text("ascii").strip() or None
    except (OSError, ValueError):
        return None
