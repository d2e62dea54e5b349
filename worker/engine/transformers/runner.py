"""A step of continuous batching: the model's forward pass, then our choice of tokens.

On a GPU with our own attention, the forward pass of a step in which no prompt is read is a CUDA
graph: hundreds of small kernels start at once. What is sampled with differs from step to step, so
the choice follows the graph. Prompts that wait are read together, so that few steps have any.

Written against the same release of transformers as `paged`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.continuous_batching import model_runner, scheduler
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingIOs
from transformers.generation.continuous_batching.utils import stream_context

from worker.engine.transformers import steps
from worker.engine.transformers.adapters.lora import Adapters
from worker.engine.transformers.parallel.team import Alone

#: Chooses the next token of each request: logits `[requests, vocabulary]` float32 -> `[requests]`.
Choose = Callable[[Tensor, Sequence[Any]], Tensor]

_log = logging.getLogger(__name__)


class Runner(model_runner.ModelRunner):
    """transformers' runner, whose tokens we choose."""

    def __init__(self, base: Any, choose: Choose, adapters: Adapters, team: Alone) -> None:
        """Takes the place of `base`."""
        super().__init__(
            logit_processor=base.logit_processor,
            cb_config=base.cb_config,
            inputs_and_outputs=base.inputs_and_outputs,
            cache=base.cache,
            do_sample=base.do_sample,
            return_logprobs=base.return_logprobs,
        )
        self._choose = choose
        self._adapters = adapters
        self._team = team
        #: Of the last step: `[requests or more, vocabulary]` float32.
        self._logits = torch.empty(0)

    def compute_batch(self, model: Any, batch_data: dict[str, Any]) -> None:
        inputs = self.inputs_and_outputs
        try:
            with stream_context(inputs.compute_stream):
                self._adapt(batch_data["input_ids"].shape[1])
            super().compute_batch(model, batch_data)
        finally:
            self._adapters.clear()
        batch = [one.state for one in inputs.requests_in_batch if one.has_new_token]
        if batch:
            with stream_context(inputs.compute_stream):
                self._choose_tokens(batch, inputs.output_ids[0, : len(batch)])

    def _adapt(self, tokens: int) -> None:
        """Each sequence of a step of so many tokens, padding included, with its own adapter."""
        self._adapters.use_packed(self._adapted(), tokens)

    def _adapted(self) -> list[tuple[str | None, int]]:
        batch = self.inputs_and_outputs.requests_in_batch
        return [(one.state.continuation.params.adapter, one.query_length) for one in batch]

    def _choose_tokens(self, batch: Sequence[Any], tokens: Tensor) -> None:
        tokens.copy_(self._choose(self._logits[: len(batch)], batch))

    def _forward_process_and_sample(
        self, model: Any, batch_data: dict[str, Any], *_: Tensor
    ) -> None:
        """The forward pass alone."""
        self._keep(self._last_logits(model, batch_data))

    def _last_logits(self, model: Any, batch_data: dict[str, Any]) -> Tensor:
        """`[requests, vocabulary]`, of the places that a token follows."""
        with self._team.together(model, "model", batch_data, self.cache):
            logits: Tensor = model(**batch_data).logits[0]
        return logits if "logits_to_keep" in batch_data else logits[batch_data["logits_indices"]]

    def _keep(self, logits: Tensor) -> None:
        self._logits = logits.float()


class GraphRunner(Runner):
    """For a GPU, with our own attention."""

    use_cuda_graph_decode: bool

    def __init__(self, base: Any, choose: Choose, adapters: Adapters, team: Alone) -> None:
        super().__init__(base, choose, adapters, team)
        self._only_ongoing = False
        self._warming = False
        self._table: Tensor | None = None
        self._most = int(self.cb_config.max_requests_per_batch)
        # What a graph reads must lie where it lay when it was captured.
        self._places = torch.arange(self._most, device=self.cache.device)
        adapters.reserve(self._most)

    def warmup(self, model: Any) -> None:
        """Capture a graph for every number of requests, or go without any."""
        if not self.use_cuda_graph_decode:
            return
        self._warming = True
        sizes = steps.graph_sizes(self._most)
        if not all(self.run_one_warmup(model, size, None) for size in sizes):
            self.use_cuda_graph_decode = False
            _log.warning("CUDA graphs can't be captured here", extra={"action": "engine_no_graphs"})
        self._warming = False
        self.cache.reset()

    def maybe_pad_inputs(
        self, num_q_tokens: int, max_kv_read: int, use_decode_fast_path: bool
    ) -> tuple[int, int]:
        """Called once a step, before its tensors are made: also decides whether it is a graph."""
        del max_kv_read  # nothing is listed that is read
        self._only_ongoing = use_decode_fast_path
        self.pad_inputs = use_decode_fast_path and self.use_cuda_graph_decode
        if self.pad_inputs:
            num_q_tokens = steps.padded(num_q_tokens, self._most)
        return num_q_tokens, 0

    def compute_batch(self, model: Any, batch_data: dict[str, Any]) -> None:
        inputs = self.inputs_and_outputs
        stream = inputs.compute_stream
        if stream is not None:  # the step's tensors were made on another
            stream.wait_stream(torch.cuda.current_stream(stream.device))
        with stream_context(stream):
            batch_data["block_table"] = self._on_device(batch_data["block_table"])
            self.cache.promptmill_step = self._step(batch_data)
        super().compute_batch(model, batch_data)

    def _adapt(self, tokens: int) -> None:
        # At its capture a graph has no sequences of ours; it must have the additions all the same.
        sequences = [] if self._warming else self._adapted()
        self._adapters.use_packed(sequences, tokens, graph=self.pad_inputs)

    def _choose_tokens(self, batch: Sequence[Any], tokens: Tensor) -> None:
        if not self._warming:
            super()._choose_tokens(batch, tokens)

    def _on_device(self, table: Tensor) -> Tensor:
        """The pages of the step's sequences, at the same place for every step."""
        if self._table is None:
            whole = self.inputs_and_outputs.block_table
            self._table = torch.full(whole.shape, -1, dtype=torch.int32, device=self.cache.device)
        sequences = table.shape[1]
        self._table[:, :sequences].copy_(table, non_blocking=True)
        return self._table[:, :sequences]

    def _step(self, batch_data: dict[str, Any]) -> steps.Step:
        positions = batch_data["position_ids"][0]
        if self._only_ongoing:
            ongoing, prompts = positions.shape[0], list[steps.Prompt]()
            sequences = self._places[:ongoing]
        else:
            batch = self.inputs_and_outputs.requests_in_batch
            lengths = [
                (one.state.position_offset - one.query_length, one.query_length) for one in batch
            ]
            ongoing, prompts = steps.split(lengths)
            sequences = steps.sequence_of_tokens(ongoing, prompts, positions.device)
        return steps.Step(ongoing, prompts, positions, sequences)

    def _get_forward_fn(self, use_block_table: bool) -> tuple[Callable[..., None], bool]:
        del use_block_table  # every step has one
        return self._forward_process_and_sample, self.pad_inputs

    def _keep(self, logits: Tensor) -> None:
        """Where every graph finds it: memory of its own would be kept for each."""
        if not self._logits.numel():
            self._logits = logits.new_empty((self._most, logits.shape[1]), dtype=torch.float32)
        self._logits[: logits.shape[0]].copy_(logits)


class TableInputs(ContinuousBatchingIOs):
    """A step's tensors, for which only the pages of its sequences are listed, not its tokens."""

    block_table: Tensor

    def __init__(self, base: Any, **settings: Any) -> None:
        """Takes the place of `base`."""
        super().__init__(cache=base.cache, device=base.device, **settings)
        self.compute_stream = base.compute_stream
        # Filled row by row on the host and sent at once.
        self.block_table = torch.full(
            self.block_table.shape, -1, dtype=torch.int32, pin_memory=base.device.type == "cuda"
        )
        self.cache.fill_block_table = self._fill

    def prepare_batch_tensors(
        self,
        requests_in_batch: list[Any],
        logits_processors: Any,
        use_decode_fast_path: bool,
        num_q_tokens: int,
        max_kv_read: int,
        use_padding: bool,
    ) -> None:
        """With the table in any case."""
        del use_decode_fast_path
        super().prepare_batch_tensors(
            requests_in_batch, logits_processors, True, num_q_tokens, max_kv_read, use_padding
        )

    def _fill(self, request_id: str, past: int, new: int, table: Tensor) -> None:
        del past, new
        rows = table.numpy()
        for allocator in self.cache.cache_allocators.values():
            blocks = allocator.block_table[request_id]
            stride = allocator.block_physical_stride // allocator.tokens_per_page
            rows[allocator.index, : len(blocks)] = [block * stride for block in blocks]


class PatientScheduler(scheduler.FIFOScheduler):
    """First come, first served, but prompts are let in a few at a time."""

    block_new_requests: bool

    def schedule_batch(
        self, token_budget: int, cache_budget: int
    ) -> tuple[list[Any] | None, bool, int, int]:
        blocked = self.block_new_requests
        self.block_new_requests = blocked or not steps.worth_reading(
            len(self.active_requests), len(self.waiting_requests), self.max_requests_per_batch
        )
        batch, _, tokens, read = super().schedule_batch(token_budget, cache_budget)
        self.block_new_requests = blocked
        only_ongoing = bool(batch) and all(
            one.query_length == 1 and one.state.position_offset > 0 for one in batch or ()
        )
        return batch, only_ongoing, tokens, read


scheduler.SCHEDULER_MAPPING["promptmill"] = PatientScheduler
