"""What a model's files come to: the tokenizer at once, the weights while the worker works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from db.checkpoint import Weights, tokenizer_digest
from db.errors import PromptmillError

logger = logging.getLogger(__name__)

#: What reading a model's files may raise; a bad index is a ValueError.
_UNREADABLE = (OSError, ValueError, AttributeError)


class Fingerprint:
    """The digests of a loaded model. What can't be read is not told, and stops nobody."""

    def __init__(self, folder: Path | None, memory: Path) -> None:
        """To be made as soon as the model is loaded: later changes of its files are noticed.

        `folder`: where they lie, if anywhere here. `memory`: a folder that remembers digests.
        """
        self.tokenizer: str | None = None
        self._memory = memory
        self._weights: Weights | None = None
        self._thread: threading.Thread | None = None
        if folder is not None:
            try:
                self.tokenizer = tokenizer_digest(folder)
                self._weights = Weights.of(folder)
            except _UNREADABLE as error:
                _complain(error)

    def weights(self) -> str | None:
        """Reads the weights, a second a gigabyte; None where they can't be told."""
        if self._weights is None:
            return None
        try:
            return self._weights.digest(self._memory)
        except OSError as error:
            _complain(error)
            return None

    def start(self, tell: Callable[[str], object]) -> None:
        """Read the weights on a thread of its own; `tell` hears of their digest from there."""
        self._thread = threading.Thread(
            target=self._run, args=(tell,), name="promptmill-digest", daemon=True
        )
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Let the thread come to its end, for so long at most."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))

    def _run(self, tell: Callable[[str], object]) -> None:
        digest = self.weights()
        if digest is not None:
            try:
                tell(digest)
            except PromptmillError as error:
                _complain(error)


def _complain(error: Exception) -> None:
    logger.warning(
        "results will not tell their weights: %s", error, extra={"action": "weights_unknown"}
    )
