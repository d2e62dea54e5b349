"""Installations for the acceptance tests: with services, and embedded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.mill import Mill, processes_of
from tests.support.checkpoints import checkpoint  # noqa: F401
from tests.support.processes import workers


@pytest.fixture
def mill(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Mill]:
    """PostgreSQL and Redis, with the schema; workers are killed at the end."""
    env = {"PROMPTMILL_DATABASE_URL": postgres_url, "PROMPTMILL_BROKER_URL": redis_url}
    with workers(tmp_path / "workers") as start:
        made = Mill(tmp_path, env, start)
        yield made
        made.client.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Mill]:
    """Everything in PROMPTMILL_HOME, which the test environment sets; nothing outlives the test."""
    with workers(tmp_path / "workers") as start:
        made = Mill(tmp_path, {"PROMPTMILL_HOME": str(tmp_path / "home")}, start)
        yield made
        made.client.close()
    for process in processes_of(tmp_path / "home"):
        process.kill()
