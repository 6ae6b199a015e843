"""API keys at rest: a TOML file with a table for each key, which holds the key's hash and never the key.

    [[keys]]
    name = "archive"                # for the log
    sha256 = "9f86d081884c7d65..."  # of the key
    scopes = ["restore"]            # and "admin", which may change the release that is served
    created = 2026-11-24
    requests_per_minute = 600       # this and what follows may be left out: no limit; at least 0.001
    burst_requests = 100            # as many at once; a minute's worth if left out
    megapixels_per_minute = 3000
    burst_megapixels = 500

A key is 256 random bits. Nobody guesses it from its hash, however fast the hash, so SHA-256 does; a slow one protects
what people think up, and would let anyone keep the service busy with made-up keys.
"""

import hashlib
import re
import secrets
import stat
import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import KeysInvalid

KEY_PREFIX = "rk_"
"""By which a person, or a program that looks for leaked secrets, knows a key of ours."""
NUM_KEY_BYTES = 32
MAX_FILE_BYTES = 256 * 1024
"""About 1,000 keys."""

Scope = Literal["restore", "admin"]


def expect_no_key(name: str) -> str:
    """Names are logged, and somebody may have pasted a key where its name belongs."""
    if name.startswith(KEY_PREFIX):
        raise ValueError(f"a name that begins with {KEY_PREFIX} would be taken for a key")
    return name


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$"), AfterValidator(expect_no_key)]
PerMinute = Annotated[float, Field(ge=0.001, allow_inf_nan=False)]
"""Less is a wait beyond all bounds for a caller who used it up."""


class Key(BaseModel):
    """A key as its file has it. Any field that is not listed here is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    created: date
    requests_per_minute: PerMinute | None = None
    burst_requests: PerMinute | None = None
    megapixels_per_minute: PerMinute | None = None
    burst_megapixels: PerMinute | None = None

    @model_validator(mode="after")
    def _bursts_need_a_rate(self) -> Self:
        for unit in ("requests", "megapixels"):
            if getattr(self, f"burst_{unit}") is not None and getattr(self, f"{unit}_per_minute") is None:
                raise ValueError(f"burst_{unit} means nothing without {unit}_per_minute")
        return self


class KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for field in ("name", "sha256"):
            if len({getattr(key, field) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {field}")
        return self


def make_key() -> str:
    return KEY_PREFIX + secrets.token_urlsafe(NUM_KEY_BYTES)


def hash_key(key: str) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_key_file(path: Path) -> bytes:
    """Raises KeysInvalid."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a named pipe would wait for a writer
            raise KeysInvalid(f"{path} is no regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeysInvalid(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KeysInvalid(f"{path} has more than {MAX_FILE_BYTES:,} bytes; remove keys that nobody uses")
    return content


def parse_keys(content: bytes, path: Path) -> tuple[Key, ...]:
    """Raises KeysInvalid, which never repeats a value: somebody may have pasted a key where its hash belongs."""
    try:
        text = content.decode("utf-8-sig")  # some editors begin a file with a mark of its encoding
        return KeyFile.model_validate(tomllib.loads(text)).keys
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "keys"
        raise KeysInvalid(f"{path}: {mask_keys(where)}: {first['msg']}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeysInvalid(f"{path} is no TOML file: {mask_keys(str(error))}") from None


def mask_keys(text: str) -> str:
    return re.sub(rf"{KEY_PREFIX}[A-Za-z0-9_-]+", f"{KEY_PREFIX}...", text)
