"""Structured output in the words of others. Pure."""

from __future__ import annotations

import json
from typing import Any

from db.guided_schema import guided_schema
from db.structure import Structure


def for_vllm(wanted: Structure) -> dict[str, Any]:
    """vLLM's `structured_outputs`, in Python and over HTTP."""
    if wanted.kind == "json_schema":
        return {"json": guided_schema(json.loads(wanted.text))}
    return {wanted.kind: json.loads(wanted.text) if wanted.kind == "choice" else wanted.text}
