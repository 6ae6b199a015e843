"""Releases: immutable, numbered, verified, and never a pickle.

    model_store/0007/
      manifest.json              what the release is, with the size and SHA-256 of every file below
      generator.safetensors      fp16 weights; larger than 16 MiB, they are cut into `.1-of-N` ... `.N-of-N`
      golden/                    a damaged photo and what the release makes of it: the self-test at load
      report/                    the evaluation
      README.md                  the model card

Whoever can write to the store can choose the weights, but not run code: the manifest is data, file names stay inside
the release, and weights are safetensors. Files that the manifest does not list are ignored.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import torch
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from restoration.architectures import build_generator
from restoration.errors import NoRelease, ReleaseInvalid
from restoration.generator import Generator

FORMAT_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
WEIGHTS = "generator.safetensors"

_VERSION = re.compile(r"[0-9]{4,}")


class FileRecord(BaseModel):
    """What a file of the release must be."""

    model_config = ConfigDict(frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class GoldenTolerance(BaseModel):
    """How far the self-test may be from the golden files, in levels of 0 to 255; met by CPU and GPU alike.

    Restored samples are compared where the release wrote when it was published: one that does nothing must not pass
    because most of a photo is undamaged.
    """

    model_config = ConfigDict(frozen=True)

    damage_map_mean_levels: float = 2.0
    restored_mean_levels: float = 3.0
    restored_far_levels: float = 8.0
    restored_far_share: float = 0.05
    denoised_mean_levels: float = 1.0


class Manifest(BaseModel):
    """manifest.json. A field that this version does not know is ignored; `format_version` changes when one matters."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    version: Annotated[str, Field(pattern=r"^[0-9]{4,}$")]
    architecture: str
    config: dict[str, JsonValue]
    files: dict[str, FileRecord]
    created: AwareDatetime
    code_revision: str
    recipe: JsonValue
    data_fingerprint: str
    scores: JsonValue
    golden_tolerance: GoldenTolerance = GoldenTolerance()

    @field_validator("files")
    @classmethod
    def _stays_inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            path = PurePosixPath(name)
            leads_out = path.is_absolute() or ".." in path.parts or "\\" in name
            if leads_out or str(path) != name or name in ("", ".") or not name.isprintable():
                raise ValueError(f"{name!r} is not a plain path inside the release")
            if above := next((str(parent) for parent in path.parents if str(parent) in files), None):
                raise ValueError(f"{above!r} is a file and the folder of {name!r}")
        return files


@dataclass(frozen=True)
class Release:
    """A release whose manifest was read."""

    version: str
    path: Path
    manifest: Manifest

    @property
    def manifest_sha256(self) -> str:
        """Names it among all stores: of the file, which has the SHA-256 of every other."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    def read(self, name: str) -> bytes:
        """A file's bytes, checked against the manifest. Raises ReleaseInvalid."""
        record = self.manifest.files.get(name)
        if record is None:
            raise ReleaseInvalid(f"release {self.version}: the manifest lists no {name}; publish it again")
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise ReleaseInvalid(f"release {self.version}: {name} leads out of the release; publish it again")
        return _read_checked(path, record, f"release {self.version}: {name}")


def is_version(name: str) -> bool:
    """Whether that is a release's number."""
    return _VERSION.fullmatch(name) is not None


def list_releases(store: Path) -> list[str]:
    """The numbers of the releases present, newest last. Nothing is verified; a store that is missing is empty."""
    if not store.is_dir():
        return []
    versions = (entry.name for entry in store.iterdir() if is_version(entry.name) and entry.is_dir())
    return sorted(versions, key=int)


def read_release(store: Path, version: str) -> Release:
    """Read a release's manifest and verify the size and SHA-256 of every file.

    Raises NoRelease if there is none of that number, ReleaseInvalid if it is not what its manifest says.
    """
    versions = list_releases(store)
    if version not in versions:
        raise NoRelease(f"{store} holds no release {version}; it holds {', '.join(versions) or 'none'}")
    path = store / version
    release = Release(version, path, read_manifest(path / MANIFEST, version))
    for name in release.manifest.files:
        release.read(name)
    return release


def load_generator(release: Release) -> Generator:
    """Build the generator and load its weights, as float32, in evaluation mode.

    Raises ReleaseInvalid for an unknown architecture or config, weights that are missing, superfluous, of another
    shape, not finite, or not safetensors.
    """
    generator = build_generator(release.manifest.architecture, release.manifest.config)
    weights = _read_weights(release)
    _expect_weights(weights, generator.state_dict(), release.version)
    generator.load_state_dict(weights)  # copies into float32
    return generator.eval().requires_grad_(False)


def weight_names(num_parts: int) -> list[str]:
    """The files that weights in that many parts lie in."""
    return [WEIGHTS] if num_parts == 1 else [f"{WEIGHTS}.{part}-of-{num_parts}" for part in range(1, num_parts + 1)]


def read_manifest(path: Path, version: str) -> Manifest:
    """The manifest alone; no other file is looked at. Raises ReleaseInvalid."""
    try:
        found_file = path.stat()
        if not stat.S_ISREG(found_file.st_mode):  # reading a named pipe would wait for a writer
            raise ReleaseInvalid(f"release {version}: {MANIFEST} is no regular file; publish it again")
        if found_file.st_size > MAX_MANIFEST_BYTES:
            raise ReleaseInvalid(f"release {version}: {MANIFEST} is larger than {MAX_MANIFEST_BYTES:,} bytes")
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ReleaseInvalid(f"release {version}: it has no {MANIFEST}; publish it again") from error
    except OSError as error:
        raise ReleaseInvalid(
            f"release {version}: {MANIFEST} cannot be read ({error}); check its permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ReleaseInvalid(f"release {version}: {MANIFEST} cannot be read ({error}); publish it again") from error
    found = content.get("format_version") if isinstance(content, dict) else None
    if found != FORMAT_VERSION:
        raise ReleaseInvalid(
            f"release {version}: {MANIFEST} has format version {found!r}, this software reads {FORMAT_VERSION}"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReleaseInvalid(f"release {version}: {MANIFEST}, {where}: {first['msg']}; publish it again") from error
    if manifest.version != version:
        raise ReleaseInvalid(f"release {version}: {MANIFEST} is that of release {manifest.version}; publish it again")
    return manifest


def _read_checked(path: Path, record: FileRecord, what: str) -> bytes:
    try:
        if not path.is_file():
            raise ReleaseInvalid(f"{what} is missing, but the manifest lists it; publish it again")
        size_bytes = path.stat().st_size
        if size_bytes != record.size_bytes:
            raise ReleaseInvalid(
                f"{what} has {size_bytes:,} bytes but the manifest says {record.size_bytes:,}; publish it again"
            )
        content = path.read_bytes()
    except OSError as error:
        raise ReleaseInvalid(f"{what} cannot be read ({error}); check its permissions") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != record.sha256:
        raise ReleaseInvalid(
            f"{what}: sha256 {sha256[:8]}.. but the manifest says {record.sha256[:8]}..; publish it again"
        )
    return content


def _read_weights(release: Release) -> dict[str, Tensor]:
    present = [name for name in release.manifest.files if name.startswith(WEIGHTS)]
    names = weight_names(len(present))
    if not present or sorted(names) != sorted(present):
        found = ", ".join(present) or "none"
        raise ReleaseInvalid(f"release {release.version}: the weights' files are incomplete (found {found})")
    try:
        return load_safetensors(b"".join(release.read(name) for name in names))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ReleaseInvalid(f"release {release.version}: {WEIGHTS} is no safetensors file ({error})") from error


def _expect_weights(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], version: str) -> None:
    if missing := sorted(expected.keys() - weights.keys()):
        raise ReleaseInvalid(f"release {version}: weights lack {', '.join(missing[:3])} ({len(missing)} in all)")
    if unknown := sorted(weights.keys() - expected.keys()):
        raise ReleaseInvalid(f"release {version}: unknown weights {', '.join(unknown[:3])} ({len(unknown)} in all)")
    for name, weight in weights.items():
        shape, expected_shape = tuple(weight.shape), tuple(expected[name].shape)
        if shape != expected_shape:
            raise ReleaseInvalid(f"release {version}: {name} has shape {shape}, the config says {expected_shape}")
        if not torch.isfinite(weight).all():
            raise ReleaseInvalid(f"release {version}: {name} holds values that are not finite; train it again")
