"""The Python face: everything that the command line does, without the command line.

from producer import Client

client = Client()
batch = client.submit(["One prompt", "Another"], model="openai-community/gpt2")
client.wait(batch.id)
for result in client.results(batch.id):
    print(result.id, result.text)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self

from db.database import Database
from db.errors import BrokerUnavailable, LostRace, NotFoundError, UsageError
from db.faults import Faults
from db.migrate import ready
from db.modes import Mode, as_mode
from db.patience import patiently
from db.plan import full_chunk
from db.queries import batches as batch_queries
from db.queries import failures, retries, steering
from db.queries import jobs as job_queries
from db.queries import pace as pace_queries
from db.queries import workers as worker_queries
from db.queries.deletion import delete_batch
from db.queries.results import Only
from db.queries.results import Order as ResultOrder
from db.records import Batch, FailureGroup, Job, Pace, ServedModel, Worker
from db.sampling import normalise
from db.settings import Settings, settings
from db.states import as_state
from producer import intake
from producer.adapters import with_places
from producer.intake import Lines, Source
from producer.model_files import canonical_model
from producer.prompt_form import PromptForm, prompt_form
from producer.reading import ReadingOptions
from producer.reading.mode_choice import ModeChoice
from producer.reading.openai_batch import EMBEDDINGS
from producer.references import Reference, resolve
from producer.schemas import Schema, with_schema
from producer.submission import Order, Submission, check_terms, send_messages, submit

if TYPE_CHECKING:
    from celery import Celery
    from sqlalchemy import Connection

    from producer.replaying import Replay
    from producer.results import Results

logger = logging.getLogger(__name__)


class Client:
    """One connection to promptmill's database and broker; threads may share it."""

    def __init__(self, config: Settings | None = None) -> None:
        """With no settings given, those of the environment. Raises SettingsError."""
        self.settings = config or settings()

    def submit(
        self,
        source: Source,
        *,
        model: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        schema: Schema | None = None,
        template: str | None = None,
        system: str | None = None,
        chat: bool | None = None,
        columns: Iterable[str] = (),
        format: str | None = None,  # noqa: A002 - the user's word for it
        quoting: str | None = None,
        mode: str | None = None,
        priority: int = 5,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        skip_invalid: bool = False,
        ignore_line_model: bool = False,
        adapters: Iterable[str] = (),
        expires: float | timedelta | None = None,
        on_progress: Callable[[int], None] = lambda _count: None,
    ) -> Batch:
        """Queue prompts; the batch, running or about to.

        `source` is a path, URL or glob of a prompt file, or an iterable of prompts (text) and
        requests (mappings). `template` makes prompts of rows; where the model has a chat template
        these become a chat's user messages, and `system` makes its system message; `chat` says
        whether they shall. `columns` are names that are data, though they are called like
        parameters. `format` and `quoting` (`csv` or `none`: what quotes mean in CSV and TSV) say
        how a file is read, where its name and content do not. `mode` is `generate`, `score` or
        `embed`; None: `embed` where the first request is for `/v1/embeddings`, else `generate`.
        `schema`, a JSON Schema or a pydantic model class, is what every text follows as JSON.
        `adapters` are names of LoRA adapters that a request's `model` may name. The same content
        under the same `name` or `idempotency_key` gives the batch that exists. What is unfinished
        after `expires` (seconds, or a timedelta) expires.
        Raises UsageError with all that is wrong with the call (`faults` has each), or InvalidInput
        with every bad line, and queues nothing then. Where the database or
        Redis is away, it waits for them, for `Settings.patience` seconds.
        """
        faults = Faults()
        params = faults.of(with_schema, params, schema) or params
        terms: dict[str, Any] = {
            "name": name,
            "metadata": metadata or {},
            "idempotency_key": idempotency_key,
            "adapters": tuple(adapters),
            "expires": expires.total_seconds() if isinstance(expires, timedelta) else expires,
        }
        prepared = self._prepared(
            partial(intake.from_source, source, given_format=format, quoting=quoting),
            faults, model=model, mode=mode, params=params, template=template, system=system,
            chat=chat, columns=columns, terms=terms,
        )  # fmt: skip
        decided, lines = intake.with_mode(prepared.lines, prepared.choice)
        return self.submit_lines(
            lines,
            model=model,
            params=params,
            mode=decided,
            priority=priority,
            skip_invalid=skip_invalid,
            ignore_line_model=ignore_line_model,
            on_progress=on_progress,
            **terms,
        ).batch

    def submit_files(
        self,
        sources: Iterable[str],
        *,
        template: str | None = None,
        system: str | None = None,
        chat: bool | None = None,
        columns: Iterable[str] = (),
        format: str | None = None,  # noqa: A002 - the user's word for it
        model: str | None = None,
        quoting: str | None = None,
        params: Mapping[str, Any] | None = None,
        mode: str | None = None,
        engine: str | None = None,
        faults: Faults | None = None,
        **options: Any,
    ) -> Submission:
        """As `submit`, for several files in one batch; reports whether it is new.

        `engine`: what will run it; None: as the settings say. `faults`: what the caller has found
        wrong already, to be raised together with what is found here.
        """
        prepared = self._prepared(
            partial(intake.from_files, list(sources), given_format=format, quoting=quoting),
            Faults() if faults is None else faults,
            model=model, mode=mode, params=params, template=template, system=system, chat=chat,
            columns=columns, terms=options, engine=engine,
        )  # fmt: skip
        decided, lines = intake.with_mode(prepared.lines, prepared.choice)
        done = self.submit_lines(lines, model=model, params=params, mode=decided, **options)
        notes = [prepared.note]
        if not prepared.choice.is_given and decided is Mode.EMBED:
            notes.append(f"the lines are for {EMBEDDINGS}: mode embed")
        return replace(done, notes=tuple(filter(None, notes)))

    def submit_lines(
        self,
        lines: Lines,
        *,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        mode: str = Mode.GENERATE,
        adapters: Iterable[str] = (),
        on_progress: Callable[[int], None] = lambda _count: None,
        outdated: Callable[[Batch], str | None] = lambda _batch: None,
        **options: Any,
    ) -> Submission:
        """Submit lines that were read already; `options` are those of an Order.

        `outdated` says why a batch of the same content won't do, or None.
        """
        chosen = model or self.settings.model
        known = frozenset((*adapters, *self.settings.adapters))
        if chosen is None:
            chosen, lines = intake.model_of_first(lines, known)
        order = Order(
            model=canonical_model(chosen),
            params=normalise(params or {}, mode=as_mode(mode)),
            mode=as_mode(mode),
            adapters=known,
            chunk_size=self.settings.chunk_size,
            **options,
        )
        patience = self.settings.patience
        if not self.settings.embedded_broker:
            patiently(self.ping_broker, patience)
        database = patiently(lambda: self.database, patience)
        return submit(
            database,
            self._send,
            order,
            lines,
            patience=patience,
            on_progress=on_progress,
            outdated=outdated,
        )

    def reference(self, id: str, *, jobs: bool = True, unique: bool = False) -> Reference:  # noqa: A002
        """The batch or job that an id, or a name, stands for. Raises NotFoundError.

        Of several batches of one name it is the newest, and a warning is logged that says so;
        with `unique`, it raises ConflictError. `jobs`: whether a job may be meant.
        """
        with self.database.read() as connection:
            reference = resolve(connection, id, jobs=jobs, unique=unique)
        if reference.remark is not None:
            logger.warning("%s", reference.remark)
        return reference

    def status(self, id: str) -> Batch | Job:  # noqa: A002 - what users call it
        """A batch by its id or name, or a job by `BATCH-LINE`. Raises NotFoundError."""
        reference = self.reference(id)
        with self.database.read() as connection:
            if reference.line is None:
                return batch_queries.get(connection, reference.uid)
            return job_queries.get_job(connection, reference.uid, reference.line)

    def batch(self, id: str, *, unique: bool = False) -> Batch:  # noqa: A002 - what users call it
        """A batch by its id or name. Raises NotFoundError, for a job's id too.

        Of several of one name it is the newest; with `unique`, it raises ConflictError.
        """
        reference = self.reference(id, jobs=False, unique=unique)
        if reference.line is not None:
            raise NotFoundError(f"'{id}' is a job: this takes a batch, such as {reference.uid}")
        return self.batch_by_id(reference.uid)

    def pace(self, batch: Batch) -> Pace:
        """How fast a batch goes now, and who works on it."""
        with self.database.read() as connection:
            return pace_queries.pace(connection, batch, within=self.settings.lease)

    def failures(self, id: str) -> list[FailureGroup]:  # noqa: A002 - what users call it
        """A batch's failed jobs by error code with one example each, the most frequent first.

        Of the first 10,000 failed jobs, which keeps it quick for any batch.
        """
        batch = self.batch(id)
        with self.database.read() as connection:
            return failures.by_code(connection, batch)

    def batches(
        self,
        limit: int = 20,
        *,
        states: Iterable[str] = (),
        model: str | None = None,
        name: str | None = None,
        since: float | timedelta | None = None,
    ) -> list[Batch]:
        """The newest batches, newest first.

        `states`: in one of these. `model` and `name`: a part of it, or a pattern with `*` and `?`.
        `since`: created in the last so many seconds. Raises UsageError for an unknown state.
        """
        with self.database.read() as connection:
            return batch_queries.newest(
                connection,
                limit,
                states=[as_state(state) for state in states],
                model=model,
                name=name,
                within=since.total_seconds() if isinstance(since, timedelta) else since,
            )

    def wait(
        self,
        id: str,  # noqa: A002 - what users call it
        *,
        on_progress: Callable[[Batch], None] = lambda _batch: None,
        timeout: float | None = None,
        poll: float = 0.5,
    ) -> Batch:
        """Block until the batch is finished; it. `on_progress` hears of it at every poll.

        `timeout` and `poll` are in seconds. Where the database is away meanwhile, it waits for it.
        Logs a warning if no worker serves the batch at the start.
        Raises TimeoutError; DatabaseUnavailable where it stays away for `Settings.patience`.
        """
        from producer.waiting import wait

        return wait(
            self, id, on_progress=on_progress, timeout=timeout, poll=poll,
            on_missing_worker=lambda text: logger.warning("batch %s: %s", id, text),
        )  # fmt: skip

    def results(
        self,
        id: str,  # noqa: A002 - what users call it
        *,
        order: ResultOrder = "input",
        only: Only | None = None,
        with_request: bool = False,
    ) -> Results:
        """The finished jobs of a batch, also while it runs.

        `only`: `succeeded`, `failed` or `truncated`. Raises UsageError for any other, and for a
        bad order.
        """
        from producer.results import Results

        return Results(
            self.database,
            self.batch(id),
            order=order,
            only=only,
            with_request=with_request,
        )

    def cancel(self, id: str) -> Batch:  # noqa: A002 - what users call it
        """Stop a batch; finished jobs stay. Idempotent."""
        batch = self._steer(id, steering.begin_cancel, unique=True)
        with self.database.write() as connection:
            steering.finish_cancel(connection, batch.key)
            return batch_queries.get(connection, batch.id)

    def pause(self, id: str) -> Batch:  # noqa: A002 - what users call it
        """Hold a batch back and free its workers. Idempotent."""
        return self._steer(id, steering.pause)

    def resume(self, id: str) -> Batch:  # noqa: A002 - what users call it
        """Let a paused batch go on. Idempotent."""
        batch = self._steer(id, steering.resume)
        self._ring(batch)
        return batch

    def retry(self, id: str) -> int:  # noqa: A002 - what users call it
        """Queue a batch's failed jobs again, or one by its job id; how many."""
        reference = self.reference(id, unique=True)
        batch, line = self.batch_by_id(reference.uid), reference.line
        count = self._retry_line(batch, line) if line is not None else self._retry_all(batch)
        if count:
            self._ring(batch)
        return count

    def replay(
        self,
        id: str,  # noqa: A002 - what users call it
        *,
        device: str | None = None,
        adapters: Mapping[str, str] | None = None,
    ) -> Replay:
        """Run a finished job again, on this machine, and compare; what is stored stays.

        `adapters`: where LoRA adapters lie, besides those of the settings: name -> folder or hub
        id.
        Raises UsageError where it can't be: it has not succeeded, or its model or its revision
        is not here.
        """
        from producer.replaying import replay

        job = self.status(id)
        if not isinstance(job, Job):
            raise UsageError(f"'{id}' is a batch: this takes a job, such as {id}-1")
        return replay(
            job,
            self.settings.with_(device=device).device if device else None,
            with_places(self.settings.adapters, (adapters or {}).items()),
        )

    def delete(self, id: str) -> None:  # noqa: A002 - what users call it
        """Delete a finished batch with its results. Raises ConflictError while it runs."""
        uid = self.batch(id, unique=True).id
        with self.database.read() as connection:
            batch = batch_queries.require_deletable(connection, uid)
        delete_batch(self.database, batch.key)

    def workers(self, *, within: float | None = None) -> list[Worker]:
        """Workers that gave a sign of life in the last `within` seconds; default: one lease."""
        with self.database.read() as connection:
            return worker_queries.alive(connection, within=within or self.settings.lease)

    def served_models(self, batch: Batch) -> list[ServedModel]:
        """What made the results of a batch so far, a record a worker."""
        with self.database.read() as connection:
            return worker_queries.served_models(connection, batch.key)

    def ping_broker(self) -> None:
        """Raise BrokerUnavailable unless Redis answers."""
        from worker.app import ping

        ping(self._app)

    def close(self) -> None:
        """Give the connections back. A later call opens new ones."""
        opened: Database | None = self.__dict__.pop("database", None)
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def database(self) -> Database:
        """Raises DatabaseUnavailable or SchemaMismatch, saying what to do."""
        database = Database(self.settings)
        try:
            ready(database)
        except BaseException:
            database.close()
            raise
        return database

    @cached_property
    def _app(self) -> Celery:
        from worker.app import make_app

        return make_app(self.settings)

    def _send(self, messages: list[tuple[int, str, int]]) -> int:
        from worker.app import send

        return send(self._app, messages)

    def batch_by_id(self, uid: str) -> Batch:
        """A batch by its whole id alone. Raises NotFoundError."""
        with self.database.read() as connection:
            return batch_queries.get(connection, uid)

    def _steer(
        self,
        id: str,  # noqa: A002
        change: Callable[[Connection, str], Batch],
        *,
        unique: bool = False,
    ) -> Batch:
        """Change a batch's state; once more where a worker changed it in the same moment."""
        uid = self.batch(id, unique=unique).id
        try:
            with self.database.write() as connection:
                return change(connection, uid)
        except LostRace:
            with self.database.write() as connection:
                return change(connection, uid)

    def _ring(self, batch: Batch) -> None:
        # Where Redis is away, workers find the chunks by themselves.
        with suppress(BrokerUnavailable):
            send_messages(self.database, self._send, batch.key)

    def _retry_all(self, batch: Batch) -> int:
        count, after = 0, 0
        while True:
            with self.database.write() as connection:
                lines = retries.failed_lines(connection, batch.key, after)
                if not lines:
                    return count
                fresh = batch_queries.get(connection, batch.id)
                size = self.settings.chunk_size or full_chunk(len(lines))
                count += retries.requeue(connection, fresh, lines, size)
            after = lines[-1]

    def _retry_line(self, batch: Batch, line: int) -> int:
        with self.database.write() as connection:
            job_queries.get_job(connection, batch.id, line)
            return retries.requeue(connection, batch, [line], 1)

    def _prepared(
        self,
        open_lines: Callable[..., Lines],
        faults: Faults,
        *,
        model: str | None,
        mode: str | None,
        params: Mapping[str, Any] | None,
        template: str | None,
        system: str | None,
        chat: bool | None,
        columns: Iterable[str],
        terms: Mapping[str, Any],
        engine: str | None = None,
    ) -> _Prepared:
        """Whatever can be checked before lines are read. Raises UsageError with all faults.

        `open_lines` takes the reading's options. `terms` are fields of the Order. A part that is
        bad is replaced, so that the other ones can be checked.
        """
        chosen = model or self.settings.model
        canonical = None if chosen is None else faults.of(canonical_model, chosen)
        asked = faults.of(_mode_asked, mode, template)
        choice = faults.of(ModeChoice, asked, params or {})
        form: PromptForm | None = None
        if template is None or chosen is None:  # which lines must name then, and rows can't
            form = PromptForm(chat=bool(chat))
        elif canonical is not None:
            form = faults.of(
                prompt_form, canonical, asked or Mode.GENERATE, engine or self.settings.engine,
                chat=chat, system=system is not None,
            )  # fmt: skip
        adapters = (*terms.get("adapters", ()), *self.settings.adapters)
        faults.of(check_terms, canonical, **{**terms, "adapters": adapters})
        reading = self._reading(
            choice or ModeChoice(asked or Mode.GENERATE, {}),
            template=template,
            system=system,
            chat=bool(chat) or system is not None if form is None else form.chat,
            columns=columns,
        )
        lines = open_lines(**reading)
        begun = faults.of(lines.read)
        if begun is not None and lines.repeatable:
            faults.if_any(intake.look, begun, chosen, adapters)
        faults.raise_all()
        return _Prepared(
            faults.checked(choice),
            intake.begun(faults.checked(begun), lines),
            None if form is None else form.note,
        )

    def _reading(
        self,
        choice: ModeChoice,
        *,
        template: str | None,
        system: str | None,
        chat: bool,
        columns: Iterable[str],
    ) -> ReadingOptions:
        return {
            "template": template,
            "system": system,
            "chat": chat,
            "columns": frozenset(columns),
            "choice": choice,
            "max_prompt_bytes": self.settings.max_prompt_bytes,
        }


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is read next, after all checks that come before it."""

    choice: ModeChoice
    lines: Lines
    #: What was decided of `template`, in one line for people; None: nothing.
    note: str | None


def _mode_asked(mode: str | None, template: str | None) -> Mode | None:
    """A template's rows are data, and name no endpoint. Raises UsageError."""
    if mode is None:
        return None if template is None else Mode.GENERATE
    return as_mode(mode)
