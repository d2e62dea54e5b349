"""Compress a stream of bytes as its file's name asks."""

from __future__ import annotations

import zlib
from typing import Protocol

from producer.reading.streams import Compression

_GZIP = zlib.MAX_WBITS | 16


class Packer(Protocol):
    """Bytes in, packed bytes out, as they come; `flush` gives the last ones."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def packer(compression: Compression | None) -> Packer:
    if compression == "gz":
        return zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    if compression == "zst":
        import zstandard

        return zstandard.ZstdCompressor(level=3).compressobj()
    return _Plain()
