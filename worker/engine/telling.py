"""Giving an answer to whoever asked."""

from __future__ import annotations

import logging

from worker.engine.protocol import OnDone, Outcome

_log = logging.getLogger(__name__)


def tell(on_done: OnDone, request_id: str, outcome: Outcome) -> None:
    """Never raises: a caller's error must not stop the thread that answers the others."""
    try:
        on_done(request_id, outcome)
    except Exception:  # noqa: BLE001 - whatever it is, it is not ours to die of
        _log.exception("a caller failed on its answer", extra={"action": "answer_failed"})
