"""Several instances of the service as one: the least busy first; one that asks for rest only while all of them do."""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from archive.errors import CollectionError, Unavailable, Unreachable

FIRST_REST_SECONDS = 0.25
LONGEST_REST_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 600.0  # a server that says more is taken for mistaken


@dataclass
class Server:
    """address: without a slash at its end; failures: in a row; rests_until_seconds: on the monotonic clock."""

    address: str
    num_in_flight: int = 0
    num_failures: int = 0
    rests_until_seconds: float = 0.0


class Servers:
    """For any number of threads."""

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise CollectionError("no address of a service was given; name one, such as http://127.0.0.1:8000")
        for address in addresses:
            if not _is_address(address):
                raise CollectionError(f"{address} is no address of a service; name one such as http://127.0.0.1:8000")
        self._servers = [Server(address.rstrip("/")) for address in dict.fromkeys(addresses)]
        self._lock = threading.Lock()

    @property
    def addresses(self) -> list[str]:
        return [server.address for server in self._servers]

    @contextmanager
    def choose(self) -> Iterator[str]:
        """The address to ask. What is raised within says how that server is."""
        with self._lock:
            now_seconds = time.monotonic()
            server = min(self._servers, key=lambda one: (max(one.rests_until_seconds, now_seconds), one.num_in_flight))
            server.num_in_flight += 1
        try:
            yield server.address
        except Unavailable as error:
            self._let_rest(server, error.retry_after_seconds)
            raise
        except Unreachable:
            self._let_rest(server, None)
            raise
        else:
            server.num_failures = 0
        finally:
            with self._lock:
                server.num_in_flight -= 1

    def seconds_until_one_is_free(self) -> float:
        """At least a moment: whoever asks has just failed."""
        with self._lock:
            rest_seconds = min(server.rests_until_seconds for server in self._servers) - time.monotonic()
        return max(rest_seconds, FIRST_REST_SECONDS) * random.uniform(1.0, 1.1)

    def _let_rest(self, server: Server, asked_seconds: float | None) -> None:
        """As long as it asks; else twice as long each time, counting photos that fail together as one failure."""
        with self._lock:
            now_seconds = time.monotonic()
            if asked_seconds is not None:
                seconds = min(asked_seconds, LONGEST_RETRY_AFTER_SECONDS)
            elif now_seconds < server.rests_until_seconds:
                return
            else:
                seconds = min(FIRST_REST_SECONDS * 2**server.num_failures, LONGEST_REST_SECONDS)
                server.num_failures += 1
            server.rests_until_seconds = max(server.rests_until_seconds, now_seconds + seconds)


def _is_address(text: str) -> bool:
    try:
        address = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return address.scheme in ("http", "https") and bool(address.host) and (address.port or 0) < 2**16
