"""The service from Python: pooled connections, timeouts, retries, and a typed error for each problem.

    with Client("http://127.0.0.1:8000") as client:
        restored = client.restore("old.jpg", sensitivity=0.6)

`AsyncClient` is the same to be awaited. Both may be given several addresses of the same service, and share the work
out between them. Neither needs torch.
"""

import os
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack

import httpx
import stamina

from archive.answers import Restored, expect_success, read_restored
from archive.errors import CollectionError, DeadlineExceeded, ServiceError, Unavailable, Unreachable
from archive.servers import Servers

__all__ = ["AsyncClient", "Client", "Image", "RestoreParameters", "Restored"]

KEY_VARIABLE = "RESTORE_API_KEY"
KEY = re.compile("[!-~]+")
"""What a header can carry."""
READY_SECONDS = 10.0
"""How long a service may take to say whether it is ready."""
KEEP_IDLE_SECONDS = 5.0
"""A connection is not used again after so long: less than a service or a proxy keeps it open, who would else be closing
it just when the next request is on its way."""

Image: TypeAlias = str | os.PathLike[str] | bytes
"""A file's name, or what is in it."""


class RestoreParameters(TypedDict, total=False):
    """What `restore` takes beside the photo; docs/api.md says what each does. What is left out is the service's choice.

    damage, protect: masks; damage_map: whether that is to come along; release: raise WrongRelease if it is another.
    """

    mode: Literal["auto", "tile", "resize"]
    sensitivity: float
    denoise: float
    format: Literal["same", "jpeg", "png", "webp", "tiff", "jp2"]
    quality: int
    depth: Literal["same", "8"]
    history: bool
    release: str
    damage_map: bool
    damage: Image
    protect: Image


class _Calls:
    """What both clients share: everything but the waiting.

    addresses: one or several instances; api_key: default is the environment's RESTORE_API_KEY; answer_seconds: how
    long a photo may take; patience_seconds: for how long what may pass (no connection, 429, 502, 503, 504, 507) is
    tried again; what a quota asks to wait (429) is not counted.
    """

    def __init__(
        self,
        *addresses: str,
        api_key: str | None = None,
        answer_seconds: float = 900.0,
        patience_seconds: float = 600.0,
        max_connections: int = 64,
    ) -> None:
        key = os.environ.get(KEY_VARIABLE) if api_key is None else api_key
        if key and not KEY.fullmatch(key):
            raise CollectionError(
                f"the key in {KEY_VARIABLE} holds a space, a line's end or a character that is not ASCII, which no key "
                "does; set it anew"
            )
        self.servers = Servers(addresses)
        self._patience_seconds = patience_seconds
        self._settings: dict[str, Any] = {
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(answer_seconds, connect=10.0, pool=None),
            "limits": httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=KEEP_IDLE_SECONDS,
            ),
        }

    def _attempts(self) -> Any:
        patience = Patience(self.servers, self._patience_seconds)
        return stamina.retry_context(
            on=patience.seconds_to_wait, attempts=None if self._patience_seconds else 1, timeout=None
        )


class Patience:
    """Of one call, for what may pass. A wait that a quota asks for costs none of it: the service is well, and has said
    when it is the caller's turn again."""

    def __init__(self, servers: Servers, seconds: float) -> None:
        self._servers = servers
        self._ends_at_seconds = time.monotonic() + seconds

    def seconds_to_wait(self, error: Exception) -> float | bool:
        """As stamina asks; False when it is not to be tried again."""
        if not isinstance(error, Unreachable | Unavailable | DeadlineExceeded):
            return False
        wait_seconds = self._servers.seconds_until_one_is_free()
        if _is_quota(error):
            self._ends_at_seconds += wait_seconds
        return wait_seconds if time.monotonic() + wait_seconds <= self._ends_at_seconds else False


class Client(_Calls):
    """For any number of threads. Close it, or use it in a `with`."""

    def __init__(self, *addresses: str, **settings: Any) -> None:
        super().__init__(*addresses, **settings)
        self._http = httpx.Client(**self._settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def restore(self, photo: Image, **parameters: Unpack[RestoreParameters]) -> Restored:
        """Raises the errors of `archive.errors`; those that may pass only after `patience_seconds`."""
        request = restore_request(photo, parameters)
        for attempt in self._attempts():
            with attempt, self.servers.choose() as address:
                return read_restored(self._ask("POST", f"{address}/restore", **request))
        raise AssertionError("the last attempt returns or raises")

    def active_releases(self) -> dict[str, str]:
        """By address. Raises Unreachable or a ServiceProblem if one of them does not answer, or serves none yet."""
        releases = {}
        for address in self.servers.addresses:
            for attempt in self._attempts():
                with attempt:
                    releases[address] = read_release(self._ask_whether_ready(address))
        return releases

    def is_any_ready(self) -> bool:
        """Whether any of them could restore a photo now; asked once."""
        for address in self.servers.addresses:
            try:
                if self._ask_whether_ready(address).is_success:
                    return True
            except Unreachable:
                continue
        return False

    def _ask_whether_ready(self, address: str) -> httpx.Response:
        return self._ask("GET", f"{address}/readyz", timeout=httpx.Timeout(READY_SECONDS, pool=None))

    def _ask(self, method: str, address: str, **request: Any) -> httpx.Response:
        try:
            return self._http.request(method, address, **request)
        except httpx.TransportError as error:
            raise _unreachable(address, error) from error


class AsyncClient(_Calls):
    """For any number of tasks of one event loop. Close it, or use it in an `async with`."""

    def __init__(self, *addresses: str, **settings: Any) -> None:
        super().__init__(*addresses, **settings)
        self._http = httpx.AsyncClient(**self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def restore(self, photo: Image, **parameters: Unpack[RestoreParameters]) -> Restored:
        """See `Client.restore`."""
        request = restore_request(photo, parameters)
        async for attempt in self._attempts():
            with attempt, self.servers.choose() as address:
                return read_restored(await self._ask("POST", f"{address}/restore", **request))
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, method: str, address: str, **request: Any) -> httpx.Response:
        try:
            return await self._http.request(method, address, **request)
        except httpx.TransportError as error:
            raise _unreachable(address, error) from error


def restore_request(photo: Image, parameters: RestoreParameters) -> dict[str, Any]:
    """The query and the body of POST /restore, as httpx takes them. Raises OSError for a file that cannot be read."""
    query: dict[str, object] = {**parameters}
    masks = {name: query.pop(name) for name in ("damage", "protect") if name in query}
    if query.pop("damage_map", False):
        query["output"] = "all"
    content = read_image(photo)
    if not masks:
        return {"params": query, "content": content}
    files = {"image": content} | {name: read_image(mask) for name, mask in masks.items()}  # type: ignore[arg-type]
    return {"params": query, "files": {name: (name, encoded) for name, encoded in files.items()}}


def read_image(image: Image) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


def read_release(ready: httpx.Response) -> str:
    """From an answer of /readyz. Raises a ServiceProblem."""
    expect_success(ready)
    try:
        status: Mapping[str, str] = ready.json()
        return status["release"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"{ready.url} named no release; is this the restoration service?") from error


def _is_quota(error: Exception) -> bool:
    """Whether it says when the caller's turn is."""
    if not isinstance(error, Unavailable):
        return False
    return error.status == HTTPStatus.TOO_MANY_REQUESTS and bool(error.retry_after_seconds)


def _unreachable(address: str, error: httpx.TransportError) -> Unreachable:
    return Unreachable(f"{address} did not answer: {error or type(error).__name__}; does the service run there?")
