"""A follower: it loads its shard and then runs every pass that its leader tells it of.

    python -m worker.engine.transformers.parallel.follower FD     # the pipe to its leader

Between two passes it waits for the pipe, which takes no time of the processor. It ends with the
pipe, and so with its leader, however that dies; in the middle of a pass the leader's guard ends it.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import torch

from db.errors import PromptmillError
from worker.engine.shared.metadata import one_line
from worker.engine.transformers import memory, paged
from worker.engine.transformers.loading import LoadedModel, load
from worker.engine.transformers.measuring.body import Body
from worker.engine.transformers.parallel import group, messages
from worker.engine.transformers.parallel.plan import Shard
from worker.engine.transformers.steps import Step
from worker.logs import configure

_log = logging.getLogger(__name__)


class Follower:
    """One rank, once its shard is loaded."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model: Any = loaded.model
        self._device = loaded.device
        self._body = Body(loaded)
        self._cache: Any = None

    def answer(self, message: object) -> object | None:
        """Do as told; what to say to it."""
        match message:
            case messages.Forward():
                self._run(message)
            case messages.MakeCache(limits):
                return self._make_cache(limits)
            case messages.DropCache():
                self._drop_cache()
            case _:
                raise TypeError(f"a leader doesn't say {type(message).__name__}")
        return None

    def _run(self, forward: messages.Forward) -> None:
        if self._model.config._attn_implementation != forward.attention:  # noqa: SLF001
            self._model.set_attn_implementation(forward.attention)
        keywords = messages.unpack(forward.keywords, self._device)
        if forward.paged:
            keywords["cache"] = self._cache
            self._cache.promptmill_step = self._step(forward, keywords)
        with torch.no_grad() if forward.paged else torch.inference_mode():
            match forward.part:
                case "model":
                    self._model(**keywords)
                case "body":
                    self._body.read(**keywords)
                case "head":
                    for _ in self._body.logits(keywords["states"]):
                        pass

    def _step(self, forward: messages.Forward, keywords: dict[str, Any]) -> Step | None:
        if forward.step is None:
            return None
        ongoing, prompts, sequences = forward.step
        positions = keywords["position_ids"][0]
        return Step(ongoing, prompts, positions, messages.unpack(sequences, self._device))

    def _make_cache(self, limits: memory.Limits) -> messages.CacheMade:
        self._drop_cache()
        try:
            self._cache = paged.bare_cache(self._model, limits)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            return messages.CacheMade(0, f"out of memory on {self._device}: {one_line(error)}")
        return messages.CacheMade(self._cache.num_sectors)

    def _drop_cache(self) -> None:
        self._cache = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def follow(pipe: Connection) -> None:
    """Until it may leave. Raises EOFError or OSError once its leader is gone."""
    messages.send(pipe, messages.Here())
    start: messages.Start = messages.receive(pipe)
    configure(start.log_level)
    torch.set_num_threads(start.threads)
    device = torch.device(start.device)
    store = group.reach_store(start.port, start.size)
    group.join(store, start.backend, start.rank, start.size, device)
    loaded = load(start.config, shard=Shard(start.rank, start.size, device))
    follower = Follower(loaded)
    on_cpu = device.type == "cpu"
    free = memory.available_ram() if on_cpu else memory.available_on(device)
    messages.send(pipe, messages.Loaded(free))
    while not isinstance(message := messages.receive(pipe), messages.Leave):
        answer = follower.answer(message)
        if answer is not None:
            messages.send(pipe, answer)


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    code = 0
    try:
        try:
            follow(pipe)
        except (EOFError, ConnectionError):
            raise
        except PromptmillError as error:
            code = 1
            messages.send(pipe, messages.Broken(error.message))
        except Exception as error:  # noqa: BLE001 - whatever it is, the leader says it
            code = 1
            _log.debug("a follower failed", exc_info=error, extra={"action": "follower_failed"})
            messages.send(pipe, messages.Broken(_reason(error)))
    except (EOFError, OSError):
        pass  # the leader is gone, or has closed
    logging.shutdown()
    sys.stderr.flush()
    # Not `exit`: what a process group does at its end waits for the other ranks.
    os._exit(code)


def _reason(error: Exception) -> str:
    what = "out of memory" if memory.is_out_of_memory(error) else type(error).__name__
    return f"a process that shares the model failed ({what}): {one_line(error)}"


if __name__ == "__main__":
    main()
