"""Ids: how a batch, a job and a queue are called."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket

from db.errors import NotFoundError

# No vowels and no look-alikes: an id is read aloud, typed and never spells a word.
_ALPHABET = "23456789bcdfghjkmnpqrstvwxz"
_UID = re.compile(r"b[2-9b-df-hj-kmnp-tv-xz]{11}\Z")


def new_uid() -> str:
    """A fresh batch id: 52 random bits."""
    return "b" + "".join(secrets.choice(_ALPHABET) for _ in range(11))


def job_id(uid: str, line: int) -> str:
    return f"{uid}-{line}"


def parse_id(text: str) -> tuple[str, int | None]:
    """`BATCH` or `BATCH-42` as batch id and line. Raises NotFoundError for any other text."""
    uid, dash, line = text.strip().partition("-")
    if _UID.match(uid) is None or (dash and not re.fullmatch(r"[1-9][0-9]{0,9}", line)):
        raise NotFoundError(
            f"'{text[:40]}' is no batch or job id: a batch is like bk3v9xq2h7mz, its job 42 is "
            "bk3v9xq2h7mz-42; 'promptmill list' shows yours"
        )
    return uid, int(line) if dash else None


def new_mark() -> str:
    """What sets a worker apart from others that have, or had, its pid: other containers do."""
    return secrets.token_hex(3)


def worker_name(pid: int, mark: str) -> str:
    """The name of a worker process of this host."""
    return f"{socket.gethostname()}:{pid}:{mark}"


def queue_name(model: str) -> str:
    """The queue that a model's chunks wait in: readable, and distinct for distinct models."""
    tail = "/".join(model.rstrip("/").split("/")[-2:]) if not model.startswith("/") else model
    slug = re.sub(r"[^A-Za-z0-9]+", "-", tail).strip("-").lower()[-60:].strip("-")
    return f"promptmill.{slug}.{hashlib.sha256(model.encode()).hexdigest()[:8]}"
