"""The inside of transformers' continuous batching, kept to this one file.

Written against transformers 5.23 (`generation/continuous_batching`). Its manager schedules,
pages and runs the model; what it lacks (seeds, stop strings, min-p, repetition penalty, all per
request) comes in by three seams:

    RequestState.update_and_check_completion   our Continuation decides when a sample is done
    ModelRunner._sample                        our sampler chooses the tokens of a batch
    Manager._handle_critical_error             our back-end recovers, nothing is failed silently

`check_version` names what is missing should another release have moved them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from typing import Any

import torch
import transformers
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import continuous_api, model_runner, requests

from db.errors import ModelLoadError
from worker.engine.transformers import attention, sampler
from worker.engine.transformers.backend import Progress
from worker.engine.transformers.continuation import Continuation
from worker.engine.transformers.logprobs import record_logprobs
from worker.engine.transformers.memory import KvShape, Limits, is_out_of_memory
from worker.engine.transformers.projections import Projections

#: What this file reaches into, and which release it was written against.
WRITTEN_FOR = ">=5.23,<5.24"
_SEAMS: tuple[tuple[Any, str], ...] = (
    (requests.RequestState, "update_and_check_completion"),
    (requests.RequestState, "create_equivalent_initial_request"),
    (requests.RequestState, "to_generation_output"),
    (model_runner.ModelRunner, "_sample"),
    (model_runner, "infer_max_single_request_tokens"),
    (continuous_api.ContinuousBatchingManager, "_create_batch_processor"),
    (continuous_api.ContinuousBatchingManager, "_generation_step"),
    (continuous_api.ContinuousBatchingManager, "_handle_critical_error"),
    (continuous_api.ContinuousBatchingManager, "_run_generation_loop"),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopFailed:
    """The generation loop broke; its thread is ending and will answer nothing more."""

    reason: str
    out_of_memory: bool
    #: Ids of the continuations that the model was working on.
    in_batch: frozenset[str]


#: Gets every sequence that has ended, and LoopFailed at the end of a loop that broke.
Events = Queue[Any]


def check_version() -> None:
    """Raise ModelLoadError if this transformers does not have the shape relied on here."""
    missing = [f"{owner.__name__}.{name}" for owner, name in _SEAMS if not hasattr(owner, name)]
    if missing:
        raise ModelLoadError(
            f"transformers {transformers.__version__} has no {missing[0]}: continuous batching "
            f"needs transformers{WRITTEN_FOR}; install that, or set the engine option "
            "batching=static"
        )


def packs(model: Any) -> bool:
    """Whether our own attention suits the model: on a CPU, without a soft cap or sinks."""
    implementation = model.config._attn_implementation  # noqa: SLF001
    return bool(model.device.type == "cpu" and implementation == "sdpa")


def kv_shape(model: Any, *, packed: bool) -> KvShape:
    """What a token costs in the paged cache of this model; `packed` attention needs no masks."""
    shape = model.config.get_text_config()
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    kinds = getattr(shape, "layer_types", None) or ["full_attention"] * shape.num_hidden_layers
    per_kind = [kinds.count(kind) for kind in set(kinds)]
    itemsize = model.dtype.itemsize
    return KvShape(
        bytes_per_token=2 * heads * head_size * itemsize * len(kinds),
        mask_itemsize=itemsize,
        masks=0 if packed else len(per_kind),
        readable_per_token=len(kinds) / min(per_kind),
    )


class PagedSequence(requests.RequestState):
    """A continuation as the manager sees it."""

    def __init__(self, continuation: Continuation) -> None:
        super().__init__(
            request_id=continuation.id,
            initial_tokens=[*continuation.prompt_ids, *continuation.token_ids],
            max_new_tokens=None,
        )
        self.continuation = continuation

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        del logprob  # ours are recorded with the choice of the token
        self.generated_tokens.append(token_id)
        self.tokens_to_process = [token_id]
        if self.continuation.accept(token_id):
            self.status = requests.RequestStatus.FINISHED
            return True
        return False

    def create_equivalent_initial_request(self) -> PagedSequence:
        """Called under KV pressure: begin again from prompt and text, losing nothing."""
        return PagedSequence(self.continuation)

    def to_generation_output(self) -> PagedSequence:
        return self


class PagedManager(continuous_api.ContinuousBatchingManager):
    """transformers' manager with our sampler, whose end is always heard of."""

    def __init__(
        self,
        model: Any,
        limits: Limits,
        events: Events,
        progress: Progress,
        token_text: Callable[[int], str],
        *,
        packed: bool,
    ) -> None:
        """Take the memory. Raises whatever transformers or torch raise.

        `packed`: with our own attention in place of one dense product under a mask.
        """
        self._packed = packed
        super().__init__(
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=_config(limits, model.device.type),
        )
        self._progress = progress
        self._token_text = token_text
        self.output_router.output_queue = events
        # CUDA graphs would replay the first batch's choice, so they are off; see _config.
        with torch.no_grad():
            self.warmup()
        cache = self.batch_processor.cache
        self.kv_tokens = int(cache.num_blocks * limits.page_size)
        self.longest = int(model_runner.infer_max_single_request_tokens(cache))
        self.capacity = int(self.continuous_batching_config.max_requests_per_batch)
        self._projections = Projections(model, self.capacity)

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        if self._packed:
            self._original_attn_impl = model.config._attn_implementation  # noqa: SLF001
            model.set_attn_implementation(attention.NAME)
        else:
            super().switch_to_cb_friendly_attn(model, auto_switch_to_flash)

    def start(self) -> None:
        """Start the loop in a daemon thread: a process that forgets `close` still ends."""
        self.background_thread_status.clear()
        self._generation_thread = threading.Thread(
            target=self._run_generation_loop, name="promptmill-generate", daemon=True
        )
        self._generation_thread.start()

    def add(self, continuation: Continuation) -> None:
        self.input_queue.put(PagedSequence(continuation))
        self._wake_up_loop.set()

    def shut_down(self) -> None:
        """Stop the loop after the step under way and let go of the cache."""
        self._wake_up_loop.set()
        self.stop(block=True, hard_stop=True)
        self._projections.remove()
        self.destroy()

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        runner, inputs = processor.model_runner, processor.inputs_and_outputs

        def sample(scores: torch.Tensor, output_ids: torch.Tensor) -> None:
            batch = [request.state for request in inputs.requests_in_batch if request.has_new_token]
            if batch:
                output_ids[0, : len(batch)].copy_(self._choose(scores[0, : len(batch)], batch))

        runner._sample = sample  # noqa: SLF001
        return processor

    def _choose(self, logits: torch.Tensor, batch: list[PagedSequence]) -> torch.Tensor:
        continuations = [sequence.continuation for sequence in batch]
        tokens = sampler.choose(logits, [one.row() for one in continuations])
        record_logprobs(continuations, logits, tokens, self._token_text)
        self._progress.step(len(batch))
        return tokens

    def _generation_step(self) -> None:
        for request in self.batch_processor.inputs_and_outputs.requests_in_batch:
            request.state.continuation.start()
        super()._generation_step()

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        """Tell the back-end instead of failing every request.

        Only the text of the error is passed on: its traceback holds the tensors of the step.
        """
        _log.debug("the generation loop failed", exc_info=error, extra={"action": "loop_failed"})
        self.background_thread_status.record_fatal_error(RuntimeError(type(error).__name__))
        batch = batch_processor.inputs_and_outputs.requests_in_batch if batch_processor else []
        self.output_router.output_queue.put(
            LoopFailed(
                reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
                out_of_memory=is_out_of_memory(error),
                in_batch=frozenset(request.state.request_id for request in batch),
            )
        )


def _config(limits: Limits, device: str) -> ContinuousBatchingConfig:
    """Graphs and double buffering are off: both need the sampling inside the captured step."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    return ContinuousBatchingConfig(
        page_size=limits.page_size,
        num_blocks=limits.pages,
        max_batch_tokens=limits.batch_tokens,
        max_requests_per_batch=limits.requests,
        max_memory_percent=0.95 if limits.pages is not None else limits.memory_fraction,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=device != "cpu",
    )
