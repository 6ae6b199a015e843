"""`python -m service keys add NAME`: make a key, print it once, append its hash to the file of keys."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from service.errors import KeysInvalid
from service.keys import Key, Scope, hash_key, make_key, parse_keys, read_key_file
from service.settings import ENV_PREFIX

KEYS_FILE_VARIABLE = f"{ENV_PREFIX}API_KEYS_FILE"
QUOTAS = ("requests_per_minute", "burst_requests", "megapixels_per_minute", "burst_megapixels")
OWNER_ONLY = 0o600


def keys_command(arguments: Sequence[str]) -> int:
    """Exit status 0; 1 when the key cannot be added; 2 for wrong arguments."""
    options = make_parser().parse_args(arguments)
    key = make_key()
    try:
        add_key(options.file, describe_key(options, key))
    except (KeysInvalid, OSError) as error:
        print(f"no key was added: {error}", file=sys.stderr)
        return 1
    print(key)
    print(f"This is the only time that the key is shown; {options.file} holds its hash.", file=sys.stderr)
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service keys", description="API keys; see docs/security.md")
    add = parser.add_subparsers(required=True).add_parser("add", help="make a key and print it")
    add.add_argument("name", metavar="NAME", help="what the log calls the key: letters, digits, `.`, `_`, `-`")
    add.add_argument("--scope", dest="scopes", action="append", choices=get_args(Scope), help="default: restore")
    for quota in QUOTAS:
        add.add_argument(f"--{quota.replace('_', '-')}", type=float, metavar="NUMBER", help="default: no limit")
    file = os.environ.get(KEYS_FILE_VARIABLE) or None
    add.add_argument("--file", type=Path, default=file, required=file is None, help=f"default: {KEYS_FILE_VARIABLE}")
    return parser


def describe_key(options: argparse.Namespace, key: str) -> Key:
    """Raises KeysInvalid."""
    try:
        return Key(
            name=options.name,
            sha256=hash_key(key),
            scopes=frozenset(options.scopes or ["restore"]),
            created=datetime.now(UTC).date(),
            **{quota: getattr(options, quota) for quota in QUOTAS},
        )
    except ValidationError as error:
        reasons = (": ".join([*map(str, item["loc"]), item["msg"]]) for item in error.errors())
        raise KeysInvalid("; ".join(reasons)) from error


def add_key(path: Path, key: Key) -> None:
    """Appended, so that the file's comments, owner and mode stay. Raises KeysInvalid and OSError."""
    before = read_key_file(path) if path.exists() else b""
    table = as_toml(key)
    parse_keys(before + table, path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(table)


def as_toml(key: Key) -> bytes:
    lines = ["", "[[keys]]", f'name = "{key.name}"', f'sha256 = "{key.sha256}"']
    scopes = ", ".join(f'"{scope}"' for scope in sorted(key.scopes))
    lines += [f"scopes = [{scopes}]", f"created = {key.created}"]
    lines += [f"{quota} = {value}" for quota in QUOTAS if (value := getattr(key, quota)) is not None]
    return ("\n".join(lines) + "\n").encode()
