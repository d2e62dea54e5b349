"""What to say where a chat template does not render all that it is given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from worker.engine.protocol import Failed
from worker.engine.shared.skeleton import Leaf

#: Texts that are named; the others are counted.
_NAMED = 3

_FUNCTION_NAME = ".function.name"

#: The key of a message -> what to do about it.
_REMEDIES = {
    "content": "write its text into a message of another role",
    "name": "leave it out, or write it into the content",
    "reasoning_content": "leave it out",
}


def failure(omitted: Sequence[Leaf]) -> Failed:
    """Why a chat can't be asked, of which the template does not render these."""
    names = list(dict.fromkeys(_names(omitted)))
    named = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return Failed(
        "not_rendered",
        f"the model's chat template does not render {named}{more}: {_remedy(omitted[0])}, or use "
        "a model whose template does",
    )


def _names(omitted: Sequence[Leaf]) -> Iterator[str]:
    """Where each is; a tool or a call without its name is named as a whole."""
    wholes = {
        str(leaf).removesuffix(_FUNCTION_NAME)
        for leaf in omitted
        if str(leaf).endswith(_FUNCTION_NAME)
    }
    for leaf in omitted:
        path = str(leaf)
        whole = path.partition(".function.")[0]
        name = whole if whole in wholes else path
        yield name if leaf.role is None else f"{name} (role {leaf.role})"


def _remedy(leaf: Leaf) -> str:
    if leaf.role is None:
        return "leave the tools out"
    return _REMEDIES.get(leaf.key, "leave it out")
