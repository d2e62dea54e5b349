"""JSON Lines: an object a sample.

Written a page at a time: a column becomes JSON in one go, what is the same in the whole page
becomes part of a template, and a record is the template with its own cells.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import orjson

from db.exact_json import dumps
from db.pages import MadePage, Page
from db.records import Result, perplexity
from db.vectors import Vector
from producer.export.fields import duration, iso, request_of

#: What of a request is written.
_ASKED = ("prompt", "messages", "tools", "completion")

#: What orjson puts between the elements of a list, and in none of them: a newline within a text
#: is written as `\n`.
_BETWEEN = b",\n  "
_LIST = slice(len(b"[\n  "), -len(b"\n]"))

_Cells = Sequence[bytes]


def lines(pages: Iterable[Page]) -> Generator[tuple[int, bytes]]:
    """How many records, and they."""
    for page in pages:
        yield len(page), page_lines(page)


def document(result: Result) -> dict[str, Any]:
    """The record of one result, as a program reads it."""
    read: dict[str, Any] = orjson.loads(page_lines(MadePage([result])))
    return read


def page_lines(page: Page) -> bytes:
    """The keys are promises to programs; a score's, an embedding's, `reasoning`, `tool_calls`,
    `logprobs` and the request's only where there are any.
    """
    # All at once: a field by its name takes longer.
    (
        id_, _, line, custom_id, state, sample, text, finish_reason, prompt_tokens,
        completion_tokens, logprobs, model, revision, weights, tokenizer, adapter, engine,
        engine_version, backend, dtype, device, hardware, worker, seed, params, attempts,
        started_at, finished_at, error_code, error_message, logprob, embedding, reasoning,
        tool_calls, request, _,
    ) = page.columns  # fmt: skip
    template, cells = b"", []
    for opening, column in (
        (b'{"id":', _json(id_)),
        (b',"custom_id":', _json_or_same(custom_id)),
        (b',"line":', _json(line)),
        (b',"state":', _json_or_same(state)),
        (b',"sample":', _json_or_same(sample)),
        (b',"text":', _json_or_same(text)),
        (b',"finish_reason":', _json_or_same(finish_reason)),
        (b',"prompt_tokens":', _json_or_same(prompt_tokens)),
        (b',"completion_tokens":', _json_or_same(completion_tokens)),
        (b',"model":', _json_or_same(model)),
        (b',"revision":', _json_or_same(revision)),
        (b',"weights":', _json_or_same(weights)),
        (b',"tokenizer":', _json_or_same(tokenizer)),
        (b',"adapter":', _json_or_same(adapter)),
        (b',"engine":', _json_or_same(engine)),
        (b',"engine_version":', _json_or_same(engine_version)),
        (b',"backend":', _json_or_same(backend)),
        (b',"dtype":', _json_or_same(dtype)),
        (b',"device":', _json_or_same(device)),
        (b',"hardware":', _json_or_same(hardware)),
        (b',"worker":', _json_or_same(worker)),
        (b',"seed":', _json_or_same(seed)),
        (b',"params":', _stored(params)),
        (b',"attempts":', _json_or_same(attempts)),
        (b',"started_at":', _json_or_same([iso(one) for one in started_at])),
        (b',"finished_at":', _json_or_same([iso(one) for one in finished_at])),
        (b',"seconds":', _json(list(map(duration, started_at, finished_at)))),  # 0.0 is -0.0
        (b',"error":', _errors(error_code, error_message)),
        (b"", _scores(logprob, completion_tokens)),
        (b"", _embeddings(embedding)),
        (b"", _where_any(b',"reasoning":', reasoning, orjson.dumps)),
        (b"", _where_any(b',"tool_calls":', tool_calls, str.encode)),  # stored as JSON
        (b"", _where_any(b',"logprobs":', logprobs, str.encode)),  # stored as JSON
        (b"", _requests(request)),
    ):
        if isinstance(column, bytes):
            template += opening + column.replace(b"%", b"%%")
        else:
            template += opening + b"%b"
            cells.append(column)
    template += b"}\n"
    return b"".join(map(template.__mod__, zip(*cells, strict=True)))


def _json(column: Sequence[Any]) -> _Cells:
    """The JSON of each."""
    return orjson.dumps(column, option=orjson.OPT_INDENT_2)[_LIST].split(_BETWEEN)


def _json_or_same(column: Sequence[Any]) -> bytes | _Cells:
    """The JSON of each, or that of all where they are the same."""
    first = column[0]
    return orjson.dumps(first) if column.count(first) == len(column) else _json(column)


def _none(column: Sequence[Any]) -> bool:
    return column.count(None) == len(column)


def _errors(codes: Sequence[str | None], messages: Sequence[str | None]) -> bytes | _Cells:
    if _none(codes):
        return b"null"
    return [
        orjson.dumps(code and {"code": code, "message": message})
        for code, message in zip(codes, messages, strict=True)
    ]


def _stored(column: Sequence[str | None]) -> bytes | _Cells:
    """Stored as JSON: not parsed again."""
    first = column[0]
    if column.count(first) == len(column):
        return b"null" if first is None else first.encode()
    return [b"null" if one is None else one.encode() for one in column]


def _scores(logprobs: Sequence[float | None], tokens: Sequence[int | None]) -> bytes | _Cells:
    if _none(logprobs):
        return b""
    return [
        b""
        if logprob is None
        else b',"logprob":%b,"perplexity":%b'
        % (orjson.dumps(logprob), orjson.dumps(perplexity(logprob, count)))
        for logprob, count in zip(logprobs, tokens, strict=True)
    ]


def _embeddings(column: Sequence[Vector | None]) -> bytes | _Cells:
    if _none(column):
        return b""
    return [b"" if one is None else b',"embedding":' + orjson.dumps(one.tolist()) for one in column]


def _where_any(
    opening: bytes, column: Sequence[str | None], written: Callable[[str], bytes]
) -> bytes | _Cells:
    """Nothing where there is none."""
    if _none(column):
        return b""
    return [b"" if one is None else opening + written(one) for one in column]


def _requests(column: Sequence[str | None]) -> bytes | _Cells:
    return b"" if _none(column) else [_asked(request_of(one)) for one in column]


def _asked(request: dict[str, Any]) -> bytes:
    return b"".join(
        b',"%b":%b' % (key.encode(), dumps(request[key])) for key in _ASKED if key in request
    )
