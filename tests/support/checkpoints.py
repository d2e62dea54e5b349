"""Tiny checkpoints as a session fixture: import `checkpoint` into a conftest to have it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.support.tiny_models import Kind, build_tiny_model

Checkpoint = Callable[[Kind], Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Kind -> the folder of its checkpoint, built the first time it is asked for."""

    @cache
    def build(kind: Kind) -> Path:
        return build_tiny_model(kind, tmp_path_factory.mktemp("checkpoint") / kind)

    return build
