"""A model's files on this machine, found and judged without torch or transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import orjson

from db.errors import UsageError
from db.gguf import BrokenGguf, Header, files_in, hub_file, is_gguf, local_file, part, read_header
from db.model_paths import missing_path, nearest_path

ChatTemplateState = Literal["present", "absent", "unknown"]

#: Characters between two slashes of a model's name, at most: no file system takes more.
MAX_PART = 255

#: Parts of letters, digits and -_.:@+, divided by single slashes: hub ids, hosted models'
#: names and paths alike.
_PLAUSIBLE = re.compile(r"/?[A-Za-z0-9_.:@+-]+(?:/[A-Za-z0-9_.:@+-]+)*")

_INDEX = "model.safetensors.index.json"

#: Any of these files holds a tokenizer.
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)


def canonical_model(model: str) -> str:
    """The name that a model's queue and results go by.

    A folder or a GGUF file of this machine becomes its absolute, resolved path; a hub id, with
    `:file.gguf` or without, a hosted model's name, or an absolute path that only the workers may
    have, stays as it is. Raises UsageError for what can be none of these.
    """
    longest = max(map(len, model.split("/")))
    if not model or longest > MAX_PART or not model.isprintable():
        raise UsageError(
            f"model {model[:60]!a}: not a model's name: give a hub id, as in "
            "openai-community/gpt2, or a local folder"
        )
    here = _canonical_path(model)
    if here is None:
        _check_elsewhere(model)
        _check_path(model)
    return here or model


def _canonical_path(model: str) -> str | None:
    """Of a folder or a GGUF file of this machine; None: it is neither. Raises UsageError."""
    path = Path(model)
    try:
        if path.is_dir():
            return str(path.resolve())
        if path.is_file() and is_gguf(path.name):
            return str(_resolved(path))
        if path.exists():
            raise UsageError(
                f"model {model}: this is a file: give the folder that holds it, or a .gguf file"
            )
        there = hub_file(model)
        if there is not None and Path(there[0]).is_dir():
            raise UsageError(
                f"model {model}: {there[0]} is a folder here: give the file's path, "
                f"{Path(there[0]) / there[1]}"
            )
    except OSError as error:
        raise UsageError(f"model {model}: {error.strerror}: let your user read it") from None
    return None


def _check_elsewhere(model: str) -> None:
    """Raise UsageError unless it can be a model's name, or a path that the workers have."""
    if "://" in model:
        raise UsageError(f"model {model}: this is a URL: give the hub id alone, as in org/name")
    if model.startswith(("./", "../", "~")) or model in (".", ".."):
        advice = _meant(model) or "check the path or give a hub id"
        raise UsageError(f"model {model}: no such folder: {advice}")
    if is_gguf(model) and not model.startswith("/") and hub_file(model) is None:
        advice = _meant(model) or "check the path; a file of the hub is org/name:file.gguf"
        raise UsageError(f"model {model}: no such file: {advice}")
    if not _PLAUSIBLE.fullmatch(model):
        raise UsageError(
            f"model {model}: neither a folder that exists nor a hub id: check the spelling, "
            "as in openai-community/gpt2"
        )


def _check_path(model: str) -> None:
    """Raise UsageError for a path that leads into a folder of models here, and to nothing there.

    A hub id that is in the cache is none.
    """
    problem = missing_path(model)
    if problem is not None and find_model(model) is None:
        raise UsageError(f"model {model}: {problem}")


def _meant(model: str) -> str | None:
    """A question for a name that is nearly the path of a model; None: there is none."""
    path = nearest_path(model)
    return None if path is None else f"did you mean {path}?"


def find_model(model: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder with the model's files, or its one GGUF file; None where this machine has none.

    A local folder is itself; a hub id is looked up in the Hugging Face cache: the snapshot that
    `main` names, else the newest one. Downloads nothing.
    """
    path = Path(model)
    if (file := local_file(path)) is not None:
        return _resolved(file)
    if path.is_dir():
        return path.resolve()
    there = hub_file(model)
    if there is None:
        return next(iter(_snapshots(model, environment)), None)
    found = (snapshot / there[1] for snapshot in _snapshots(there[0], environment))
    return next((file for file in found if file.is_file()), None)


def _snapshots(repository: str, environment: Mapping[str, str]) -> list[Path]:
    """Those in the cache, the best first."""
    cached = hub_cache(environment) / f"models--{repository.replace('/', '--')}"
    found = [entry for entry in cached.glob("snapshots/*") if entry.is_dir()]
    found.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    main = cached / "refs" / "main"
    if main.is_file():
        named = cached / "snapshots" / main.read_text(encoding="ascii", errors="replace").strip()
        found.sort(key=lambda entry: entry != named)
    return found


def _resolved(file: Path) -> Path:
    """Through links, as long as what they lead to is called a GGUF file too."""
    found = file.resolve()
    return found if is_gguf(found.name) else file.parent.resolve() / file.name


def hub_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Where Hugging Face's libraries keep what they downloaded; the same rules as theirs."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := environment.get(name):
            return Path(value).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def chat_template_state(
    model: str, environment: Mapping[str, str] = os.environ
) -> ChatTemplateState:
    """Whether the model can render a chat.

    `unknown` where its files are not here, can't be read, or hold named templates without a
    default: then the worker finds out.
    """
    folder = find_model(model, environment)
    if folder is None:
        return "unknown"
    if folder.is_file():
        return _gguf_template(folder)
    if (folder / "chat_template.jinja").is_file():
        return "present"
    try:
        found = [
            _stored_template(folder / name)
            for name in ("chat_template.json", "tokenizer_config.json")
        ]
    except (OSError, ValueError):
        return "unknown"
    if "present" in found:
        return "present"
    if "unknown" in found or any(folder.glob("additional_chat_templates/*.jinja")):
        return "unknown"
    # A template may lie in tekken.json too, which only a model library reads.
    opaque = (folder / "tekken.json").is_file()
    return "absent" if _has_tokenizer(folder) and not opaque else "unknown"


def is_encoder_decoder(model: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether its files say so; False where they are not here."""
    folder = find_model(model, environment)
    if folder is None:
        return False
    try:
        if folder.is_file():
            return read_header(folder).architecture == "t5"
        return _object(folder / "config.json").get("is_encoder_decoder") is True
    except (OSError, ValueError):
        return False


def _gguf_template(file: Path) -> ChatTemplateState:
    try:
        template = read_header(file).metadata.get("tokenizer.chat_template")
    except (OSError, BrokenGguf):
        return "unknown"
    return "present" if template else "absent"


def _stored_template(file: Path) -> ChatTemplateState:
    """What the `chat_template` of a JSON file says: a template, or several by name."""
    template = _object(file).get("chat_template") if file.is_file() else None
    if isinstance(template, list):
        named = {entry.get("name") for entry in template if isinstance(entry, dict)}
        return "present" if "default" in named else "unknown"
    if isinstance(template, dict):
        return "present" if "default" in template else "unknown"
    return "present" if template else "absent"


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def _object(file: Path) -> dict[str, Any]:
    """The file's JSON object. Raises OSError, or ValueError where it is none."""
    content = orjson.loads(file.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return content


def weights_bytes(folder: Path) -> int:
    """Bytes of the model's weights as stored; 0 where there are none.

    Counts one copy: the sharded safetensors of the index, else `model.safetensors`, else all
    safetensors, else PyTorch's .bin files; of a GGUF file all of it.
    """
    return sum(file.stat().st_size for file in _weights(folder) if file.is_file())


def unpacked_bytes(folder: Path) -> int:
    """Bytes that the weights take once they are loaded: those of a GGUF file are unpacked."""
    if not folder.is_file():
        return weights_bytes(folder)
    try:
        return 2 * read_header(folder).parameters
    except (OSError, BrokenGguf):
        return 0


def _weights(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if (folder / _INDEX).is_file():
        with suppress(OSError, ValueError):  # `is_complete` tells of a broken index
            return _shards(folder)
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _shards(folder: Path) -> list[Path]:
    """The files that the index names. Raises OSError or ValueError where it can't be read."""
    shards = _object(folder / _INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"{_INDEX} has no weight_map")
    return [folder / name for name in sorted(set(map(str, shards.values())))]


def is_complete(folder: Path) -> list[str]:
    """What keeps the folder, or the GGUF file, from being loaded; [] if nothing.

    Each in one line with what to do.
    """
    if folder.is_file():
        return _gguf_problems(folder)
    several = [] if any(folder.glob("*.safetensors")) else files_in(folder)
    if several:
        return [f"{folder}: holds {len(several)} GGUF files: give one of them, as {several[0]}"]
    return [
        *_config_problems(folder / "config.json"),
        *_weight_problems(folder),
        *_tokenizer_problems(folder),
    ]


def load_problems(folder: Path) -> list[str]:
    """Of `is_complete` what keeps every engine from loading it: code that comes with a model may
    bring a tokenizer of its own.
    """
    if folder.is_file() or (not any(folder.glob("*.safetensors")) and files_in(folder)):
        return is_complete(folder)
    return [*_config_problems(folder / "config.json"), *_weight_problems(folder)]


def _gguf_problems(file: Path) -> list[str]:
    try:
        header: Header = read_header(file)
    except BrokenGguf as error:
        return [f"{file}: {error}: download it again"]
    except OSError as error:
        return [f"{file}: {error.strerror}: let your user read it"]
    if header.parts > 1 or part(file.name) is not None:
        return [
            f"{file}: one of several parts: join them with llama.cpp's llama-gguf-split --merge"
        ]
    return []


def _config_problems(file: Path) -> list[str]:
    if not file.is_file():
        return [f"{file}: missing: download the whole model, or check the folder"]
    try:
        _object(file)
    except (OSError, ValueError) as error:
        return [f"{file}: can't be read ({error}): download it again"]
    return []


def _tokenizer_problems(folder: Path) -> list[str]:
    if _has_tokenizer(folder):
        return []
    return [f"{folder}: no tokenizer (tokenizer.json): download the model's tokenizer files"]


def _weight_problems(folder: Path) -> list[str]:
    if (folder / _INDEX).is_file():
        try:
            missing = [shard.name for shard in _shards(folder) if not shard.is_file()]
        except (OSError, ValueError) as error:
            return [f"{folder / _INDEX}: can't be read ({error}): download it again"]
        return [f"{folder}: {name} is missing: download the model again" for name in missing]
    weights = sorted(folder.glob("*.safetensors"))
    if weights:
        return [
            f"{file}: points nowhere or is empty: download the model again"
            for file in weights
            if not file.is_file() or not file.stat().st_size
        ]
    if any(folder.glob("*.bin")):
        return [f"{folder}: only PyTorch .bin weights, which can run code: get its safetensors"]
    return [f"{folder}: no weights (*.safetensors): download the whole model"]
