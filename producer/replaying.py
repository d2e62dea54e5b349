"""A finished job once more, on this machine, beside what is stored of it.

A child process (`worker.replay`) has the engine: a producer imports no model library. It gets the
request, the parameters and the seed as they were, and knows nothing of the database.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import IO, Any, get_args

import orjson

from db.errors import UsageError
from db.modes import Mode
from db.records import Job, Provenance
from db.settings import QUANTIZATION, Settings, settings, variable
from db.states import JobState
from db.wording import how_it_ended

#: A hub's revision that can be asked for; the digest of a folder can only be compared.
_COMMIT = re.compile(r"[0-9a-f]{40}")

_DTYPES = get_args(Settings.model_fields["dtype"].annotation)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a sample's texts part."""

    sample: int
    #: Characters that are the same in front; the whole text where only the ends differ.
    at: int
    #: Whole texts, thinking before them and calls after, and how they ended.
    stored: str
    replayed: str
    stored_finish_reason: str
    replayed_finish_reason: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a job that was run again."""

    job: str
    #: The samples that differ, in order; none: it gave the same again.
    differences: Sequence[Difference]
    stored: Provenance
    replayed: Provenance

    @property
    def same(self) -> bool:
        return not self.differences

    @property
    def changed(self) -> list[str]:
        """The fields of the provenance that are not equal, in their order."""
        names = [field.name for field in fields(Provenance)]
        return [
            name for name in names if getattr(self.stored, name) != getattr(self.replayed, name)
        ]


def replay(
    job: Job, device: str | None = None, adapters: Mapping[str, str] | None = None
) -> Replay:
    """Run the job again with model, revision, dtype, parameters and seed as they were.

    `device` as in the settings; by default a processor for what a processor made, else what is
    there. `adapters`: where LoRA adapters lie, by name; the job's own alone is loaded. Raises
    UsageError with the reason where it can't be replayed.
    """
    made = _provenance(job)
    environment = {**_environment(made, device), **_adapter(job, adapters or {})}
    answer = _answer(environment, _order(job, made))
    if "refused" in answer:
        raise UsageError(f"{job.id} can't be replayed here: {answer['refused']}")
    found = differences(job.samples, answer["samples"])
    return Replay(job.id, found, made, Provenance(**answer["provenance"]))


def differences(
    stored: Sequence[Mapping[str, Any]], replayed: Sequence[Mapping[str, Any]]
) -> list[Difference]:
    """The samples that say something else, think something else, or end otherwise, in order."""
    pairs = [
        (_whole(old), _whole(new), old, new) for old, new in zip(stored, replayed, strict=True)
    ]
    return [
        Difference(
            sample=number,
            at=_parting(before, now),
            stored=before,
            replayed=now,
            stored_finish_reason=old["finish_reason"],
            replayed_finish_reason=new["finish_reason"],
        )
        for number, (before, now, old, new) in enumerate(pairs)
        if before != now or old["finish_reason"] != new["finish_reason"]
    ]


def _whole(sample: Mapping[str, Any]) -> str:
    """All that it says: what it thought, its text, and its calls."""
    calls = sample.get("tool_calls") or ()
    parts = [
        sample.get("reasoning"),
        sample["text"],
        *(json.dumps(one["function"]) for one in calls),
    ]
    return "\n\n".join(filter(None, parts))


def replay_document(replay: Replay) -> dict[str, Any]:
    """What `--json` prints: its names are promises to programs."""
    return {
        "job": replay.job,
        "object": "replay",
        "same": replay.same,
        "differences": [asdict(one) for one in replay.differences],
        "changed": replay.changed,
        "stored": asdict(replay.stored),
        "replayed": asdict(replay.replayed),
    }


def _parting(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _provenance(job: Job) -> Provenance:
    if job.state is not JobState.SUCCEEDED:
        raise UsageError(f"{job.id} is {job.state}: only a job that succeeded can be replayed")
    if job.mode is not Mode.GENERATE:
        raise UsageError(f"{job.id} is of mode {job.mode}: only generated text can be replayed")
    if job.provenance is None:
        raise UsageError(f"{job.id} can't be replayed: nobody knows what made it")
    return job.provenance


def _order(job: Job, made: Provenance) -> dict[str, Any]:
    asked = {key: job.request.get(key) for key in ("prompt", "prompts", "messages", "tools")}
    return {
        "id": job.id,
        **asked,
        "params": job.params,
        "seed": job.seed,
        "clock": job.created_at,
        "revision": made.revision,
    }


def _environment(made: Provenance, device: str | None) -> dict[str, str]:
    """The settings of the child, besides this process's own; empty: unset."""
    commit = made.revision is not None and _COMMIT.fullmatch(made.revision)
    dtype, _, packing = made.dtype.partition(", ")
    wanted = {
        "model": made.model,
        "engine": made.engine,
        "dtype": dtype if dtype in _DTYPES else "auto",
        "engine_options": _options(made.engine, packing),
        "device": device or ("cpu" if made.device == "cpu" else "auto"),
        "revision": (made.revision or "") if commit else "",
    }
    return {variable(name): value for name, value in wanted.items()}


def _adapter(job: Job, places: Mapping[str, str]) -> dict[str, str]:
    """The setting of the child that names the job's adapter; empty: unset."""
    name = (job.params or {}).get("adapter")
    if name is None:
        return {variable("adapters"): ""}
    if name not in places:
        raise UsageError(
            f"{job.id} can't be replayed: it was made with adapter '{name}', and nobody says where "
            f"that is: give --adapter {name}=PATH"
        )
    return {variable("adapters"): orjson.dumps({name: places[name]}).decode()}


def _options(engine: str, packing: str) -> str:
    """This process's own engine options, but for how weights are packed: that is as it was.

    A checkpoint that has them packed needs no option; its packing is none of the option's words.
    """
    options = dict(settings().engine_options)
    if engine == "transformers":
        options.pop(QUANTIZATION, None)
        if packing.startswith("bnb-"):
            options[QUANTIZATION] = packing
    return orjson.dumps(options).decode() if options else ""


def _answer(environment: Mapping[str, str], order: Mapping[str, Any]) -> dict[str, Any]:
    """What the child says to the order. Raises UsageError where it dies without a word."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.replay"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, **environment},
            # Ctrl-C reaches the parent, which ends the child.
            start_new_session=True,
        )
        try:
            answer = _exchange(process, orjson.dumps(order))
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if not answer:
            reason = _last_line(said) or f"it {how_it_ended(code)}"
            raise UsageError(f"the engine's process could not go on: {reason}")
    told: dict[str, Any] = orjson.loads(answer)
    return told


def _exchange(process: subprocess.Popen[bytes], order: bytes) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process without its pipes")
    with process.stdin as stdin, process.stdout as stdout:
        try:
            stdin.write(order + b"\n")
            stdin.flush()
        except BrokenPipeError:
            return b""
        # Standard input stays open until then: its end would end the child.
        return stdout.read()


def _last_line(said: IO[bytes]) -> str | None:
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), None)
