"""Files of prompts that can't be used, and what their user must be told."""

from __future__ import annotations

import gzip
import io
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq


def _parquet(**columns: list[object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


class BadFile(NamedTuple):
    """A file, what is asked of it, and what the one line must say."""

    name: str
    content: bytes
    options: tuple[str, ...]
    says: tuple[str, ...]


_LINES = b'{"prompt": "%d"}\n'
_GOOD = b"".join(_LINES % number for number in range(1, 7))
_PACKED = gzip.compress(_GOOD * 500)

FILES = {
    "empty": BadFile("a.jsonl", b"", (), ("a.jsonl: is empty", "give it at least one request")),
    "blank": BadFile("a.txt", b"\n \n", (), ("a.txt: is empty",)),
    "binary": BadFile("a.jsonl", _GOOD + b"\x00\x01", (), ("a.jsonl:7: binary data", "UTF-8")),
    "not utf-8": BadFile("a.txt", b"fine\ncaf\xe9\n", (), ("a.txt:2: not UTF-8", "save the file")),
    "utf-16": BadFile("a.txt", "hello".encode("utf-16"), (), ("a.txt:1: this is UTF-16", "UTF-8")),
    "truncated": BadFile(
        "a.jsonl.gz", _PACKED[:-20], (), ("a.jsonl.gz: ends early", "compress it again")
    ),
    "not gzip": BadFile("a.txt.gz", b"plain text\n", (), ("a.txt.gz: is damaged", "copy")),
    "line 7": BadFile(
        "a.jsonl", _GOOD + b'{"prompt": \n', (), ("a.jsonl:7: broken JSON at column", "one whole")
    ),
    "array": BadFile("a.jsonl", b'[{"prompt": "a"}]', (), ("a.jsonl:1: this is one JSON array",)),
    "twins": BadFile(
        "a.jsonl",
        b'{"prompt": "a", "custom_id": "x"}\n' * 2,
        (),
        ("a.jsonl:2: custom_id 'x'", "that of prompt 1", "make it unique"),
    ),
    "no prompt": BadFile("a.jsonl", b'{"prompt": ""}', (), ("a.jsonl:1: the prompt is empty",)),
    "a number": BadFile("a.jsonl", b'{"prompt": 7}', (), ("a.jsonl:1: the prompt is a number",)),
    "null": BadFile("a.jsonl", b'{"prompt": null}', (), ("a.jsonl:1: the prompt is null",)),
    "10 MB": BadFile(
        "a.jsonl",
        b'{"prompt": "%s"}' % (b"x" * 10_000_000),
        (),
        ("a.jsonl:1: the prompt has 10,000,000 bytes", "PROMPTMILL_MAX_PROMPT_BYTES"),
    ),
    "surrogate": BadFile(
        "a.jsonl", rb'{"prompt": "a \ud800 b"}', (), ("a.jsonl:1: a lone surrogate at column",)
    ),
    "unknown key": BadFile(
        "a.jsonl", b'{"promt": "a"}', (), ("a.jsonl:1: unknown key 'promt'", "mean 'prompt'")
    ),
    "line parameter": BadFile(
        "a.jsonl",
        b'{"prompt": "a", "temperature": -1}',
        (),
        ("a.jsonl:1: parameter 'temperature'", "not -1"),
    ),
    "role": BadFile(
        "a.jsonl",
        b'{"messages": [{"role": "user", "content": "a"}, {"role": "boss", "content": "b"}]}',
        (),
        ("a.jsonl:1: messages[1] has the role 'boss'", "use one of"),
    ),
    "foreign model": BadFile(
        "a.jsonl", b'{"prompt": "a", "model": "other"}', (), ("a.jsonl:1: asks for model 'other'",)
    ),
    "column": BadFile(
        "a.csv",
        b"text,label\na,b\n",
        ("--template", "Say {txt}"),
        ("a.csv: no column 'txt' for the template", "'text', 'label'"),
    ),
    "csv without prompt": BadFile(
        "a.csv", b"text\na\n", (), ("a.csv: no column 'prompt'", "rename")
    ),
    "csv quotes": BadFile("a.csv", b'prompt\n"a\n', (), ("a.csv:", "broken CSV", "quote")),
    "csv cells": BadFile("a.csv", b"prompt\na,b\n", (), ("a.csv: record 1: has 2 cells",)),
    "text as parquet": BadFile(
        "a.parquet", b"just some text\n", (), ("a.parquet: not a parquet file", "suffix")
    ),
    "half a parquet": BadFile(
        "a.parquet", _parquet(prompt=["a"] * 50)[:-9], (), ("a.parquet: ends early",)
    ),
    "parquet type": BadFile(
        "a.parquet", _parquet(prompt=[1, 2]), (), ("a.parquet: the column 'prompt' holds int64",)
    ),
    "template": BadFile(
        "a.csv", b"text\na\n", ("--template", "Say it"), ("template 'Say it'", "names no column")
    ),
    "parameter": BadFile(
        "a.txt", b"a\n", ("-p", "temprature=1"), ("'temprature'", "did you mean 'temperature'?")
    ),
    "range": BadFile("a.txt", b"a\n", ("-p", "top_p=2"), ("parameter 'top_p'", "not 2")),
    "both limits": BadFile(
        "a.txt",
        b"a\n",
        ("-p", "max_tokens=1", "-p", "max_length=2"),
        ("give max_tokens or max_length, not both",),
    ),
    "twice": BadFile(
        "a.txt", b"a\n", ("-p", "max_tokens=1", "-p", "max_tokens=2"), ("'max_tokens'", "twice")
    ),
    "no equals sign": BadFile("a.txt", b"a\n", ("-p", "seed"), ("'seed' is not key=value",)),
    "metadata": BadFile(
        "a.txt", b"a\n", ("--metadata", f"{'k' * 65}=v"), ("metadata 'kkkk", "64 characters")
    ),
}
