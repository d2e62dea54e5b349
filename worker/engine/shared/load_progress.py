"""How much of a checkpoint transformers has read, for whoever reports it.

transformers counts the tensors for a progress bar, and lets a hook make that bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

#: The bar over the weights, by its description.
_WEIGHTS = "Loading weights"

#: Of the checkpoint that this process loads; a process loads one at a time.
_share: float | None = None


def share_read() -> float | None:
    """The share (0 to 1) of its tensors that are in memory; None: it is not being read."""
    return _share


def watch_loading(logging: Any) -> None:
    """Have transformers, whose `utils.logging` this is, count for `share_read`, if it can."""
    install = getattr(logging, "set_tqdm_hook", None)
    if install is not None:
        install(_bar)


def _bar(factory: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if options.get("desc") == _WEIGHTS and args and hasattr(args[0], "__len__"):
        return Counted(args[0])
    return factory(*args, **options)


class Counted:
    """An iterable whose progress can be read; everything else of a bar does nothing."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        global _share  # noqa: PLW0603 - the bar and its reader have nothing else in common
        total = len(self._items)
        try:
            for number, item in enumerate(self._items):
                _share = number / total
                yield item
        finally:
            _share = None

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None
