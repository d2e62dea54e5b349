"""A model hub for tests: one that answers what it is given, and one that nobody reaches."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Nobody listens there: a connection is refused at once.
AWAY = "http://127.0.0.1:1"


@contextmanager
def serving(models: Mapping[str, Any]) -> Iterator[str]:
    """The URL of a hub that has these models: what its API says of each, or the word for why not
    (`RepoNotFound`, `GatedRepo`, `RevisionNotFound`).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = self.path.partition("?")[0].removeprefix("/api/models/")
            answer = models.get(model.partition("/revision/")[0], "RepoNotFound")
            refused = isinstance(answer, str)
            body = json.dumps({"error": answer} if refused else answer).encode()
            self.send_response(404 if refused else 200)
            if refused:
                self.send_header("X-Error-Code", answer)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
