"""What a checkpoint says beside its weights: tokenizer, limits, end tokens, revision.

It knows no torch: every engine that reads a Hugging Face checkpoint starts here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers

from db.checkpoint import folder_digest
from db.errors import ModelLoadError
from worker.engine.protocol import EngineConfig
from worker.engine.shared.load_progress import watch_loading

#: What transformers and the hub raise for a checkpoint that is broken, absent or unknown.
LOAD_ERRORS = (OSError, ValueError, ImportError, LookupError, TypeError, AttributeError)

#: Above this a tokenizer's model_max_length means "not known" (transformers' own sentinel is
#: 1e30).
_ABSURD_LENGTH = 10**9


def pinned(config: EngineConfig) -> EngineConfig:
    """With the commit that a hub model's revision means now: a branch may move between two files.

    As it is where there is no telling: then whoever loads the files says what is wrong.
    """
    resolve = getattr(transformers.utils.hub, "resolve_revision", None)
    if resolve is None or Path(config.model).exists():
        return config
    commit = getattr(resolve(config.model, config.revision), "resolved", None)
    return config if commit is None else replace(config, revision=commit)


def load_tokenizer(config: EngineConfig) -> Any:
    """The checkpoint's own tokenizer. Raises ModelLoadError where it has none."""
    options = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(config.model, **options)
    except LOAD_ERRORS as error:
        raise ModelLoadError(
            f"model '{config.model}' has no tokenizer that can be loaded ({one_line(error)}): "
            "put its tokenizer.json beside the weights"
        ) from error
    check_tokenizer(config.model, tokenizer)
    return tokenizer


def check_tokenizer(model: str, tokenizer: Any) -> None:
    """Raise ModelLoadError for one that was made up from the config alone."""
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelLoadError(
            f"model '{model}' has no tokenizer: put its tokenizer.json beside the weights"
        )


def context_length(shape: Any, tokenizer: Any) -> int | None:
    """Tokens that the model takes; None: no limit is written anywhere.

    The model's own limit counts; the tokenizer's only where the model has none, as it is often
    absurd or meant for another use.
    """
    text = shape.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and 0 < value < _ABSURD_LENGTH:
            return value
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if limit is not None and 0 < limit < _ABSURD_LENGTH else None


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a text: the generation config's, else the model's, else the tokenizer's."""
    shape = model.config.get_text_config()
    for owner in (getattr(model, "generation_config", None), shape, tokenizer):
        value = getattr(owner, "eos_token_id", None)
        if value is not None:
            return frozenset(value if isinstance(value, (list, tuple)) else [value])
    return frozenset()


def folder_of(config: EngineConfig) -> Path | None:
    """The model's own, or the snapshot in the hub's cache that was loaded just now."""
    folder = Path(config.model)
    if folder.is_dir():
        return folder
    found = huggingface_hub.try_to_load_from_cache(
        config.model, "config.json", revision=config.revision
    )
    return Path(found).parent if isinstance(found, str) else None


def revision_of(model: str, folder: Path | None) -> str | None:
    """A digest of a folder of the user's; of a snapshot its commit, which names it."""
    if folder is None:
        return None
    return folder_digest(folder) if Path(model).is_dir() else folder.name


def why_not_loaded(config: EngineConfig, error: Exception) -> str:
    """For people: why one of LOAD_ERRORS, or a worse one, came, and what to do."""
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"model '{config.model}' brings its own code: pass --trust-remote-code if you trust it"
        )
    if "safetensors" in text and isinstance(error, OSError):
        return (
            f"model '{config.model}' has no safetensors weights: convert them, pickled weights "
            "are never loaded"
        )
    if isinstance(error, OSError) and not Path(config.model).is_dir():
        return (
            f"model '{config.model}' is neither a folder nor a model id that can be reached on the "
            "hub: check the spelling, the network and, for a gated model, HF_TOKEN"
        )
    return f"model '{config.model}' can't be loaded: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """An error's text on one line, short enough for a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def silence() -> None:
    """No progress bars and no chatter in a worker's log: errors reach us as exceptions."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    watch_loading(transformers.utils.logging)
