"""The leader's side: its followers, and telling them of each pass.

A team that breaks stays broken. Whoever waits for a rank that is gone can't be called back from a
collective, and ranks that no longer agree on which collective comes next give nonsense: so an
error in the middle of a pass, on any rank, ends the followers, and the worker is to be started
again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import Pipe
from queue import Empty, Queue
from threading import Event, Lock, Thread, Timer
from typing import Any, TypeVar

import torch

from db.errors import ModelUnavailable
from db.wording import how_it_ended
from worker.engine.protocol import EngineConfig
from worker.engine.shared.guard import Guard
from worker.engine.shared.metadata import one_line
from worker.engine.transformers.memory import Limits
from worker.engine.transformers.parallel import group, messages
from worker.engine.transformers.parallel.messages import Part
from worker.engine.transformers.parallel.plan import Shard

T = TypeVar("T")

_FOLLOWER = "worker.engine.transformers.parallel.follower"

#: Seconds that a follower has to come up, …
_UP = 300.0
#: … to leave by itself, …
_LEAVE = 5.0
#: … that the last pass has when the model is closed, …
_LAST_PASS = 15.0
#: … and that its own reason has to arrive after a pass has failed here.
_REASON = 5.0

_log = logging.getLogger(__name__)


class TeamBroken(RuntimeError):
    """A rank is gone, or the ranks no longer agree."""


class Alone:
    """A model on one device: there is nobody to tell."""

    size = 1
    #: Why nothing can be computed any more.
    broken: str | None = None

    def together(
        self, model: Any, part: Part, keywords: Mapping[str, Any], cache: Any = None
    ) -> AbstractContextManager[None]:
        """Around a pass of that part of the model: every follower runs it too.

        `cache`: the paged cache that it reads and writes, if any. The caller has the turn.
        """
        del model, part, keywords, cache
        return nullcontext()

    def free(self, own: int) -> int:
        """Bytes that each rank may take for its cache, where this one has `own` free."""
        return own

    def make_cache(self, limits: Limits) -> None:
        """Followers make caches of this size. Raises RuntimeError as torch does without memory."""

    def check_cache(self, cache: Any) -> None:
        """Raises RuntimeError if the followers' caches are not like this one."""

    def drop_cache(self) -> None:
        """Followers let go of theirs."""

    def on_broken(self, call: Callable[[str], None]) -> None:
        """`call` gets the reason when the team breaks, from some thread; at once if it has."""

    def hurried(self) -> AbstractContextManager[None]:
        """Around what waits for a pass to end: one that takes too long for that is given up."""
        return nullcontext()

    def close(self) -> None:
        """Idempotent."""


class _Follower:
    """One follower's process and pipe."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self.rank = rank
        self.device = device
        self.replies: Queue[Any] = Queue()
        self.pipe, theirs = Pipe()
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", _FOLLOWER, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Standard output may be somebody's results.
            stdout=sys.stderr.fileno() if _is_file(sys.stderr) else 2,
            env={**os.environ, "LOCAL_RANK": str(device.index or 0)},
            # What is told to the worker's whole group, such as Ctrl-C, is not for it.
            start_new_session=True,
        )
        theirs.close()

    def leave(self) -> None:
        """It leaves, unless it hangs."""
        with contextlib.suppress(OSError):
            messages.send(self.pipe, messages.Leave())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LEAVE)


class Team(Alone):
    """Followers that run every pass along with us. Passes come one at a time."""

    def __init__(self, config: EngineConfig, devices: Sequence[torch.device]) -> None:
        """Start the followers' processes; `devices` are the ranks', ours first."""
        group.check_free()
        self.size = len(devices)
        self.broken = None
        self._config = config
        self._device = devices[0]
        self._threads = torch.get_num_threads()
        self._lock = Lock()
        self._closing = False
        self._joined = False
        self._is_broken = Event()
        self._listeners: list[Callable[[str], None]] = []
        self._least_free: int | None = None
        self._sectors: set[int] = set()
        self._guard = Guard()
        self._guard.watch()
        try:
            self._followers = [
                _Follower(rank, device) for rank, device in enumerate(devices) if rank
            ]
        finally:
            self._guard.rest()
        for follower in self._followers:
            Thread(
                target=self._listen, args=(follower,), name="promptmill-follower", daemon=True
            ).start()

    def gather(self) -> Shard:
        """Bring the ranks together, and have the followers load; this rank's shard."""
        self._answers(messages.Here, _UP)
        store = group.open_store(self.size)
        threads = max(1, self._threads // self.size) if self._device.type == "cpu" else 1
        backend = group.backend_of(self._device)
        for follower in self._followers:
            start = messages.Start(
                config=self._config,
                rank=follower.rank,
                size=self.size,
                device=str(follower.device),
                backend=backend,
                port=store.port,
                threads=threads,
                log_level=logging.getLevelName(logging.getLogger().getEffectiveLevel()),
            )
            self._send(follower, start)
        if self._device.type == "cpu":
            torch.set_num_threads(threads)
        self._joined = True
        group.join(store, backend, 0, self.size, self._device)
        return Shard(0, self.size, self._device)

    def loaded(self) -> None:
        """Wait until every follower has loaded its shard."""
        self._least_free = min(one.free for one in self._answers(messages.Loaded))

    def unless_broken(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises; ModelUnavailable with the reason once the team breaks.

        `call` may go on in a thread of its own: nobody gets a rank out of a collective.
        """
        answer: Future[T] = Future()

        def run() -> None:
            with contextlib.suppress(InvalidStateError):
                try:
                    answer.set_result(call())
                except BaseException as error:  # noqa: BLE001 - the caller's to handle
                    answer.set_exception(_own_reason(error))

        def give_up(reason: str) -> None:
            with contextlib.suppress(InvalidStateError):
                answer.set_exception(ModelUnavailable(reason))

        self.on_broken(give_up)
        Thread(target=run, name="promptmill-load", daemon=True).start()
        return answer.result()

    @contextmanager
    def _together(self, forward: messages.Forward) -> Iterator[None]:
        for follower in self._followers:
            self._send(follower, forward)
        try:
            yield
        except BaseException as error:
            # A collective that fails is mostly the end of another rank, which has a better reason.
            self._is_broken.wait(_REASON)
            self.fail(f"a pass failed on {self._device}: {one_line(error)}")
            raise TeamBroken(self.broken) from error

    def together(
        self, model: Any, part: Part, keywords: Mapping[str, Any], cache: Any = None
    ) -> AbstractContextManager[None]:
        step = None if cache is None else getattr(cache, "promptmill_step", None)
        told = {name: value for name, value in keywords.items() if name != "cache"}
        forward = messages.Forward(
            part=part,
            attention=model.config._attn_implementation,  # noqa: SLF001
            keywords=messages.pack(told),
            paged=cache is not None,
            step=step and (step.ongoing, step.prompts, messages.pack(step.sequences)),
        )
        return self._together(forward)

    def free(self, own: int) -> int:
        if self._device.type == "cpu":  # all ranks share it
            return own // self.size
        return own if self._least_free is None else min(own, self._least_free)

    def make_cache(self, limits: Limits) -> None:
        for follower in self._followers:
            self._send(follower, messages.MakeCache(limits))
        made = self._answers(messages.CacheMade)
        failures = [one.failure for one in made if one.failure is not None]
        if failures:
            raise RuntimeError(failures[0])
        self._sectors = {one.sectors for one in made}

    def check_cache(self, cache: Any) -> None:
        if self._sectors != {cache.num_sectors}:
            raise TeamBroken(f"caches of {cache.num_sectors} and {self._sectors} sectors")

    def drop_cache(self) -> None:
        with contextlib.suppress(TeamBroken):
            for follower in self._followers:
                self._send(follower, messages.DropCache())

    def on_broken(self, call: Callable[[str], None]) -> None:
        with self._lock:
            reason = self.broken
            if reason is None:
                self._listeners.append(call)
        if reason is not None:
            call(reason)

    def fail(self, reason: str) -> None:
        """The team is broken, unless it was: say so, and end the followers."""
        with self._lock:
            if self.broken is not None or self._closing:
                return
            self.broken = reason
            listeners = list(self._listeners)
        self._is_broken.set()
        _log.error("tensor parallelism: %s", reason, extra={"action": "engine_broken"})
        for follower in self._followers:
            follower.replies.put(None)
        for call in listeners:
            call(reason)
        for follower in self._followers:
            follower.process.kill()
        if self._joined:
            group.abort()

    @contextmanager
    def hurried(self) -> Iterator[None]:
        timer = Timer(_LAST_PASS, self.fail, ["a rank hangs"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        with self._lock:
            if self._closing:
                return
            self._closing = True
        for follower in self._followers:
            follower.leave()
        self._guard.close()
        for follower in self._followers:
            follower.process.wait()
        if self._joined:
            group.leave()
        torch.set_num_threads(self._threads)

    def _listen(self, follower: _Follower) -> None:
        """Hear a follower until it is gone."""
        reason = None
        with contextlib.suppress(EOFError, OSError):
            while not isinstance(heard := messages.receive(follower.pipe), messages.Broken):
                follower.replies.put(heard)
            reason = heard.reason
        follower.pipe.close()
        if reason is None and not self._closing:
            code = follower.process.wait()
            reason = f"its process on {follower.device}, rank {follower.rank}, {how_it_ended(code)}"
        if reason is not None:
            self.fail(reason)

    def _answers(self, kind: type[T], seconds: float | None = None) -> list[T]:
        """One from each follower, for each of whom we wait so long. Raises TeamBroken."""
        found: list[T] = []
        for follower in self._followers:
            try:
                answer = follower.replies.get(timeout=seconds)
            except Empty:
                raise TeamBroken(f"its process on {follower.device} does not begin") from None
            if not isinstance(answer, kind):
                raise TeamBroken(self.broken or f"an answer that is no {kind.__name__}")
            found.append(answer)
        return found

    def _send(self, follower: _Follower, message: object) -> None:
        if self.broken is not None:
            raise TeamBroken(self.broken)
        try:
            messages.send(follower.pipe, message)
        except OSError as error:
            self._is_broken.wait(_REASON)
            raise TeamBroken(self.broken or one_line(error)) from error


def _own_reason(error: BaseException) -> BaseException:
    """A follower's reason, where this error only follows from it."""
    return ModelUnavailable(str(error)) if isinstance(error, TeamBroken) else error


def _is_file(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, AttributeError):
        return False
    return True
