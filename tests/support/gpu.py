"""Tests that need a GPU are skipped where there is none."""

from __future__ import annotations

import pytest


def skip_without(device: str) -> None:
    """Skip the test if `device` is `cuda` and this machine has none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
