"""The faults, by name. Each strikes, and says when what it broke is whole again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis
from sqlalchemy import text

from benchmarks.chaos_site import LEASE, Site
from db.errors import ConflictError, DatabaseError, PromptmillError
from db.ids import queue_name
from worker.app import make_app, send

#: Whether what the fault broke is whole again. No such thing (None): it broke nothing.
Healed = Callable[[], bool]


class Strike:
    """One fault on one site; everything that is drawn is drawn from `chance`."""

    def __init__(self, site: Site, batch: str, chance: random.Random) -> None:
        self.site = site
        self.batch = batch
        self.chance = chance

    # --- workers ------------------------------------------------------------------------------

    def kill_worker(self) -> Healed | None:
        """SIGKILL to one worker."""
        return self._kill([one] if (one := self.site.a_worker(self.chance)) else [])

    def kill_all_workers(self) -> Healed | None:
        """SIGKILL to all of them at once."""
        return self._kill(self.site.worker_processes())

    def terminate_worker(self) -> Healed | None:
        """SIGTERM: it drains, and its supervisor starts another."""
        victim = self.site.a_worker(self.chance)
        if victim is None:
            return self._next_result()
        with suppress(psutil.Error):
            victim.terminate()
        return lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE

    def freeze_worker(self) -> Healed | None:
        """SIGSTOP past its lease, then SIGCONT: a zombie that comes back and writes late."""
        victim = self.site.a_worker(self.chance)
        if victim is None:
            return self._next_result()
        held = self._held([victim.pid])
        with suppress(psutil.Error):
            victim.suspend()
        thaw = threading.Timer(2 * LEASE, _resume, [victim])
        thaw.daemon = True
        thaw.start()
        return self._released(held, [victim.pid])

    # --- Redis --------------------------------------------------------------------------------

    def flush_redis(self) -> Healed:
        """FLUSHALL: every message is gone."""
        self._client().flushall()
        return self._next_result()

    def restart_redis_empty(self) -> Healed:
        """SIGKILL, and started again with nothing."""
        self.site.redis.restart_empty()
        return self._next_result()

    def pause_redis(self) -> Healed:
        """Silent for some seconds, with its connections open."""
        self.site.redis.pause(self.chance.uniform(1, 5))
        return self._next_result()

    def duplicate_messages(self) -> Healed:
        """Every chunk rings again, in any order, finished ones too."""
        with self.site.database.read() as connection:
            ids = [row[0] for row in connection.execute(text("SELECT id FROM chunks"))]
        self.chance.shuffle(ids)
        queue = queue_name(self.site.client.batch(self.batch).model)
        send(make_app(self.site.settings), [(one, queue, 5) for one in ids[:500]])
        return self._next_result()

    def garbage_message(self) -> Healed:
        """Random bytes where a message should be."""
        queue = "promptmill:" + queue_name(self.site.client.batch(self.batch).model)
        self._client().lpush(queue, self.chance.randbytes(64))
        return self._next_result()

    # --- PostgreSQL ---------------------------------------------------------------------------

    def crash_postgres(self) -> Healed:
        """An immediate stop, as of a power cut, and a start a moment later."""
        self.site.postgres.stop("immediate")
        time.sleep(self.chance.uniform(0.1, 3))
        self.site.postgres.start()
        return self._next_result()

    def cut_connections(self) -> Healed:
        """Every connection to the database is ended by the server."""
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with suppress(DatabaseError), self.site.database.write() as connection:
            connection.execute(text(cut))
        return self._next_result()

    # --- people -------------------------------------------------------------------------------

    def pause_and_resume(self) -> Healed:
        """Somebody pauses the batch and lets it go on."""
        try:
            self.site.client.pause(self.batch)
        except ConflictError:  # it has just been completed
            return self._next_result()
        time.sleep(self.chance.uniform(0, 1))
        self.site.client.resume(self.batch)
        return self._next_result()

    def _kill(self, victims: list[psutil.Process]) -> Healed | None:
        pids = [one.pid for one in victims]
        held = self._held(pids)
        for victim in victims:
            with suppress(psutil.Error):
                victim.kill()
        return self._released(held, pids)

    def _released(self, held: set[int], pids: list[int]) -> Healed | None:
        """Until none of these chunks is theirs any more; None: they held none."""
        return (lambda: not self.site.holds(held, pids)) if held else None

    def _held(self, pids: list[int]) -> set[int]:
        with suppress(DatabaseError):
            return self.site.chunks_of(pids)
        return set()

    def _next_result(self) -> Healed:
        """Until one more job has ended than had when the fault was over."""
        before = self.site.done(self.batch) or 0
        return lambda: (self.site.done(self.batch) or 0) > before

    def _client(self) -> redis.Redis:
        return self.site.redis.client()


#: How often each comes, relative to the others.
WEIGHTS: dict[str, int] = {
    "kill_worker": 5,
    "freeze_worker": 2,
    "terminate_worker": 2,
    "kill_all_workers": 1,
    "flush_redis": 2,
    "restart_redis_empty": 2,
    "pause_redis": 2,
    "duplicate_messages": 2,
    "garbage_message": 1,
    "crash_postgres": 2,
    "cut_connections": 2,
    "pause_and_resume": 2,
}


def plan(seed: int, faults: int) -> list[tuple[float, str, int]]:
    """(seconds to wait before, fault, its own seed): the same for the same seed."""
    chance = random.Random(seed)
    names = chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()), k=faults)
    return [(chance.uniform(0.2, 3.0), name, chance.randrange(2**32)) for name in names]


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.resume()


def strike(site: Site, batch: str, name: str, seed: int) -> Healed | None:
    """Let this fault strike. Its own trouble, such as a Redis that is still away, is no news."""
    one = Strike(site, batch, random.Random(seed))
    try:
        healed: Healed | None = getattr(one, name)()
    except (PromptmillError, redis.RedisError):
        return one._next_result()  # noqa: SLF001
    return healed
