"""What to say where a chat template does not render all that it is given. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from worker.engine.protocol import Failed
from worker.engine.shared.skeleton import Leaf

#: Texts that are named; the others are counted.
_NAMED = 3

#: The key of a message -> what to do about it.
_REMEDIES = {
    "content": "write its text into a message of another role",
    "name": "leave it out, or write it into the content",
    "reasoning_content": "leave it out",
}


def failure(omitted: Sequence[Leaf]) -> Failed:
    """Why a chat can't be asked, of which the template does not render these."""
    named = ", ".join(map(_named, omitted[:_NAMED]))
    more = f" and {len(omitted) - _NAMED} more" if len(omitted) > _NAMED else ""
    return Failed(
        "not_rendered",
        f"the model's chat template does not render {named}{more}: {_remedy(omitted[0])}, or use "
        "a model whose template does",
    )


def _named(leaf: Leaf) -> str:
    return str(leaf) if leaf.role is None else f"{leaf} (role {leaf.role})"


def _remedy(leaf: Leaf) -> str:
    if leaf.role is None:
        return "leave the tools out"
    return _REMEDIES.get(leaf.key, "leave it out")
