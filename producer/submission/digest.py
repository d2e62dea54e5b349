"""When two submissions are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import orjson

from db.modes import Mode
from db.queries.jobs import NewJob
from producer.submission.order import Order


class Digest:
    """The identity of a submission's content: model, mode, parameters, every request, in order."""

    def __init__(self, order: Order) -> None:
        about: dict[str, Any] = {"model": order.model, "params": dict(order.params)}
        if order.mode is not Mode.GENERATE:  # digests from before there were modes stay true
            about["mode"] = order.mode
        self._hash = hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS))

    def add(self, jobs: Iterable[NewJob]) -> None:
        """These come next. No text of a job has a NUL: what lies between two is one field."""
        fields = [
            part for job in jobs for part in (job.custom_id or "", job.request, job.error or "")
        ]
        self._hash.update("\0".join(fields).encode())
        self._hash.update(b"\0")

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
