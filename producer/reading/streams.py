"""Bytes in bounded chunks: reading, looking ahead, decompressing, spooling to disk."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import IO, Literal, NoReturn

from db.errors import InputError

Compression = Literal["gz", "zst"]

#: Bytes that one read asks for, and that one decompression step gives, at most.
CHUNK = 1 << 20

#: Zstandard's API bounds what it takes, not what it gives; 4 KiB of input can't become more
#: than 128 MiB (a block of 128 KiB may be packed in 4 bytes), and mostly stays below 64 KiB.
_ZSTD_INPUT = 1 << 12

#: Bytes at most that `peek` looks through for a first sign of what the stream holds.
_HEAD = 1 << 16


class BrokenStream(Exception):
    """Compressed data that is cut off or damaged."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self._what = what
        self._why = why

    def in_file(self, name: str, after_line: int | None = None) -> InputError:
        """The same for the user of file `name`, where lines are counted with the last good one."""
        where = "" if after_line is None else f" after line {after_line}"
        return InputError(f"{name}: {self._what}{where}: {self._why}")


def chunks(raw: IO[bytes]) -> Iterator[bytes]:
    """The stream in pieces of at most CHUNK bytes, as soon as they come."""
    read = getattr(raw, "read1", raw.read)
    while chunk := read(CHUNK):
        yield chunk


def peek(stream: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and the whole stream again.

    The head is empty only where the stream is, and reaches past leading white space (up to
    64 KiB of it). A stream that breaks meanwhile breaks again at the same place.
    """
    head = b""
    try:
        while len(head) < _HEAD and len(head.lstrip()) < 4:
            head += next(stream)
    except StopIteration:
        return head, iter((head,) if head else ())
    except BrokenStream as error:
        return head, chain((head,), map(_again, (error,)))
    return head, chain((head,), stream)


def _again(error: BrokenStream) -> NoReturn:
    raise error


def compression_of(head: bytes) -> Compression | None:
    """What packed the stream that starts with `head`, told by its magic number."""
    if head.startswith(b"\x1f\x8b"):
        return "gz"
    return "zst" if head.startswith(b"\x28\xb5\x2f\xfd") else None


def decompress(stream: Iterator[bytes], compression: Compression) -> Iterator[bytes]:
    """The unpacked bytes, in pieces. Raises BrokenStream where the data is cut off or damaged."""
    return _gunzip(stream) if compression == "gz" else _unzstd(stream)


def _gunzip(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Every member of a gzip stream; zeros between and behind members are padding."""
    decoder = None
    try:
        for chunk in stream:
            rest = chunk
            while rest:
                if decoder is None:
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
                if data := decoder.decompress(rest, CHUNK):
                    yield data
                rest = decoder.unconsumed_tail
                if decoder.eof:
                    rest, decoder = decoder.unused_data, None
    except zlib.error as error:
        raise _damaged("gzip", error) from None
    if decoder is not None:
        raise _cut_off("gzip")


def _unzstd(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Every frame of a Zstandard stream."""
    import zstandard

    context = zstandard.ZstdDecompressor()
    decoder = None
    try:
        for chunk in stream:
            for start in range(0, len(chunk), _ZSTD_INPUT):
                rest = chunk[start : start + _ZSTD_INPUT]
                while rest:
                    decoder = decoder or context.decompressobj(write_size=_ZSTD_INPUT << 4)
                    if data := decoder.decompress(rest):
                        yield data
                    rest = b""
                    if decoder.eof:
                        rest, decoder = decoder.unused_data, None
    except zstandard.ZstdError as error:
        raise _damaged("zstd", error) from None
    if decoder is not None:
        raise _cut_off("zstd")


def _cut_off(name: str) -> BrokenStream:
    return BrokenStream("ends early", f"the {name} data is cut off, copy or compress it again")


def _damaged(name: str, error: Exception) -> BrokenStream:
    return BrokenStream(
        "is damaged", f"this is no sound {name} data ({error}), copy or compress it again"
    )


def spool(stream: Iterator[bytes]) -> IO[bytes]:
    """The stream as a seekable file: on disk, unnamed, and gone once closed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        for piece in stream:
            file.write(piece)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file
