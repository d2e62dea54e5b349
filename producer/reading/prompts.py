"""A prompt as OpenAI's completions and embeddings take it, in the form in which it is stored.

    "text"                          {"prompt": "text"}
    [5, 6, 7]                       {"prompt": [5, 6, 7]}               token ids
    ["one", "two"]                  {"prompts": ["one", "two"]}
    [[5, 6], [7, 8]]                {"prompts": [[5, 6], [7, 8]]}

A list of one is that one. Several are one job: its samples follow each other in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from producer.reading.texts import Refusal, check_prompt, check_size, kind

#: Prompts of one request, and samples of all of them together, at most: as many as OpenAI's
#: embeddings take.
MAX_PROMPTS = 2048

#: Ids are at most this (32 bits).
_LARGEST_ID = 2**31 - 1

#: What an id counts for in the limit on a prompt, in bytes: about what it stands for.
_BYTES_PER_ID = 4


def stored_prompt(prompt: object, limit: int) -> dict[str, Any]:
    """Under `prompt` or `prompts`; Refusal. `limit` bounds all of it, in bytes of UTF-8."""
    if not isinstance(prompt, list | tuple):
        return {"prompt": check_prompt(prompt, limit)}
    if not prompt:
        raise Refusal("the prompt is an empty list: give it a text or token ids")
    if _is_id(prompt[0]):
        return {"prompt": _ids(prompt, limit, "the prompt")}
    if len(prompt) == 1:
        return {"prompt": _member(prompt[0], limit, 0)}
    if len(prompt) > MAX_PROMPTS:
        raise Refusal(f"the prompt is a list of {len(prompt):,}: it may have {MAX_PROMPTS:,}")
    prompts = [_member(member, limit, position) for position, member in enumerate(prompt)]
    check_size(sum(map(_size, prompts)), limit, "the list of prompts")
    return {"prompts": prompts}


def check_samples(request: Mapping[str, Any], n: int) -> None:
    """Refusal where a list of prompts asks for too many samples together."""
    count = len(request.get("prompts", ())) * n
    if count > MAX_PROMPTS:
        raise Refusal(
            f"asks for {count:,} samples, n of each of its prompts: it may have {MAX_PROMPTS:,}"
        )


def _member(member: object, limit: int, position: int) -> str | list[int]:
    where = f"the prompt[{position}]"
    if isinstance(member, list | tuple) and member:
        return _ids(member, limit, where)
    if not isinstance(member, str):
        what = "an empty list" if member in ([], ()) else kind(member)
        raise Refusal(f"{where} is {what}: it must be text, or a list of token ids")
    try:
        return check_prompt(member, limit)
    except Refusal as refusal:
        raise Refusal(refusal.reason.replace("the prompt", where, 1)) from None


def _ids(ids: list[Any] | tuple[Any, ...], limit: int, where: str) -> list[int]:
    for position, item in enumerate(ids):
        if not _is_id(item):
            raise Refusal(
                f"{where}[{position}] is {kind(item)}: a token id is a whole number of 0 or more"
            )
        if not 0 <= item <= _LARGEST_ID:
            raise Refusal(f"{where}[{position}] is out of the range of token ids, 0 to 2^31 - 1")
    check_size(len(ids) * _BYTES_PER_ID, limit, where)
    return list(ids)


def _is_id(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _size(prompt: str | list[int]) -> int:
    return len(prompt.encode()) if isinstance(prompt, str) else len(prompt) * _BYTES_PER_ID
