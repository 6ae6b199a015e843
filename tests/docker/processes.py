"""Real processes on free ports: the service, and Prometheus."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

REPOSITORY = Path(__file__).resolve().parent.parent.parent
Found = TypeVar("Found")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(look: Callable[[], Found | None], what: str, timeout_seconds: float = 120.0) -> Found:
    give_up_at = time.monotonic() + timeout_seconds
    while (found := look()) is None:
        assert time.monotonic() < give_up_at, f"waited {timeout_seconds:g} s for {what}"
        time.sleep(0.1)
    return found


def status_of(url: str) -> int | None:
    """None while nobody answers."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return None


@contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, from its first answer at `url` on; killed at the end if it still runs."""
    with subprocess.Popen(command, env={**os.environ, **environment}, cwd=REPOSITORY) as process:
        try:
            wait_for(lambda: status_of(url), f"{command[:3]} at {url}")
            yield process
        finally:
            process.kill()


@contextmanager
def running_service(store: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its address, which answers; ready or not."""
    port = free_port()
    environment = {f"RESTORE_{name.upper()}": value for name, value in settings.items()}
    environment |= {"RESTORE_PORT": str(port), "RESTORE_MODEL_STORE": str(store), "RESTORE_STORE_POLL_SECONDS": "0.2"}
    url = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "service"], f"{url}/livez", **environment) as process:
        yield process, url
