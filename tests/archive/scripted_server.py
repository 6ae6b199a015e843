"""An HTTP server that answers as a test tells it: for what the real service only does on a bad day."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl, urlsplit

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body; a status of 0 hangs up."""


def problem(status: int, kind: str, **headers: str) -> Answer:
    body = {"type": f"urn:photo-restoration:problem:{kind}", "status": status, "detail": "as told", "request_id": "r1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/problem+json"} | named, json.dumps(body).encode()


def restored(content: bytes, release: str = "0001") -> Answer:
    return 200, {"X-Model-Version": release, "X-Damage-Ratio": "0.25", "ETag": '"e"'}, content


class ScriptedServer:
    """answer: given the body of a POST, what to say; seen: queries and headers of the POSTs so far."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], Answer] = restored
        self.is_ready = True
        self.seen: list[tuple[dict[str, str], dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say((200, {}, b'{"release": "0001"}') if outer.is_ready else problem(503, "not-ready"))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((dict(parse_qsl(urlsplit(self.path).query)), dict(self.headers)))
                self._say(outer.answer(body))

            def _say(self, answer: Answer) -> None:
                status, headers, body = answer
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not into the tests' output."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def say_first(self, *first: Answer) -> None:
        """These one after the other, and then the photo as it came."""
        left = list(first)
        self.answer = lambda body: left.pop(0) if left else restored(body)
