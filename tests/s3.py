"""The S3 API on loopback, at the end of a line that can be cut."""

import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from unittest import mock

import fsspec
import pytest

needs_s3 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto")), reason="s3fs or moto is not installed"
)


class Cable:
    """A TCP proxy on loopback in front of a server; it breaks after as many bytes of answers as it is told."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._bytes_left: int | None = None
        self._fatal_question: bytes | None = None
        self.port: int = self._listener.getsockname()[1]
        self.num_cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, num_bytes: int) -> None:
        self._bytes_left = num_bytes

    def break_when_asked_for(self, what: bytes) -> None:
        """From the middle of the answer to that request on, until it is mended."""
        self._fatal_question = what

    def mend(self) -> None:
        self._fatal_question = None
        self._bytes_left = None

    @contextmanager
    def bypassed(self) -> Iterator[None]:
        """Who connects anew meanwhile reaches the server without the cable."""
        with mock.patch.dict(os.environ, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._target_port}"}):
            yield

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
                threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with closing(source), closing(sink), suppress(OSError):
            while data := source.recv(4096):
                if not is_answer and self._fatal_question and self._fatal_question in data:
                    self._bytes_left, self._fatal_question = 5_000, None
                if is_answer and self._bytes_left is not None:
                    data, self._bytes_left = data[: self._bytes_left], max(0, self._bytes_left - len(data))
                sink.sendall(data)
                if is_answer and self._bytes_left == 0:
                    self.num_cuts += 1
                    break
            for each in (source, sink):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def cable_to_s3() -> Iterator[Cable]:
    """To moto's server; whatever looks for S3 meanwhile finds it there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    cable = Cable(server.get_host_and_port()[1])
    environment = {
        "AWS_ACCESS_KEY_ID": "for tests",
        "AWS_SECRET_ACCESS_KEY": "for tests",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{cable.port}",
        "AWS_MAX_ATTEMPTS": "1",
    }
    try:
        with mock.patch.dict(os.environ, environment):
            yield cable
    finally:
        cable.close()
        server.stop()


def empty_bucket(cable: Cable, name: str) -> None:
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if files.exists(name):
        files.rm(name, recursive=True)
    files.mkdir(name)
