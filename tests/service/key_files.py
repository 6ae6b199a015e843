"""Files of keys for tests, and the header that shows a key."""

from pathlib import Path

from service.keys import Key, hash_key, make_key
from service.keys_command import add_key


def add(path: Path, name: str = "archive", scopes: str = "restore", **quotas: float) -> str:
    """Returns the key. scopes: with spaces between them."""
    key = make_key()
    fields = {"name": name, "sha256": hash_key(key), "scopes": scopes.split(), "created": "2026-11-24"}
    add_key(path, Key.model_validate(fields | quotas))
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
