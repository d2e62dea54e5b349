"""A LoRA adapter's folder as PEFT writes it: found, judged and told by a digest.

    adapter_config.json         ranks, scales, and which kind it is
    adapter_model.safetensors   two small matrices a layer

Only plain LoRA is taken. What would change the numbers and is not computed here is refused by its
name, a field that nobody here knows too: half an adapter gives wrong texts, and nobody notices.
It knows no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.checkpoint import files_digest
from db.errors import ModelLoadError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

#: What changes nothing once an adapter is trained, or is told by the weights themselves.
_NO_MATTER = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"),
        *("task_type", "target_modules", "exclude_modules", "layers_to_transform"),
        *("layers_pattern", "lora_dropout", "fan_in_fan_out", "megatron_core"),
        *("eva_config", "qalora_group_size", "ensure_weight_tying"),
    }
)
_READ = frozenset(
    {"peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias"}
)
#: Ways to begin that leave the model's own weights as they are.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter that is there and is of the kind that is computed."""

    name: str
    folder: Path
    #: SHA-256 over its two files, as `sha256sum FILES | sha256sum` gives it.
    digest: str
    rank: int
    alpha: float
    #: By patterns of a layer's path, in place of `rank` and `alpha`.
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    #: Scaled by the root of the rank.
    rooted: bool
    #: What it says it was trained on.
    base: str | None

    def rank_of(self, layer: str) -> int:
        """Of the layer with this path in the model."""
        return self.ranks.get(_key(self.ranks, layer), self.rank)

    def scale_of(self, layer: str) -> float:
        """What the layer's product is multiplied with."""
        alpha, rank = self.alphas.get(_key(self.alphas, layer), self.alpha), self.rank_of(layer)
        return alpha / (math.sqrt(rank) if self.rooted else rank)

    @property
    def largest_rank(self) -> int:
        return max((self.rank, *self.ranks.values()))


def read_adapters(adapters: Mapping[str, str]) -> list[AdapterFiles]:
    """Of each name and folder (or hub id). Raises ModelLoadError, naming the adapter."""
    return [read_adapter(name, place) for name, place in adapters.items()]


def read_adapter(name: str, place: str) -> AdapterFiles:
    """Look at its files; of the weights only the digest is taken. Raises ModelLoadError."""
    folder = _folder(name, place)
    _check_files(name, folder)
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is no object")
        _check_kind(name, config)
        found = AdapterFiles(
            name=name,
            folder=folder,
            digest=files_digest(folder, [folder / CONFIG, folder / WEIGHTS]),
            rank=_rank(config["r"]),
            alpha=float(config["lora_alpha"]),
            ranks={str(key): _rank(rank) for key, rank in _object(config, "rank_pattern").items()},
            alphas={
                str(key): float(alpha) for key, alpha in _object(config, "alpha_pattern").items()
            },
            rooted=bool(config.get("use_rslora")),
            base=config.get("base_model_name_or_path"),
        )
        for key in (*found.ranks, *found.alphas):
            re.compile(key)
    except OSError as error:
        raise bad_adapter(name, f"can't be read: {error.strerror or error}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, re.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise bad_adapter(name, f"has an {CONFIG} that can't be read ({reason})") from None
    return found


def bad_adapter(name: str, what: str) -> ModelLoadError:
    """The error of the adapter that `what` is the matter with."""
    return ModelLoadError(f"adapter '{name}' {what}")


def _folder(name: str, place: str) -> Path:
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise bad_adapter(name, f"is a file: '{place}'; name the folder that holds {CONFIG}")
    if not _HUB_ID.fullmatch(place):
        raise bad_adapter(name, f"is not there: folder '{place}' does not exist")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(place, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:
        raise bad_adapter(
            name,
            f"is not there: '{place}' is neither a folder nor an id that can be reached on the hub",
        ) from error


def _check_files(name: str, folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        raise bad_adapter(name, f"has no {CONFIG} in '{folder}': name a folder that PEFT wrote")
    if (folder / WEIGHTS).is_file():
        return
    pickled = sorted(path.name for path in folder.glob("adapter_model.*"))
    if pickled:
        raise bad_adapter(
            name,
            f"holds only pickled weights ({pickled[0]}), which can run code when loaded: save it "
            "with safe_serialization",
        )
    raise bad_adapter(name, f"has no {WEIGHTS} in '{folder}'")


def _check_kind(name: str, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise bad_adapter(name, f"is of the kind '{kind}': only LORA can be used")
    start = config.get("init_lora_weights")
    if start not in _STARTS:
        raise bad_adapter(
            name,
            f"began with init_lora_weights={start!r}, which changes the model's own weights: "
            "convert it to plain LoRA, as PEFT's documentation tells",
        )
    if config.get("bias") not in (None, "none"):
        raise bad_adapter(name, f"has bias={config['bias']!r}: only 'none' can be used")
    known = _NO_MATTER | _READ | {"init_lora_weights"}
    # What prepares a start that was refused above is left over where the start is plain.
    known |= {"loftq_config", "corda_config", "lora_ga_config"}
    for field, value in config.items():
        if field not in known and value not in (None, False, "", 0) and value not in ([], {}):
            raise bad_adapter(name, f"has {field}, which can't be used: only plain LoRA can")


def _rank(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"a rank is {value!r}")
    return value


def _object(config: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = config.get(field) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{field} is no object")
    return found


def _key(patterns: Mapping[str, Any], layer: str) -> str:
    """The pattern that PEFT would take for the layer, the first one that matches its end."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", layer)), layer)
