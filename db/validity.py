"""Whether a text is what its structure asks for.

Where a model is guided, its texts are of their structure by themselves; what an endpoint sends may
be anything. A regular expression and a grammar are checked by llguidance, which also guides; JSON
by its schema, in whichever order and with whatever spaces it is written.
"""

from __future__ import annotations

import json
from functools import lru_cache

from db.byte_validity import Check, byte_checker
from db.json_validity import json_checker
from db.structure import Structure, compiled

_REMEMBERED = 256


@lru_cache(maxsize=_REMEMBERED)
def checker(wanted: Structure) -> Check:
    """The check of this structure's texts. Raises ValueError where they can't be checked."""
    if wanted.kind == "json_schema":
        return json_checker(wanted.text)
    if wanted.kind == "choice":
        choices = frozenset(json.loads(wanted.text))
        return lambda text: None if text in choices else "it is none of the choices"
    name = {"regex": "regular expression", "grammar": "grammar"}[wanted.kind]
    return byte_checker(compiled(wanted), f"the {name}")
