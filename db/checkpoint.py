"""Digests of a model's files, so that anybody can tell whether two workers loaded the same.

    cd FOLDER && sha256sum model.safetensors | sha256sum

A digest is SHA-256 over the lines that sha256sum prints for the files, in the order of their
names. Every byte counts, which takes a second a gigabyte: what a file came to is remembered until
its size, its times or its place on the disk change.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_INDEX = "model.safetensors.index.json"

#: What tokenizers and chat templates are read from.
_TOKENIZER_FILES = (
    "added_tokens.json",
    "additional_chat_templates/*.jinja",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)

#: What tells a file's content from another: device, inode, bytes, and when it was written and
#: when anything of it was changed (nanoseconds), the last of which nobody can set.
_Stamp = tuple[int, int, int, int, int]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that are loaded, sorted by name; [] where there are none.

    Those that the index names, else `model.safetensors`, else all; `folder` itself where it is a
    model in one file. Raises OSError or ValueError where the index can't be read.
    """
    if folder.is_file():
        return [folder]
    index = folder / _INDEX
    if index.is_file():
        named = json.loads(index.read_text("utf-8")).get("weight_map", {})
        return [folder / name for name in sorted(set(map(str, named.values())))]
    single = folder / "model.safetensors"
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def tokenizer_digest(folder: Path) -> str | None:
    """Of tokenizer and chat template together; None where no file of theirs is there.

    A model in one file has them in it: the digest of the weights is of all.
    """
    if folder.is_file():
        return None
    files = {path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)}
    return files_digest(folder, sorted(files)) if files else None


def folder_digest(folder: Path) -> str:
    """12 hex digits that change with the config, or with any tensor's name, shape or place.

    It reads only the headers of the safetensors files, so it is instant on any size; weights
    overwritten in place with the same layout go unnoticed but for the file's length.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        if path.name in ("config.json", "generation_config.json"):
            digest.update(path.read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{path.stat().st_size}".encode())
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            digest.update(file.read(length))
    return digest.hexdigest()[:12]


def files_digest(folder: Path, files: Sequence[Path]) -> str:
    """Of these files of a folder together. Raises OSError."""
    return _digest(folder, files, _sha256)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of a model that was loaded this moment."""

    folder: Path
    files: Sequence[Path]
    stamps: Sequence[_Stamp]

    @classmethod
    def of(cls, folder: Path) -> Weights:
        """Raises OSError or ValueError where they can't be told."""
        files = weight_files(folder)
        place = folder.parent if folder.is_file() else folder
        return cls(place, files, list(map(_stamp, files)))

    @property
    def changed_at(self) -> float:
        """When anything of any of them was last changed (unix seconds)."""
        return max((max(stamp[3:]) for stamp in self.stamps), default=0) / 1e9

    def digest(self, memory: Path | None = None) -> str | None:
        """Reads all of them, but for those that the folder `memory` remembers.

        None where there are none, or where they were changed since: then nobody knows what the
        model has loaded. Raises OSError.
        """
        if not self.files:
            return None
        found = _digest(self.folder, self.files, lambda file: _remembered(file, memory))
        return found if list(map(_stamp, self.files)) == self.stamps else None


def _digest(folder: Path, files: Sequence[Path], hashed: Callable[[Path], str]) -> str:
    lines = [f"{hashed(file)}  {file.relative_to(folder)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _remembered(file: Path, memory: Path | None) -> str:
    """The file's SHA-256, from `memory` or into it; one that can't be written is done without."""
    if memory is None:
        return _sha256(file)
    stamp = _stamp(file)
    note = memory / hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]
    with suppress(OSError):
        return note.read_text("ascii")
    found = _sha256(file)
    if _stamp(file) == stamp:
        with suppress(OSError):
            memory.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = note.with_suffix(f".{secrets.token_hex(4)}")
            part.write_text(found, "ascii")
            part.replace(note)
    return found
