"""`python -m service` as a process of its own, with the newest release."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

START_SECONDS = 300.0
ANSWER_SECONDS = 3600.0


@contextmanager
def running_service(**settings: object) -> Iterator[tuple[str, int]]:
    """The service's address and process id. settings: as in the environment, without the prefix, in lower case."""
    port = free_port()
    given = {"port": port, "log_level": "error", "deadline_seconds": ANSWER_SECONDS} | settings
    variables = {f"RESTORE_{name.upper()}": str(value) for name, value in given.items()}
    # Of a process group of its own: Ctrl-C is for the benchmark
    service = subprocess.Popen([sys.executable, "-m", "service"], env={**os.environ, **variables}, process_group=0)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(service, f"{address}/readyz")
        yield address, service.pid
    finally:
        service.terminate()
        service.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_until_ready(server: subprocess.Popen[bytes], address: str) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not is_ready(address):
        if server.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError("the server did not start; see its log above")
        time.sleep(0.2)


def is_ready(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


def restore(client: httpx.Client, address: str, photo: bytes) -> float:
    """Seconds from request to answer."""
    started_seconds = time.perf_counter()
    client.post(f"{address}/restore", content=photo).raise_for_status()
    return time.perf_counter() - started_seconds


def request_head(num_bytes: int) -> bytes:
    """Of a photo of so many bytes, for those who write to a socket themselves."""
    return f"POST /restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: {num_bytes}\r\n\r\n".encode()
