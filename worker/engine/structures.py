"""Structured output in the words of others. Pure."""

from __future__ import annotations

import json
from typing import Any

from db.structure import Structure


def for_vllm(wanted: Structure) -> dict[str, Any]:
    """vLLM's `structured_outputs`, in Python and over HTTP."""
    if wanted.kind == "json_schema":
        # Else a model that likes white space would never end; ours takes one space at most.
        return {"json": json.loads(wanted.text), "disable_any_whitespace": True}
    text = json.loads(wanted.text) if wanted.kind == "choice" else wanted.text
    return {wanted.kind: text}
