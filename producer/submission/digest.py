"""When two submissions are the same."""

from __future__ import annotations

import hashlib

import orjson

from producer.reading import BadLine, Line
from producer.submission.order import Order


class Digest:
    """The identity of a submission's content: model, parameters and every request, in order."""

    def __init__(self, order: Order) -> None:
        self._hash = hashlib.sha256()
        self._add({"model": order.model, "params": dict(order.params)})

    def add(self, line: Line | BadLine) -> None:
        if isinstance(line, Line):
            self._add([line.custom_id, line.request])
        else:
            self._add([line.custom_id, {"invalid": line.reason}])

    def _add(self, value: object) -> None:
        self._hash.update(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        self._hash.update(b"\n")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
