"""An OpenAI-compatible endpoint over loopback that answers as the echo engine does, or badly.

It takes the fields that the official client's types name, and vLLM's where it is told to; any
other is refused with 400, as OpenAI does.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from db.exact_json import loads
from db.sampling import SamplingParams
from worker.engine.echo_words import answer
from worker.engine.protocol import Completed, Failed, Request, Sample

_KNOWN = {
    "/v1/chat/completions": {
        *chat_params.CompletionCreateParamsBase.__annotations__,
        *chat_params.CompletionCreateParamsNonStreaming.__annotations__,
    },
    "/v1/completions": {
        *text_params.CompletionCreateParamsBase.__annotations__,
        *text_params.CompletionCreateParamsNonStreaming.__annotations__,
    },
}
_OF_VLLM = {
    *("top_k", "min_p", "repetition_penalty", "ignore_eos", "stop_token_ids"),
    *("chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
}


class Fault(Enum):
    """What may become of a request besides its answer."""

    RESET = "the connection is reset in the middle of the body"
    HANG = "no answer, ever"
    GARBAGE = "status 200 and half a JSON document"
    NO_CHOICES = "status 200 and a JSON document that is no answer"
    SLOW = "the first byte comes late"


@dataclass(frozen=True)
class Status:
    """An error status; `say` is the whole body where it is given."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    say: str | None = None


#: Number of the request (0, 1, …) and its body -> what goes wrong with it; None: nothing.
Faults = Callable[[int, Mapping[str, Any]], Fault | Status | None]


def no_faults(number: int, body: Mapping[str, Any]) -> None:
    return None


class EchoEndpoint:
    """A server on a free port; every request that it gets is kept."""

    def __init__(
        self,
        *,
        key: str | None = None,
        faults: Faults = no_faults,
        vllm: bool = False,
        seconds_per_token: float = 0.0,
        samples: int = 128,
        models: Status | None = None,
        thinks_in: str | None = None,
    ) -> None:
        """`samples`: more than so many are not given at once. `models`: of GET /models.

        `thinks_in`: chats are thought about, and this field of the message has the thinking.
        """
        self.key = key
        self.faults = faults
        self.vllm = vllm
        self.seconds_per_token = seconds_per_token
        self.samples = samples
        self.models = models
        self.thinks_in = thinks_in
        #: (time.monotonic(), path, body) of every POST.
        self.posts: list[tuple[float, str, dict[str, Any]]] = []
        self.authorizations: set[str | None] = set()
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.endpoint = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        with self.lock:
            return [body for _, _, body in self.posts]

    @property
    def times(self) -> list[float]:
        with self.lock:
            return [at for at, _, _ in self.posts]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    endpoint: EchoEndpoint
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what some tests want."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        status = self._refusal() or self.server.endpoint.models
        if status is not None:
            self._send_status(status)
        else:
            self._send(200, {"object": "list", "data": [{"id": "echo", "object": "model"}]})

    def do_POST(self) -> None:
        endpoint = self.server.endpoint
        body = loads(self.rfile.read(int(self.headers["content-length"])))
        with endpoint.lock:
            number = len(endpoint.posts)
            endpoint.posts.append((time.monotonic(), self.path, body))
            endpoint.at_once += 1
            endpoint.most_at_once = max(endpoint.most_at_once, endpoint.at_once)
        try:
            self._answer(number, body)
        finally:
            with endpoint.lock:
                endpoint.at_once -= 1

    def _answer(self, number: int, body: dict[str, Any]) -> None:
        endpoint = self.server.endpoint
        fault = self._refusal() or endpoint.faults(number, body)
        if isinstance(fault, Status):
            self._send_status(fault)
        elif fault is Fault.HANG:
            endpoint.closing.wait()
        elif fault is Fault.GARBAGE:
            self._send_text(200, '{"choices": [{"text": "ha')
        elif fault is Fault.NO_CHOICES:
            self._send(200, {"object": "something"})
        elif fault is Fault.RESET:
            self._reset()
        else:
            if fault is Fault.SLOW:
                endpoint.closing.wait(0.2)
            self._send(*self._echo(body))

    def _refusal(self) -> Status | None:
        endpoint = self.server.endpoint
        given = self.headers.get("authorization")
        endpoint.authorizations.add(given)
        if endpoint.key is not None and given != f"Bearer {endpoint.key}":
            # As careless as some servers are: it repeats the key.
            return Status(401, {}, json.dumps({"error": {"message": f"wrong key: {given}"}}))
        return None

    def _echo(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        endpoint = self.server.endpoint
        known = _KNOWN[self.path] | (_OF_VLLM if endpoint.vllm else set())
        if unknown := set(body) - known:
            return 400, _error(f"Unknown name {sorted(unknown)}")
        request = _request(body, min(body.get("n", 1), endpoint.samples))
        outcome = answer(request)
        if isinstance(outcome, Failed):
            return 400, _error(outcome.message)
        tokens = sum(sample.completion_tokens for sample in outcome.samples)
        endpoint.closing.wait(tokens * endpoint.seconds_per_token)
        document = _document(outcome, tokens, chat="messages" in body)
        for choice in document["choices"] if "messages" in body else ():
            _call(choice, body)
            if endpoint.thinks_in is not None:
                choice["message"][endpoint.thinks_in] = "Hm."
        return 200, document

    def _reset(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        # Closed so, a socket sends RST and not FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _send_status(self, status: Status) -> None:
        said = status.say if status.say is not None else json.dumps(_error("not now"))
        self._send_text(status.code, said, status.headers)

    def _send(self, code: int, document: dict[str, Any]) -> None:
        self._send_text(code, json.dumps(document))

    def _send_text(self, code: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        payload = text.encode()
        with contextlib.suppress(ConnectionError):
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)


def _request(body: dict[str, Any], n: int) -> Request:
    logprobs = body.get("logprobs", False)
    given = {
        "max_tokens": body.get("max_completion_tokens", body.get("max_tokens")),
        "temperature": float(body.get("temperature", 1.0)),
        "n": n,
        "stop": body.get("stop", []),
        "logprobs": logprobs if not isinstance(logprobs, bool) or not logprobs else True,
        "ignore_eos": body.get("ignore_eos", False),
        "stop_token_ids": body.get("stop_token_ids", []),
    }
    if logprobs is not False and "top_logprobs" in body:
        given["top_logprobs"] = body["top_logprobs"]
    return Request(
        id="one",
        params=SamplingParams.model_validate(given),
        seed=body.get("seed", 0),
        prompt=None if isinstance(body.get("prompt"), list) else body.get("prompt"),
        prompt_ids=body["prompt"] if isinstance(body.get("prompt"), list) else None,
        messages=body.get("messages"),
    )


def _document(outcome: Completed, tokens: int, *, chat: bool) -> dict[str, Any]:
    return {
        "id": "one",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": "echo",
        # The order of choices is nowhere promised.
        "choices": [_choice(sample, chat=chat) for sample in reversed(outcome.samples)],
        "usage": {
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": outcome.prompt_tokens + tokens,
        },
    }


def _choice(sample: Sample, *, chat: bool) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": sample.index, "finish_reason": sample.finish_reason}
    found = sample.logprobs
    if chat:
        content = None if found is None else [
            {
                "token": one.token,
                "logprob": one.logprob,
                "bytes": None,
                "top_logprobs": [
                    {"token": top.token, "logprob": top.logprob, "bytes": None} for top in one.top
                ],
            }
            for one in found
        ]  # fmt: skip
        choice["message"] = {"role": "assistant", "content": sample.text, "refusal": None}
        choice["logprobs"] = None if content is None else {"content": content}
    else:
        choice["text"] = sample.text
        choice["logprobs"] = None if found is None else {
            "tokens": [one.token for one in found],
            "token_logprobs": [one.logprob for one in found],
            "top_logprobs": [{t: p for t, _, p, _ in one.top} for one in found],
            "text_offset": [0 for _ in found],
        }  # fmt: skip
    return choice


def _call(choice: dict[str, Any], body: Mapping[str, Any]) -> None:
    """In place of its text, a call of the function that is named, or of the first one."""
    wanted = body.get("tool_choice", "auto")
    if wanted in ("auto", "none"):
        return
    function = (wanted if isinstance(wanted, dict) else body["tools"][0])["function"]
    message = choice["message"]
    called = {"name": function["name"], "arguments": json.dumps({"said": message["content"]})}
    message["tool_calls"] = [{"id": f"call_{choice['index']}", "type": "function"}]
    message["tool_calls"][0]["function"] = called
    message["content"] = None
    # OpenAI says `stop` where the function was named.
    choice["finish_reason"] = "stop" if isinstance(wanted, dict) else "tool_calls"


def _error(message: str) -> dict[str, Any]:
    return {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    }
