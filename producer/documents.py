"""Records as JSON documents: what `--json` prints. Names here are promises to programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from db.records import Batch, Job, Pace, Worker
from producer.activity import stored_left
from producer.display import iso


def batch_document(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "object": "batch",
        "name": batch.name,
        "model": batch.model,
        "queue": batch.queue,
        "mode": batch.mode,
        "state": batch.state,
        "priority": batch.priority,
        "params": batch.params,
        "metadata": batch.metadata,
        "counts": {
            "total": batch.total,
            "done": batch.done,
            "succeeded": batch.succeeded,
            "failed": batch.failed,
            "cancelled": batch.cancelled,
            "expired": batch.expired,
        },
        "tokens": {"prompt": batch.prompt_tokens, "completion": batch.completion_tokens},
        "samples": {
            "total": batch.sample_counts.samples,
            "truncated": batch.sample_counts.truncated,
            "shortest_cut": batch.sample_counts.shortest_cut,
            "longest_cut": batch.sample_counts.longest_cut,
        },
        "created_at": iso(batch.created_at),
        "started_at": iso(batch.started_at),
        "finished_at": iso(batch.finished_at),
        "expires_at": iso(batch.expires_at),
    }


def pace_document(batch: Batch, pace: Pace) -> dict[str, Any]:
    """How fast an unfinished batch goes.

    `tokens_per_second` is null until its workers have measured it, `seconds_left` where nothing
    tells it.
    """
    left = stored_left(batch, pace)
    return {
        "workers": pace.working,
        "running": pace.running,
        "tokens_per_second": _measured(pace.tokens_per_second, busy=pace.working > 0),
        "seconds_left": left if left is None else round(left, 1),
        "stops_at": iso(pace.stops_at),
    }


def job_document(job: Job) -> dict[str, Any]:
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    return {
        "id": job.id,
        "object": "job",
        "batch": job.batch,
        "line": job.line,
        "mode": job.mode,
        "custom_id": job.custom_id,
        "state": job.state,
        "attempts": job.attempts,
        "worker": job.worker,
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
        "tokens": {"prompt": job.prompt_tokens, "completion": job.completion_tokens},
        "columns": job.columns,
        "request": job.request,
        "samples": job.samples,
        "seed": job.seed,
        "params": job.params,
        "provenance": job.provenance and asdict(job.provenance),
        "error": error,
        "history": [
            {
                "worker": attempt.worker,
                "started_at": iso(attempt.started_at),
                "ended_at": iso(attempt.ended_at),
                "error": {"code": attempt.error_code, "message": attempt.error_message},
                "params": attempt.params,
                "samples": attempt.samples,
            }
            for attempt in job.history
        ],
    }


def adapters_of(worker: Worker) -> dict[str, str]:
    """Name -> digest of the LoRA adapters that it has loaded."""
    return orjson.loads(worker.adapters) if worker.adapters else {}


def worker_document(worker: Worker) -> dict[str, Any]:
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "queue": worker.queue,
        "engine": worker.engine,
        "model": worker.model,
        "revision": worker.revision,
        "device": worker.device,
        "dtype": worker.dtype,
        "parameters": worker.parameters,
        "kv_tokens": worker.kv_tokens,
        "capacity": worker.capacity,
        "adapters": adapters_of(worker),
        "in_flight": worker.in_flight,
        "jobs": worker.jobs,
        "tokens": {"prompt": worker.prompt_tokens, "completion": worker.completion_tokens},
        "tokens_per_second": _measured(worker.tokens_per_second, busy=worker.in_flight > 0),
        "started_at": iso(worker.started_at),
        "heartbeat_at": iso(worker.heartbeat_at),
        "silent_for": round(worker.silent_for, 2),
        "stops_at": iso(worker.stops_at),
    }


def _measured(rate: float, *, busy: bool) -> float | None:
    """None: it computes, and has not reported a token yet."""
    return None if busy and rate <= 0 else round(rate, 2)
