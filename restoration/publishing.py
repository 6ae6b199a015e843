"""Publishing: a release is written beside the finished ones, tried, made durable, then renamed into place."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue
from safetensors.torch import save as save_safetensors

from restoration.architectures import config_of
from restoration.damage_maps import encode_map
from restoration.device import DeviceGenerator
from restoration.errors import ReleaseInvalid
from restoration.generator import Generator
from restoration.golden import DAMAGED, MAPS, make_golden
from restoration.photo import decode_photo, encode_photo
from restoration.release import (
    MANIFEST,
    FileRecord,
    Manifest,
    Release,
    is_version,
    load_generator,
    read_release,
    weight_names,
)
from restoration.restorer import Restorer
from restoration.stores import alone_in

MAX_PART_BYTES = 16 * 1024 * 1024
LAST_NUMBER = "last_number"
"""Holds the highest number ever published, so that deleting a release does not set its number free."""

_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def publish_release(
    store: Path,
    generator: Generator,
    *,
    golden: bytes,
    report_dir: Path | None,
    model_card: str,
    recipe: JsonValue,
    data_fingerprint: str,
    scores: JsonValue,
    code_revision: str,
    created: datetime,
) -> Release:
    """Publish a generator under the next number; the generator itself is left as it is.

    golden: a damaged photo as PNG bytes, which must be free to redistribute; report_dir: a folder that is copied as
    the release's report. What the release makes of the golden photo is computed with the weights as they were written,
    in float32 on the CPU, and must come out alike in bfloat16. Publishers may run side by side: whoever renames
    first has the number. Raises ReleaseInvalid, and publishes nothing, if the release would not load.
    """
    with _incoming(store) as folder:
        _write_weights(folder, generator)
        (folder / "README.md").write_text(model_card, encoding="utf-8")
        if report_dir is not None:
            shutil.copytree(report_dir, folder / "report")
        manifest = Manifest(
            version=f"{_next_number(store):04d}",
            architecture=generator.architecture,
            config=cast(dict[str, JsonValue], config_of(generator)),
            files=_file_records(folder),
            created=created,
            code_revision=code_revision,
            recipe=recipe,
            data_fingerprint=data_fingerprint,
            scores=scores,
        )
        _write_golden(folder, Release(manifest.version, folder, manifest), golden)
        manifest = manifest.model_copy(update={"files": _file_records(folder)})
        for precision in ("float32", "bfloat16"):
            Restorer.load(Release(manifest.version, folder, manifest), device="cpu", precision=precision)
        version = _move_in(store, folder, manifest)
    return read_release(store, version)


def copy_release(release: Release, store: Path) -> bool:
    """Copy a release from another store under the number that it has. Returns False, and copies nothing, if the number
    is no higher than any that this store ever held: it may be another release's.

    Raises ReleaseInvalid if a file is not what the manifest says.
    """
    with _incoming(store) as folder:
        if int(release.version) < _next_number(store):
            return False
        for name in release.manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(release.read(name))
        shutil.copyfile(release.path / MANIFEST, folder / MANIFEST)
        _fsync_tree(folder)
        try:
            folder.rename(store / release.version)
        except OSError as error:
            if error.errno in _TAKEN:  # somebody else was copying it, too
                return False
            raise
        _record_number(store, int(release.version))
        _fsync(store)
    return True


@contextmanager
def _incoming(store: Path) -> Iterator[Path]:
    """A fresh folder in the store, which is gone afterwards unless it was renamed."""
    store.mkdir(parents=True, exist_ok=True)
    folder = store / f".incoming-{_next_number(store):04d}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_weights(folder: Path, generator: Generator) -> None:
    weights = {
        name: (weight.half() if weight.is_floating_point() else weight).cpu().contiguous()
        for name, weight in generator.state_dict().items()
    }
    content = save_safetensors(weights)
    starts = range(0, len(content), MAX_PART_BYTES)
    for name, start in zip(weight_names(len(starts)), starts, strict=True):
        (folder / name).write_bytes(content[start : start + MAX_PART_BYTES])


def _write_golden(folder: Path, release: Release, damaged_png: bytes) -> None:
    damaged = decode_photo(damaged_png)
    if damaged.format != "png":
        raise ReleaseInvalid(f"the golden photo is {damaged.format}, expected png: the self-test must be exact")
    if damaged.samples.dtype != np.uint8:
        raise ReleaseInvalid("the golden photo has 16 bits a channel, expected 8: tolerances are in levels of 0 to 255")
    generator = DeviceGenerator(load_generator(release), torch.device("cpu"), "float32")
    golden = make_golden(damaged, generator)
    (folder / DAMAGED).parent.mkdir()
    (folder / DAMAGED).write_bytes(damaged_png)
    for name, made in golden.made.items():
        (folder / name).write_bytes(encode_map(made) if name in MAPS else encode_photo(damaged, made))


def _file_records(folder: Path) -> dict[str, FileRecord]:
    return {
        path.relative_to(folder).as_posix(): FileRecord(
            sha256=hashlib.sha256(content := path.read_bytes()).hexdigest(), size_bytes=len(content)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _move_in(store: Path, folder: Path, manifest: Manifest) -> str:
    """Rename the folder to the next free number. POSIX refuses to rename onto a folder that holds files, so a number
    cannot be taken twice."""
    while True:
        version = f"{_next_number(store):04d}"
        final = manifest.model_copy(update={"version": version})
        (folder / MANIFEST).write_text(final.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _fsync_tree(folder)
        try:
            folder.rename(store / version)
        except OSError as error:
            if error.errno in _TAKEN:
                continue
            raise
        _record_number(store, int(version))
        _fsync(store)
        return version


def _next_number(store: Path) -> int:
    """One more than any number that is there, or ever was."""
    taken = [int(entry.name) for entry in store.iterdir() if is_version(entry.name)]
    return max([*taken, _last_number(store)]) + 1


def _last_number(store: Path) -> int:
    path = store / LAST_NUMBER
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError as error:
        raise ReleaseInvalid(f"{path} holds no number ({error}); write the highest one published into it") from error


def _record_number(store: Path, number: int) -> None:
    """It never goes down, even if publishers that were overtaken record theirs late."""
    written = store / f".incoming-{LAST_NUMBER}-{secrets.token_hex(4)}"
    with alone_in(store):
        written.write_text(f"{max(number, _last_number(store))}\n", encoding="ascii")
        written.replace(store / LAST_NUMBER)


def _fsync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _fsync(path)
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
