"""The wire: the official client, one call after the other, every error of its as a Trouble.

The only module that knows the key. The client's own retries are off: ours decide, for all
requests together. Every text that comes from the endpoint is cleared of the key before it goes
on, as some servers repeat it in their errors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable

import openai
from pydantic import SecretStr

from db.errors import ModelLoadError, ModelUnavailable
from db.exact_json import dumps
from worker.engine.openai_api import replies, troubles
from worker.engine.openai_api.calls import Call
from worker.engine.openai_api.replies import Reply
from worker.engine.openai_api.settings import KEY_VARIABLE, EndpointSettings
from worker.engine.openai_api.troubles import Trouble

_log = logging.getLogger(__name__)

#: Seconds for a connection to come about, at most.
_CONNECT = 10.0

#: What the client is given where there is no key: it wants something.
_NO_KEY = "none"


class Endpoint:
    """Belongs to the loop that it was made in."""

    def __init__(self, settings: EndpointSettings, key: SecretStr | None) -> None:
        self._settings = settings
        self._key = key
        # At DEBUG it would log all headers of an answer, in which a server may repeat the key.
        logging.getLogger("httpcore2").setLevel(logging.INFO)
        limit = settings.timeout
        self._client = openai.AsyncOpenAI(
            api_key=key.get_secret_value() if key else _NO_KEY,
            base_url=settings.base_url,
            timeout=openai.Timeout(limit, connect=min(limit, _CONNECT)),
            max_retries=0,
        )
        #: Of every call: without a key the header is left out.
        self._headers = {} if key else {"Authorization": openai.Omit()}

    async def check(self, model: str) -> None:
        """Whether it answers and accepts the key. Raises ModelLoadError, or
        ModelUnavailable where it does not answer."""
        got = await self._guarded(
            self._client.get("/models", cast_to=str, options={"headers": self._headers})
        )
        if isinstance(got, str):
            self._look_for(model, got)
        elif got.failure.code == "endpoint_denied":
            source = self._settings.api_key_file or KEY_VARIABLE
            had = f"the key from {source}" if self._key else f"a call without a key ({source})"
            raise ModelLoadError(
                f"{self._settings.base_url} does not accept {had}: {got.failure.message}"
            )
        elif got.absent:
            raise ModelUnavailable(
                f"can't reach {self._settings.base_url}: {got.failure.message}: is the engine "
                "option base_url right, and does the server run?"
            )
        elif got.failure.code != "endpoint_not_found":
            # It is there and busy, or has no such list: the requests will tell.
            _log.warning("%s", got.failure.message, extra={"action": "endpoint_check"})

    async def ask(self, call: Call, alternatives: int) -> Reply | Trouble:
        """Send it and read the answer; never raises but for being cancelled."""
        # The client's own methods would write other digits, and refuse 1e400.
        got = await self._guarded(
            self._client.post(
                "/chat/completions" if call.chat else "/completions",
                cast_to=str,
                content=dumps({**call.fields, **call.extra}),
                options={"headers": self._headers},
            )
        )
        if isinstance(got, Trouble):
            return got
        try:
            return replies.read(got, alternatives)
        except replies.Garbled as error:
            return troubles.garbled(self._clean(str(error)))

    async def close(self) -> None:
        await self._client.close()

    async def _guarded(self, sending: Awaitable[str]) -> str | Trouble:
        """The body of an answer with a good status."""
        try:
            # Besides the client's own, which an answer that drips in never reaches.
            async with asyncio.timeout(self._settings.timeout):
                return await sending
        except (TimeoutError, openai.APITimeoutError):
            return troubles.timed_out(self._settings.timeout)
        except openai.APIStatusError as error:
            return troubles.of_status(
                error.status_code,
                {name.lower(): value for name, value in error.response.headers.items()},
                self._clean(error.response.text),
                time.time(),
            )
        except openai.APIConnectionError as error:
            return troubles.disconnected(self._clean(str(error.__cause__ or error)))
        except (openai.OpenAIError, ValueError) as error:
            return troubles.garbled(self._clean(str(error)))

    def _look_for(self, model: str, body: str) -> None:
        listed = replies.model_ids(body)
        # Google's names have a folder in front.
        if listed and not {model, f"models/{model}"} & set(listed):
            _log.warning(
                "%s does not list the model '%s'", self._settings.base_url, model,
                extra={"action": "endpoint_check"},
            )  # fmt: skip

    def _clean(self, text: str) -> str:
        return text.replace(self._key.get_secret_value(), "***") if self._key else text
