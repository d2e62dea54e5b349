"""What may come out of Redis: a chunk's id, or a harmless question of Celery's.

Whoever can write to Redis can put anything there, and a message's headers steer Celery: other
tasks, call-backs, delays, compression. So nothing of a message is kept but what is checked here;
the rest is written anew.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from typing import Any, Final

#: The only task there is: work on one chunk. Its message is the chunk's id and nothing else.
TASK: Final = "promptmill.chunk"

#: What a database takes for an id.
LARGEST_ID: Final = 2**63 - 1

#: Characters of a body; ours have about a hundred, an answer of Celery's some thousand.
_LONGEST = 64 * 1024

#: Questions that Celery's workers ask each other, or a person asks them. Not one that stops a
#: worker, or changes what it does.
_QUESTIONS = frozenset({"active", "active_queues", "hello", "ping", "registered", "reserved"})

#: What the names of the queues of questions and answers end with.
_CONTROL = ".celery.pidbox"


class Refused(ValueError):
    """A message that is none of ours; says why, and nothing of its content."""


def checked(raw: object, queue: str) -> dict[str, Any]:
    """The message, made anew of what it may say. Raises Refused."""
    try:
        return _question(raw, queue) if queue.endswith(_CONTROL) else _chunk(raw, queue)
    except (binascii.Error, UnicodeError, json.JSONDecodeError, RecursionError):
        raise Refused("it is not JSON") from None


def chunk_message(chunk: int, queue: str, priority: int) -> dict[str, Any]:
    """The message for a chunk, as Celery would make it. `priority`: 0 … 9, lower is sooner."""
    name = str(uuid.uuid4())
    return _message(
        [[chunk], {}, {}],
        queue,
        headers={"lang": "py", "task": TASK, "id": name, "root_id": name, "parent_id": None},
        priority=priority,
    )


def is_held(item: bytes | None) -> bool:
    """Whether this is what Redis holds of a message that nobody has acknowledged yet."""
    try:
        message, exchange, key = json.loads(item or b"")
        if not isinstance(key, str) or exchange != key:
            return False
        checked(message, key)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def is_chunk(value: object) -> bool:
    """Whether this can be a chunk's id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_ID


def _chunk(raw: object, queue: str) -> dict[str, Any]:
    headers, properties, body = _parts(raw)
    if headers.get("task") != TASK:
        raise Refused("it names another task")
    if not isinstance(body, list) or len(body) != 3:
        raise Refused("it is no task's message")
    arguments, named, embedded = body
    if not isinstance(arguments, list) or len(arguments) != 1 or not is_chunk(arguments[0]):
        raise Refused("it is not one chunk's id")
    if named != {} or not isinstance(embedded, dict) or any(embedded.values()):
        raise Refused("it says more than a chunk's id")
    priority = properties.get("priority")
    if not isinstance(priority, int) or not 0 <= priority <= 9:
        priority = 0
    return chunk_message(arguments[0], queue, priority)


def _question(raw: object, queue: str) -> dict[str, Any]:
    headers, _, body = _parts(raw)
    if not isinstance(body, dict):
        raise Refused("it is no question")
    answer = queue.endswith(f".reply{_CONTROL}")
    method = body.get("method")
    if not answer and (not isinstance(method, str) or method not in _QUESTIONS):
        raise Refused("it is a command, which promptmill takes from nobody")
    ticket = headers.get("ticket")
    return _message(body, queue, headers={"ticket": ticket} if isinstance(ticket, str) else {})


def _parts(raw: object) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Headers, properties and the decoded body."""
    if not isinstance(raw, dict):
        raise Refused("it is no message")
    headers, properties, body = raw.get("headers"), raw.get("properties"), raw.get("body")
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise Refused("it is no message")
    if raw.get("content-type") != "application/json" or headers.get("compression"):
        raise Refused("it is not plain JSON")
    if not isinstance(body, str) or properties.get("body_encoding") != "base64":
        raise Refused("its body is not in base64")
    if len(body) > _LONGEST:
        raise Refused("it is too long")
    try:
        return headers, properties, json.loads(base64.b64decode(body, validate=True))
    except ValueError as error:  # a number of thousands of digits, besides the above
        raise Refused("it is not JSON") from error


def _message(body: object, queue: str, *, headers: dict[str, Any], **more: Any) -> dict[str, Any]:
    """In kombu's form. The tag is new: of two messages with one tag, one would be forgotten."""
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": queue, "routing_key": queue},
            "delivery_mode": 2,
            "delivery_tag": str(uuid.uuid4()),
            **more,
        },
    }
