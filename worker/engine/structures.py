"""Structured output in the words of others. Pure."""

from __future__ import annotations

import json
from typing import Any

from db.structure import Structure


def for_vllm(wanted: Structure) -> dict[str, Any]:
    """vLLM's `structured_outputs`, in Python and over HTTP."""
    text = json.loads(wanted.text) if wanted.kind in {"json_schema", "choice"} else wanted.text
    return {"json" if wanted.kind == "json_schema" else wanted.kind: text}
