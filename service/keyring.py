"""The keys in force: those of the file, which is read again every second."""

import asyncio
import hmac
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.errors import KeyMissing, KeysInvalid, ScopeMissing
from service.keys import Key, Scope, hash_key, parse_keys, read_key_file
from service.quotas import Quota, TokenBucket

LOOK_EVERY_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and what is left to them. Without a key there is neither a name nor a quota."""

    name: str | None
    scopes: frozenset[Scope]
    quota: Quota

    def expect_scope(self, scope: Scope) -> None:
        """Raises ScopeMissing, and KeyMissing for a caller who showed no key."""
        if scope in self.scopes:
            return
        if self.name is None:
            raise KeyMissing(f"this needs a key with the scope {scope!r} also where photos are restored without one")
        raise ScopeMissing(self.name, scope)


ANONYMOUS = Caller(name=None, scopes=frozenset({"restore"}), quota=Quota())
"""Everyone, while no keys are set. Nobody becomes an administrator by leaving a key out."""


class KeyRing:
    """Keeps the keys it has when the file cannot be read or is wrong, and says so in the log."""

    def __init__(self, path: Path) -> None:
        """Raises KeysInvalid for a file that cannot be used, or without any key in it."""
        self._path = path
        self._content = read_key_file(path)
        self._callers: dict[Key, Caller] = {}
        self._take(parse_keys(self._content, path))
        self._complaint: str | None = None
        if not self._callers:
            raise KeysInvalid(f"{path} holds no key, so nobody could call")

    def find(self, presented: str) -> Caller | None:
        """Every hash is compared, in constant time: how long it takes says nothing of any key."""
        presented_hash = hash_key(presented)
        found = None
        for key, caller in self._callers.items():
            if hmac.compare_digest(key.sha256, presented_hash):
                found = caller
        return found

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                await asyncio.to_thread(self.look)
            except Exception:  # the watch must outlive whatever a look at the file raises
                log.exception("the keys could not be looked at")

    def look(self) -> None:
        """Take what the file holds now, as a whole or not at all; a file that is right and empty revokes every key.

        The bytes are compared, not the time of change: tools that copy files set that back.
        """
        try:
            content = read_key_file(self._path)
            if content != self._content:
                self._take(parse_keys(content, self._path))
                self._content = content
                log.info("keys read again", names=sorted(key.name for key in self._callers))
            self._complaint = None
        except KeysInvalid as error:
            if str(error) != self._complaint:  # once, not every second
                self._complaint = str(error)
                log.error("keys stay as they were", reason=self._complaint)

    def _take(self, keys: tuple[Key, ...]) -> None:
        """A key that stays as it was keeps what it has used of its quota."""
        self._callers = {key: self._callers.get(key) or caller_with(key) for key in keys}


def caller_with(key: Key) -> Caller:
    return Caller(
        key.name,
        key.scopes,
        Quota(
            requests=bucket(key.requests_per_minute, key.burst_requests),
            megapixels=bucket(key.megapixels_per_minute, key.burst_megapixels),
        ),
    )


def bucket(tokens_per_minute: float | None, burst: float | None) -> TokenBucket | None:
    return None if tokens_per_minute is None else TokenBucket(tokens_per_minute, burst)
