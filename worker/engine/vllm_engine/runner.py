"""The one thread that talks to vLLM: an asyncio loop, and vLLM itself, started again if it dies.

vLLM generates in processes of its own. When one of them dies, vLLM says so to everyone who waits
and takes nothing any more; then a new one is started here, and who comes meanwhile waits for it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

from db.errors import EngineError, ModelLoadError
from worker.engine.shared.adapter_files import bad_adapter
from worker.engine.shared.guard import Guard
from worker.engine.vllm_engine import loading
from worker.engine.vllm_engine.adapters import lora_requests

T = TypeVar("T")

#: Called with a prompt's token ids, arguments of vLLM's SamplingParams, a unique name and that of
#: an adapter (or None), it gives vLLM's RequestOutput for one sample, whole. It raises what vLLM
#: raises: EngineDeadError once it has died. Cancelling it stops the work.
Generate = Callable[[list[int], dict[str, Any], str, str | None], Coroutine[Any, Any, Any]]

#: Seconds that tasks get to end once they are cancelled.
_PATIENCE = 5.0

_log = logging.getLogger(__name__)


class Runner:
    """vLLM on a thread of its own."""

    def __init__(self, planned: loading.Plan) -> None:
        self._plan = planned
        #: time.monotonic() at which vLLM last made a step, or was found idle.
        self.last_step = time.monotonic()
        #: Tokens that vLLM has generated, those of requests that still run included.
        self.generated = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="promptmill-vllm", daemon=True)
        #: None while it is started, and once nothing can be started any more.
        self._running: loading.Running | None = None
        self._broken: str | None = None
        #: vLLM's LoRARequest of each adapter, by name; of the plain model None.
        self._adapters: Mapping[str | None, Any] = {None: None}
        #: Set while calls may go on: vLLM runs, or never will again.
        self._open = asyncio.Event()
        #: The loop itself holds its tasks but weakly.
        self._tasks: set[asyncio.Task[None]] = set()
        #: vLLM's processes, those that have ended too; not another engine's.
        self._processes: set[BaseProcess] = set()
        #: Those that use what now runs.
        self._users: set[asyncio.Task[Any]] = set()

    def start(self) -> loading.Loaded:
        """Load the model and try it. Raises ModelLoadError with the reason; then it is closed."""
        self._guard = Guard()
        self._thread.start()
        try:
            return self.wait(self._first())
        except BaseException:
            self.close()
            raise

    def step(self, tokens: int = 0) -> None:
        """vLLM has made a step of so many tokens, or stood idle until now."""
        self.last_step = time.monotonic()
        self.generated += tokens

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, run on the loop; for other threads than the loop's."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def call(self, what: Callable[..., object], *arguments: Any) -> None:
        """Have the loop call it soon; nothing happens once the runner is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)

    def task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the loop's; for the loop's own thread."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def vllm(self) -> AsyncIterator[Generate]:
        """What generates, for one task, as soon as vLLM runs.

        Raises EngineError where it died and could not be started again.
        """
        while self._running is None:
            if self._broken is not None:
                raise EngineError(f"vLLM died and could not be started again: {self._broken}")
            await self._open.wait()
        llm, user = self._running.llm, _current()
        self._users.add(user)
        user.add_done_callback(self._users.discard)
        yield partial(self._generate, llm)

    def close(self) -> None:
        """Stop vLLM and its processes, then the thread. Idempotent."""
        if self._loop.is_closed():
            return
        self.wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._guard.close()
        # vLLM's objects refer to each other, and complain if the interpreter ends before them.
        gc.collect()
        for process in self._processes:
            process.join(_PATIENCE)

    async def _generate(
        self,
        llm: Any,
        token_ids: list[int],
        arguments: dict[str, Any],
        name: str,
        adapter: str | None = None,
    ) -> Any:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError

        wanted = arguments.get("structured_outputs")
        if wanted is not None:
            arguments = {**arguments, "structured_outputs": StructuredOutputsParams(**wanted)}
        params = SamplingParams(**arguments, output_kind=RequestOutputKind.FINAL_ONLY)
        output = None
        try:
            prompt, lora = tokens_input(list(token_ids)), self._adapters[adapter]
            async for whole in llm.generate(prompt, params, name, lora_request=lora):
                output = whole
        except EngineDeadError:
            self._bury(llm)
            raise
        if output is None:
            raise EngineError("vLLM ended a request without an output")
        return output

    async def _first(self) -> loading.Loaded:
        running = self._begin()
        self._adapters = lora_requests(self._plan.adapters)
        try:
            # Some models load and then don't run: a head of 16 on a CPU is one.
            arguments = {"temperature": 0.0, "max_tokens": 1, "detokenize": False}
            await self._generate(running.llm, self._plan.trial_ids, arguments, "trial")
        except Exception as error:
            raise ModelLoadError(
                f"model '{self._plan.config.model}' is loaded, but vLLM does not run it: its own "
                "log, above, says why"
            ) from error
        for one in self._plan.adapters:
            await self._try(running, one.name, arguments)
        return running.loaded

    async def _try(self, running: loading.Running, adapter: str, arguments: dict[str, Any]) -> None:
        try:
            await running.llm.add_lora(self._adapters[adapter])
            await self._generate(
                running.llm, self._plan.trial_ids, arguments, f"trial {adapter}", adapter
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise bad_adapter(adapter, f"can't be loaded by vLLM: {reason}") from error

    def _begin(self) -> loading.Running:
        others = set(multiprocessing.active_children())
        self._guard.watch()
        try:
            self._running = loading.start(self._plan, self.step)
        finally:
            self._guard.rest()
            self._processes |= set(multiprocessing.active_children()) - others
        self._open.set()
        return self._running

    def _bury(self, llm: Any) -> None:
        """It has died: whoever comes from now on waits for the next one."""
        if self._running is None or self._running.llm is not llm:
            return
        self._running = None
        self._open.clear()
        self.task(self._revive(llm, set(self._users)))

    async def _revive(self, llm: Any, users: set[asyncio.Task[Any]]) -> None:
        _log.error("vLLM died and is started again", extra={"action": "engine_restart"})
        # Loading holds the loop up, so those who waited for the dead one are answered first.
        if users:
            await asyncio.wait(users)
        llm.shutdown()
        try:
            self._begin()
            self.step()
        except ModelLoadError as error:
            self._broken = error.message
            _log.error("%s", error.message, extra={"action": "engine_restart"})
            self._open.set()

    async def _stop(self) -> None:
        tasks = asyncio.all_tasks() - {_current()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_PATIENCE)
        running, self._running = self._running, None
        if running is not None:
            running.llm.shutdown()


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise EngineError("called outside of a task")
    return task
