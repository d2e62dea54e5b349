"""When two submissions are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from db.exact_json import dumps
from db.input_columns import InputColumn, stored_header
from db.modes import Mode
from db.queries.jobs import NewJob
from producer.submission.order import Order


class Digest:
    """The identity of a submission's content.

    That is model, mode, variant, parameters, every request, in order, and the input columns.
    """

    def __init__(self, order: Order) -> None:
        about: dict[str, Any] = {"model": order.model, "params": dict(order.params)}
        if order.mode is not Mode.GENERATE:  # digests from before there were modes stay true
            about["mode"] = order.mode
        if order.variant:
            about["variant"] = order.variant
        self._hash = hashlib.sha256(dumps(about, sort_keys=True))

    def add(self, jobs: Sequence[NewJob]) -> None:
        """These come next. No text of a job has a NUL: what lies between two is one field."""
        if [job.columns for job in jobs].count(None) == len(jobs):
            # Digests from before there were columns stay true.
            fields = [
                part for job in jobs for part in (job.custom_id or "", job.request, job.error or "")
            ]
        else:
            fields = [part for job in jobs for part in _with_columns(job)]
        self._hash.update("\0".join(fields).encode())
        self._hash.update(b"\0")

    def hexdigest(self, columns: Sequence[InputColumn] = ()) -> str:
        """After the last jobs; `columns` is the header of all."""
        whole = self._hash.copy()
        if columns:
            whole.update(dumps(stored_header(columns)))
        return whole.hexdigest()


def _with_columns(job: NewJob) -> tuple[str, ...]:
    fields = (job.custom_id or "", job.request, job.error or "")
    return fields if job.columns is None else (*fields, f"columns {job.columns}")
