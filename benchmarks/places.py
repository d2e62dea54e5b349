"""Fresh databases and Redis servers for a benchmark, gone when it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from db.database import Database
from db.migrate import upgrade
from db.settings import Settings
from tests.support.servers import PrivatePostgres, PrivateRedis

KINDS = ("postgresql", "sqlite")

#: `--database`, of which there may be several.
databases = click.option(
    "--database",
    "kinds",
    default=KINDS,
    multiple=True,
    type=click.Choice(KINDS),
    help="On which; both, unless told otherwise.",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where promptmill runs."""

    folder: Path
    database: str
    redis: str
    #: Process ids of the servers that are there for this alone.
    servers: dict[str, int] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.folder, database_url=self.database, broker_url=self.redis)

    @property
    def env(self) -> dict[str, str]:
        """The same, for a process."""
        return {
            "PROMPTMILL_HOME": str(self.folder),
            "PROMPTMILL_DATABASE_URL": self.database,
            "PROMPTMILL_BROKER_URL": self.redis,
        }

    def prepare(self) -> Database:
        """The database with promptmill's tables in it."""
        database = Database(self.settings)
        upgrade(database)
        return database


@contextmanager
def place(kind: str) -> Iterator[Place]:
    """A database of its own, of `kind`, and a Redis."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(PrivateRedis(folder / "redis"))
        servers = {"redis": redis.process.pid}
        if kind == "sqlite":
            url = f"sqlite:///{folder / 'bench.db'}"
        else:
            server = stack.enter_context(PrivatePostgres())
            url, servers["postgresql"] = server.url, server.process.pid
        yield Place(folder, url, redis.url, servers)
