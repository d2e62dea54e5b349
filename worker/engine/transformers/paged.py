"""The inside of transformers' continuous batching, kept to this one file.

Written against transformers 5.23 (`generation/continuous_batching`). Its manager schedules,
pages and runs the model; what it lacks (seeds, stop strings, min-p, repetition penalty, all per
request) comes in by three seams:

    RequestState.update_and_check_completion   our Continuation decides when a sample is done
    ModelRunner                                our sampler chooses the tokens (`runner`)
    Manager._handle_critical_error             our back-end recovers, nothing is failed silently

`check_version` names what is missing should another release have moved them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any

import torch
import transformers
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import (
    cache as pages,
)
from transformers.generation.continuous_batching import (
    continuous_api,
    distributed,
    input_outputs,
    model_runner,
    requests,
)

from db.errors import ModelLoadError
from worker.engine.shared.backend import Progress
from worker.engine.shared.continuation import Continuation, look_ahead
from worker.engine.transformers import attention, paged_attention, sampler
from worker.engine.transformers.adapters.lora import Adapters
from worker.engine.transformers.adapters.sharing import share_apart
from worker.engine.transformers.isolation import Isolation
from worker.engine.transformers.logprobs import record_logprobs
from worker.engine.transformers.memory import KvShape, Limits, is_of_a_request, is_out_of_memory
from worker.engine.transformers.parallel.team import Alone
from worker.engine.transformers.projections import Projections
from worker.engine.transformers.rules import Rules
from worker.engine.transformers.runner import GraphRunner, Runner, TableInputs
from worker.engine.transformers.turns import Turns

#: What this file reaches into, and which release it was written against.
WRITTEN_FOR = ">=5.23,<5.24"
_SEAMS: tuple[tuple[Any, str], ...] = (
    (requests.RequestState, "update_and_check_completion"),
    (requests.RequestState, "create_equivalent_initial_request"),
    (requests.RequestState, "to_generation_output"),
    (model_runner.ModelRunner, "_forward_process_and_sample"),
    (model_runner.ModelRunner, "_get_forward_fn"),
    (model_runner.ModelRunner, "maybe_pad_inputs"),
    (model_runner.ModelRunner, "run_one_warmup"),
    (input_outputs.ContinuousBatchingIOs, "prepare_batch_tensors"),
    (model_runner, "infer_max_single_request_tokens"),
    (pages.PagedAttentionCache, "search_prefix_match"),
    (pages.PagedAttentionCache, "mark_complete_blocks"),
    (continuous_api.ContinuousBatchingManager, "_create_batch_processor"),
    (continuous_api.ContinuousBatchingManager, "_generation_step"),
    (continuous_api.ContinuousBatchingManager, "_generation_loop_body"),
    (continuous_api.ContinuousBatchProcessor, "reset"),
    (continuous_api.ContinuousBatchingManager, "_handle_critical_error"),
    (continuous_api.ContinuousBatchingManager, "_run_generation_loop"),
)

_NO_OBJECTION = 1000.0

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


def own_attention(model: Any) -> str | None:
    """The name of our attention that suits the model: one without a soft cap or sinks."""
    if model.config._attn_implementation != "sdpa":  # noqa: SLF001
        return None
    if model.device.type == "cpu":
        return attention.NAME
    return paged_attention.NAME if paged_attention.usable(model.device) else None


def kv_shape(model: Any, *, masks: bool) -> KvShape:
    """What a token costs in the paged cache of this model, with or without dense masks."""
    shape = model.config.get_text_config()
    heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    head_size = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    kinds = getattr(shape, "layer_types", None) or ["full_attention"] * shape.num_hidden_layers
    per_kind = [kinds.count(kind) for kind in set(kinds)]
    itemsize = model.dtype.itemsize
    return KvShape(
        bytes_per_token=2 * heads * head_size * itemsize * len(kinds),
        mask_itemsize=itemsize,
        masks=len(per_kind) if masks else 0,
        readable_per_token=len(kinds) / min(per_kind),
    )


def bare_cache(model: Any, limits: Limits) -> Any:
    """A cache as a PagedManager of these limits has, for whoever is told what to do with it."""
    return pages.PagedAttentionCache(
        config=model.config.get_text_config(),
        continuous_batching_config=_config(limits, model.device.type, tabled=False, graphs=False),
        device=model.device,
        distributed_helper=distributed.DistributedHelper(None, None),
        dtype=model.dtype,
        model_supports_logits_to_keep=model._supports_logits_to_keep(),  # noqa: SLF001
    )


class PagedSequence(requests.RequestState):
    """A continuation as the manager sees it."""

    def __init__(self, continuation: Continuation) -> None:
        # A step that broke may have scored a token that it then did not give.
        del continuation.scores[len(continuation.token_ids) :]
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
        turns: Turns,
        team: Alone,
        *,
        attention: str | None,
        adapters: Adapters,
        rules: Rules,
    ) -> None:
        """Take the memory; the caller has the turn. Raises whatever transformers or torch raise.

        `attention`: the name of our own; None: transformers' own.
        """
        self._attention = attention
        self._adapters = adapters
        self._rules = rules
        self._tabled = attention == paged_attention.NAME
        self._team = team
        alone = team.size == 1
        super().__init__(
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=_config(
                limits, model.device.type, tabled=self._tabled, graphs=alone and capturable(model)
            ),
        )
        if self._tabled:  # transformers lists pages for flash attention's kernels only
            self.continuous_batching_config.max_blocks_per_request = limits.longest_in_pages
        self._progress = progress
        #: While it is looked for who broke a step; `_adding` is held to change it.
        self._isolation: Isolation | None = None
        self._adding = threading.Lock()
        self._turns = turns
        self.output_router.output_queue = events
        with torch.no_grad():
            self.warmup()
        pool = self.batch_processor.cache
        team.check_cache(pool)
        self.kv_tokens = int(pool.num_blocks * limits.page_size)
        self.longest = int(model_runner.infer_max_single_request_tokens(pool))
        if self._tabled:  # the pool is rounded up; a sequence's row in the table is not
            self.longest = min(self.longest, limits.longest_in_pages * limits.page_size)
        self.capacity = int(self.continuous_batching_config.max_requests_per_batch)
        # Of a shard the weights are not plain, and what goes around its projections must stay.
        self._projections = Projections(model, self.capacity) if alone else None

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        if self._attention is not None:
            self._original_attn_impl = model.config._attn_implementation  # noqa: SLF001
            model.set_attn_implementation(self._attention)
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
        with self._adding:
            if self._isolation is not None:
                self._isolation.hold(continuation)
                return
            self.input_queue.put(PagedSequence(continuation))
        self._wake_up_loop.set()

    def shut_down(self) -> None:
        """Stop the loop after the step under way and let go of the cache."""
        # `stop` would give the model its own attention back in the middle of another's turn.
        original, self._original_attn_impl = self._original_attn_impl, None
        self._wake_up_loop.set()
        self.stop(block=True, hard_stop=True)
        with self._turns.take():
            if self._projections is not None:
                self._projections.remove()
            self._team.drop_cache()
            self.destroy()
            if original is not None:
                self.model.set_attn_implementation(original)

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        if isinstance(processor.model_runner, Runner):  # the one from before, reset
            return processor
        if self._tabled:
            processor.inputs_and_outputs = TableInputs(
                processor.inputs_and_outputs,
                config=processor.config,
                continuous_batching_config=processor.cb_config,
                model_dtype=processor.model_dtype,
                logit_processor=processor.logit_processor,
            )
            processor.model_runner.inputs_and_outputs = processor.inputs_and_outputs
        kind = GraphRunner if self._tabled else Runner
        processor.model_runner = kind(
            processor.model_runner, self._choose, self._adapters, self._team
        )
        if self._adapters.digests:
            share_apart(processor, self._adapters)
        return processor

    def _choose(self, logits: torch.Tensor, batch: Sequence[PagedSequence]) -> torch.Tensor:
        continuations = [sequence.continuation for sequence in batch]
        look_ahead(continuations, logits.shape[1])
        ruled = self._rules.apply(logits, continuations)
        tokens = sampler.choose(ruled, [one.row() for one in continuations])
        record_logprobs(continuations, logits, tokens)
        self._progress.step(len(batch))
        return tokens

    def _generation_step(self) -> None:
        for request in self.batch_processor.inputs_and_outputs.requests_in_batch:
            request.state.continuation.start()
        with self._turns.take():
            super()._generation_step()

    def _generation_loop_body(self, batch_processor: Any, bootstrapping: bool) -> bool:
        try:
            goes_on = bool(super()._generation_loop_body(batch_processor, bootstrapping))
        except Exception as error:
            batch = [one.state for one in batch_processor.inputs_and_outputs.requests_in_batch]
            if self._team.size > 1 or not batch or not is_of_a_request(error):
                raise
            self._isolate(batch, error, batch_processor)
            return True
        if self._isolation is not None and self._isolation.has_passed():
            batch_processor.reset()
            self._isolation.succeed()
            self._run_next_group(self._isolation)
        return goes_on

    def _isolate(
        self, batch: Sequence[PagedSequence], error: Exception, batch_processor: Any
    ) -> None:
        """Find out who of a batch broke its step; who does so alone is answered with the error."""
        reason = error_line(error)
        _log.debug("a step failed", exc_info=error, extra={"action": "step_failed"})
        isolation = self._isolation
        if isolation is None:
            isolation = self._begin_isolation(batch, batch_processor)
            _log.warning(
                "a step of %d requests broke, who broke it is looked for: %s",
                len(batch),
                reason,
                extra={"action": "engine_isolate"},
            )
        batch_processor.reset()
        for culprit in isolation.fail():
            failed = PagedSequence(culprit)
            self.output_router.fail_and_deliver(failed, RuntimeError(reason))
        self._run_next_group(isolation)

    def _begin_isolation(self, batch: Sequence[PagedSequence], batch_processor: Any) -> Isolation:
        scheduler = batch_processor.scheduler
        suspects = [sequence.continuation for sequence in batch]
        others = [*scheduler.active_requests.values(), *scheduler.waiting_requests.values()]
        held = [one.continuation for one in others if one.continuation not in suspects]
        with self._adding:
            held += [one.continuation for one in _drained(self.input_queue)]
            self._isolation = Isolation(suspects, held)
        return self._isolation

    def _run_next_group(self, isolation: Isolation) -> None:
        group = isolation.next_group()
        with self._adding:
            if not group:
                self._isolation = None
                group = isolation.released()
            for continuation in group:
                self.input_queue.put(PagedSequence(continuation))

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        """Tell the back-end instead of failing every request.

        Only the text of the error is passed on: its traceback holds the tensors of the step.
        """
        _log.debug("the generation loop failed", exc_info=error, extra={"action": "loop_failed"})
        self.background_thread_status.record_fatal_error(RuntimeError(type(error).__name__))
        batch = batch_processor.inputs_and_outputs.requests_in_batch if batch_processor else []
        self.output_router.output_queue.put(
            LoopFailed(
                reason=error_line(error),
                out_of_memory=is_out_of_memory(error),
                in_batch=frozenset(request.state.request_id for request in batch),
            )
        )


def error_line(error: Exception) -> str:
    """What was raised, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def capturable(model: Any) -> bool:
    """Whether its forward pass can be a CUDA graph: of packed weights, if transformers says so."""
    quantizer = getattr(model, "hf_quantizer", None)
    return quantizer is None or bool(quantizer.is_compileable)


def _drained(sequences: Queue[Any]) -> list[Any]:
    drained = []
    with contextlib.suppress(Empty):
        while True:
            drained.append(sequences.get_nowait())
    return drained


def _config(limits: Limits, device: str, *, tabled: bool, graphs: bool) -> ContinuousBatchingConfig:
    """Double buffering is off: it needs the choice of a token before the last one is known."""
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    return ContinuousBatchingConfig(
        page_size=limits.page_size,
        num_blocks=limits.pages,
        max_batch_tokens=limits.batch_tokens,
        max_requests_per_batch=limits.requests,
        # Where we have sized the pool, transformers' own estimate of the rest must not object.
        max_memory_percent=_NO_OBJECTION if limits.pages is not None else limits.memory_fraction,
        use_cuda_graph=(False, tabled and graphs),
        use_async_batching=False,
        auto_switch_to_flash=device != "cpu",
        scheduler_type="promptmill" if tabled else "fifo",
    )
