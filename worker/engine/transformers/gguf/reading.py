"""gguf's own reader, which takes minutes over a vocabulary, made to step over it.

transformers reads a file's metadata several times while it loads, each time with all of the
vocabulary, of which it wants the length. The vocabulary itself it reads in another way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

#: Items from which an array is a vocabulary, or its merges.
_LONG = 4096
_ARRAY, _TEXT = 9, 8
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@contextmanager
def quick_reader() -> Iterator[None]:
    """Until it is left, gguf's reader gives zeros for the items of long arrays."""
    import gguf

    own = gguf.GGUFReader
    if hasattr(own, "_get_field_parts"):  # else another release, which reads in its own time
        gguf.GGUFReader = _quick(own)
    try:
        yield
    finally:
        gguf.GGUFReader = own


def _quick(base: Any) -> Any:
    class QuickReader(base):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            """Bytes of a value, its parts, which of them are its items, and the types."""
            from gguf import GGUFValueType

            long = _long_array(self.data, int(orig_offs)) if raw_type == _ARRAY else None
            if long is None:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, count, size = long
            item = np.zeros(0 if kind == _TEXT else 1, np.uint8)
            types = [GGUFValueType.ARRAY, GGUFValueType(kind)]
            return size, [item], [0] * count, types

    return QuickReader


def _long_array(data: Any, start: int) -> tuple[int, int, int] | None:
    """Type and number of the items of a long array that begins there, and its bytes in all."""
    kind, count = struct.unpack_from("<IQ", data, start)
    if count < _LONG:
        return None
    at = start + 12
    if kind in _WIDTHS:
        return kind, count, 12 + count * _WIDTHS[kind]
    if kind != _TEXT:
        return None
    for _ in range(count):
        at += 8 + struct.unpack_from("<Q", data, at)[0]
    return kind, count, at - start
