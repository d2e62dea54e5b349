"""Whether the model hub can be reached, asked once and quickly, before anything loads a model.

The hub's client repeats each request for half a minute. So one request comes first: where the hub
is away, a model in the cache is loaded offline, and one that is not is refused at once.
It knows no torch and no transformers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from db.errors import ModelLoadError, ModelUnavailable
from db.gguf import hub_file
from db.model_paths import missing_path
from worker.engine.protocol import EngineConfig

logger = logging.getLogger(__name__)

#: Seconds for the hub to answer one request.
TIMEOUT = 5.0

#: What the hub says about a model or a revision that this user can't have.
_REFUSALS = (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError)


@dataclass(frozen=True, slots=True)
class Download:
    """What a load has to fetch from the hub first."""

    #: Where the client writes files while it fetches them.
    blobs: Path
    #: Bytes of the files that are not in the cache.
    total: int
    #: Bytes that were in `blobs` before.
    before: int

    def done(self) -> int:
        """Bytes fetched so far."""
        return max(0, bytes_in(self.blobs) - self.before)


def look(config: EngineConfig) -> Download | None:
    """Ask the hub for the model; None: nothing is to be fetched, or nobody knows how much.

    From then on this process is offline if the hub is away and the model is in the cache.
    Raises ModelLoadError where the hub does not have the model, or not for this user, and where a
    path of this machine is meant; ModelUnavailable where the hub is away and the model is not in
    the cache.
    """
    if Path(config.model).expanduser().exists() or config.model.startswith(("/", ".", "~")):
        return None
    repository, file = hub_file(config.model) or (config.model, None)
    cached = _is_cached(repository, file, config.revision)
    if not cached and (problem := missing_path(config.model)) is not None:
        raise ModelLoadError(f"model '{config.model}': {problem}")
    if constants.HF_HUB_OFFLINE:
        if not cached:
            raise ModelLoadError(
                f"model '{config.model}' is not on this machine, and HF_HUB_OFFLINE forbids "
                "downloading it: unset that, or give a local folder"
            )
        return None
    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=config.revision, timeout=TIMEOUT, files_metadata=True
        )
    except _REFUSALS as error:
        if cached:
            _go_offline(config.model, "the hub does not offer it to this user")
            return None
        raise ModelLoadError(_refusal(config, error)) from error
    except Exception as error:  # which ones they are is the business of the client's HTTP library
        if cached:
            _go_offline(config.model, f"{constants.ENDPOINT} can't be reached")
            return None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelUnavailable(
            f"model '{config.model}' is neither a folder nor in the cache of this machine, and "
            f"{constants.ENDPOINT} can't be reached ({reason}): check the spelling and the "
            "network, or give a local folder"
        ) from error
    return _download(repository, info.sha or config.revision, _wanted(info.siblings or (), file))


def bytes_in(folder: Path) -> int:
    """Bytes of the files that lie in a folder; 0 where it is not there."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:  # a file that was renamed meanwhile among them
        return total
    return total


def _is_cached(repository: str, file: str | None, revision: str | None) -> bool:
    try:
        found = huggingface_hub.try_to_load_from_cache(
            repository, file or "config.json", revision=revision
        )
    except HFValidationError:
        return False
    return isinstance(found, str)


def _go_offline(model: str, why: str) -> None:
    """Every later look at the hub, of this process and its children, is at the cache alone."""
    logger.warning("%s: the copy in the cache serves %s", why, model, extra={"action": "hub_away"})
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"


def _refusal(config: EngineConfig, error: Exception) -> str:
    if isinstance(error, RevisionNotFoundError):
        return f"model '{config.model}' has no revision '{config.revision}' on the hub"
    if isinstance(error, GatedRepoError):
        return (
            f"model '{config.model}' is gated: accept its terms on {constants.ENDPOINT}, and set "
            "HF_TOKEN to a token that may read it"
        )
    return (
        f"model '{config.model}' is neither a folder nor on the hub ({constants.ENDPOINT}): check "
        "the spelling and, for a private model, HF_TOKEN"
    )


def _wanted(siblings: Iterable[Any], file: str | None) -> list[Any]:
    """Of a repository's files those that a load fetches: the GGUF file, or the safetensors."""
    files = [entry for entry in siblings if entry.size]
    if file is not None:
        return [entry for entry in files if entry.rfilename == file]
    weights = [
        entry
        for entry in files
        if entry.rfilename.endswith(".safetensors") and "/" not in entry.rfilename
    ]
    # Some repositories hold the weights a second time, under another name.
    named = [entry for entry in weights if entry.rfilename.startswith("model")]
    return named or weights


def _download(repository: str, revision: str | None, files: list[Any]) -> Download | None:
    missing = [
        entry.size for entry in files if not _is_cached(repository, entry.rfilename, revision)
    ]
    if not missing:
        return None
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "blobs"
    return Download(blobs, sum(missing), bytes_in(blobs))
