"""GGUF files, as far as their names and headers tell: what a producer may know without a library.

    GGUF | version | counts | metadata | tensor table | padding | tensors

Everything up to the padding is the header. A file may come from a stranger: no length in it is
believed before the file is known to have that many bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIX = ".gguf"

#: A part of a model that was cut into several files: `model-00001-of-00003.gguf`.
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)

_VERSIONS = (2, 3)
#: The types of metadata that have a fixed size; besides them there are 8 (text) and 9 (array).
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9

#: Numbers in a block and its bytes, by ggml's type; a type that is not here has no known size.
BLOCKS = {
    # Single numbers.
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    # Q4_0 … Q8_1, IQ4_NL, MXFP4 and what came after.
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    20: (32, 18),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
    # Q2_K … Q8_K, the other IQs, TQ.
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    34: (256, 54),
    35: (256, 66),
}

#: Dimensions of a tensor, at most: ggml's own limit.
_DIMENSIONS = 4
#: Where tensors begin, and each of them, unless the file says otherwise.
_ALIGNMENT = 32


class BrokenGguf(ValueError):
    """It is no GGUF file, or not all of one: says why, for people, without naming the file."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One line of the tensor table."""

    name: str
    shape: tuple[int, ...]
    #: ggml's number of the type.
    kind: int
    #: Where its numbers begin: bytes from the end of the header, padding included.
    offset: int

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """0 for a type of no known size."""
        block, size = BLOCKS.get(self.kind, (1, 0))
        return self.elements // block * size


@dataclass(frozen=True, slots=True)
class Header:
    """What the file says of itself."""

    #: Numbers and texts by their keys; of an array its length, unless it was asked for.
    metadata: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    #: Where the tensors begin: bytes from the front of the file.
    data_start: int
    #: 12 hex digits of all of the header and of the file's size.
    digest: str

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture; empty where the file has none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def parts(self) -> int:
        """Files that the model was cut into."""
        return _positive(self.metadata.get("split.count"), 1)


def is_gguf(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def hub_file(model: str) -> tuple[str, str] | None:
    """`org/repo:file.gguf` as hub id and file; None for any other name."""
    repository, colon, file = model.partition(":")
    return (repository, file) if colon and repository and is_gguf(file) else None


def files_in(folder: Path) -> list[Path]:
    """The models among a folder's GGUF files, by name: `mmproj` files only see for another."""
    found = [file for file in folder.iterdir() if is_gguf(file.name)]
    return sorted(file for file in found if not file.name.lower().startswith("mmproj"))


def local_file(path: Path) -> Path | None:
    """The file itself, or the only one of a folder that has no safetensors; else None."""
    if path.is_file():
        return path if is_gguf(path.name) else None
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    found = files_in(path)
    return found[0] if len(found) == 1 else None


def part(name: str) -> tuple[int, int] | None:
    """Which part of how many a file is by its name; None: a whole one."""
    found = _PART.search(name)
    return (int(found[1]), int(found[2])) if found else None


def read_header(file: Path, arrays: Collection[str] = ()) -> Header:
    """The header, and whether the tensors are all there; `arrays`: keys of arrays to read too.

    Reads no tensor. Raises OSError, and BrokenGguf for anything but a whole GGUF file.
    """
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        if not size:
            raise BrokenGguf("it is empty")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content, size).header(arrays)


class _Reader:
    """Reads from front to back."""

    def __init__(self, content: mmap.mmap, size: int) -> None:
        self._content = content
        self._size = size
        self._at = 0

    def header(self, arrays: Collection[str]) -> Header:
        if self._take(4) != b"GGUF":
            raise BrokenGguf("it does not begin with GGUF, so it is no GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise BrokenGguf(f"it is of GGUF version {version}: 2 and 3 can be read")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._text()
            metadata[key] = self._value(self._number("<I"), keep=key in arrays)
        table = [self._tensor() for _ in range(tensors)]
        alignment = _positive(metadata.get("general.alignment"), _ALIGNMENT)
        start = -(-self._at // alignment) * alignment
        needed = max((start + one.offset + one.bytes for one in table), default=start)
        if self._size < needed:
            raise BrokenGguf(
                f"it has {self._size:,} bytes and its tensors need {needed:,}: it was cut off"
            )
        digest = hashlib.sha256(self._content[: self._at])
        digest.update(str(self._size).encode())
        return Header(metadata, tuple(table), start, digest.hexdigest()[:12])

    def _tensor(self) -> Tensor:
        name = self._text()
        dimensions = self._number("<I")
        if dimensions > _DIMENSIONS:
            raise BrokenGguf(f"its tensor '{name[:60]}' has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        return Tensor(name, shape, self._number("<I"), self._number("<Q"))

    def _value(self, kind: int, *, keep: bool) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _TEXT:
            return self._text()
        if kind != _ARRAY:
            raise BrokenGguf(f"its metadata has a value of type {kind}, which there is not")
        inner, count = self._number("<I"), self._number("<Q")
        if inner not in _SCALARS and inner != _TEXT:
            raise BrokenGguf(f"its metadata has an array of type {inner}, which there is not")
        if keep:
            return [self._value(inner, keep=False) for _ in range(count)]
        if inner in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[inner]))
        else:
            for _ in range(count):
                self._skip(self._number("<Q"))
        return count

    def _text(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        start = self._at
        self._skip(count)
        return self._content[start : self._at]

    def _skip(self, count: int) -> None:
        if count > self._size - self._at:
            raise BrokenGguf("it ends in the middle of its header: it was cut off")
        self._at += count


def _positive(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default
