"""Every setting of the service, read from the environment: RESTORE_PORT=9000 sets `port`.

`docs/configuration.md` holds the same table; a test keeps the two in step.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from restoration.remote_store import URL_PATTERN
from service import tracing
from service.parcels import MAX_ARRAYS

ENV_PREFIX = "RESTORE_"
MIB = 1024 * 1024
PIB = 1024**5
ORIGIN = re.compile(r"https?://[^/\s*?#@]+")
NEARLY_URL = re.compile(r"[a-z][a-z0-9+.-]+:/?[^/]", re.IGNORECASE)
VERSION = re.compile(r"[0-9]{4,}")
REPOSITORY_MODEL_STORE = Path(__file__).resolve().parent.parent / "model_store"


StoreUrl = Annotated[str, Field(pattern=URL_PATTERN)]
DAY_SECONDS = 24 * 60 * 60
Seconds = Annotated[float, Field(gt=0, le=DAY_SECONDS, allow_inf_nan=False)]
"""No timeout at all, as `inf`, is nothing that the parts beneath can be told."""


class Settings(BaseSettings):
    """Raises pydantic.ValidationError naming every wrong value; `explain_validation` in `__main__.py` words it for a
    terminal."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, env_ignore_empty=True)

    host: str = Field(
        default="127.0.0.1", description="address to listen on; anything but loopback needs keys, or `ALLOW_ANONYMOUS`"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 takes any free one")
    allow_anonymous: bool = Field(
        default=False, description="without keys, serve everyone on addresses other than loopback, too"
    )
    api_keys_file: Path | None = Field(
        default=None, description="file of API keys, see docs/security.md; unset: no key is asked for"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="sites whose pages may call, such as `https://photos.example.org`, with commas between them",
    )

    model_store: Path | StoreUrl = Field(
        default=REPOSITORY_MODEL_STORE,
        description="folder of releases, or an fsspec URL such as `s3://bucket/releases`",
    )
    model_copies: Path = Field(
        default=Path("~/.cache/photo-restoration"),
        description="folder for copies of releases from a store that is a URL",
    )
    max_model_copies: int = Field(default=3, ge=2, description="releases of which a copy is kept")
    model_version: str | None = Field(
        default=None,
        description="serve this release only, such as `0010`; unset: the newest that passes",
    )
    store_poll_seconds: Seconds = Field(
        default=5.0, description="seconds between looks at the store for a release, or a newer one"
    )

    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="`auto`, `cpu`, `cuda` or `cuda:N`"
    )
    precision: Literal["auto", "bfloat16", "float32", "int8"] = Field(
        default="auto",
        description="what the generator calculates in; `auto`: what the device multiplies fastest without being seen, "
        "`bfloat16`, else `int8` (on CPUs with VNNI: the networks' way up), else `float32`",
    )
    batch_size: int = Field(
        default=0, ge=0, le=1024, description="tiles in a batch; 0: 8 on a CPU, 16 on a GPU, whose batches are all full"
    )
    device_threads: int = Field(
        default=0,
        ge=0,
        le=256,
        description="batches that a CPU computes at once, a thread for each; 0: one for each core, or "
        "`OMP_NUM_THREADS`. A GPU has two: one batch is copied while the other is computed",
    )
    small_photos: int = Field(
        default=0,
        ge=0,
        le=256,
        description="photos of up to 4 megapixels that are worked on at a time; 0: two more than threads on a CPU, "
        "at most 8; 8 on a GPU",
    )

    max_upload_bytes: int = Field(
        default=256 * MIB, ge=1, description="bytes in one request body, photo and masks together; more is a 413"
    )
    max_buffered_bytes: int = Field(
        default=1024 * MIB,
        ge=1,
        description="bytes of uploads held in memory, all requests together; beyond it is a 503",
    )
    max_pixels: int = Field(
        default=120_000_000, ge=1, description="pixels in one photo, all pages together; more is a 422"
    )
    max_side_px: int = Field(default=40_000, ge=1, description="pixels along a photo's longer side; more is a 422")
    max_pages: int = Field(default=100, ge=1, le=MAX_ARRAYS, description="pages in one TIFF; more is a 422")
    max_metadata_bytes: int = Field(
        default=32 * MIB, ge=0, description="bytes of profile, EXIF, XMP and texts in one photo; more is a 422"
    )
    max_form_parts: int = Field(
        default=8, ge=3, description="parts in a multipart body, of which three have a meaning; more is a 400"
    )
    max_head_bytes: int = Field(
        default=64 * 1024,
        ge=4096,
        description="bytes of a request's line and headers that may wait for their end; more is a 400. The read that "
        "brings the end, 256 KiB at most, is not counted",
    )
    max_queued_requests: int = Field(
        default=64, ge=1, description="requests waiting or being restored; one more is a 503 with Retry-After"
    )
    max_queued_tiles: int = Field(
        default=150_000,
        ge=1,
        description="tiles that requests have left to do, about 24,000 for 100 megapixels; more is a 503",
    )
    max_decoded_pixels: int = Field(
        default=360_000_000,
        ge=1,
        description="pixels of photos above 4 megapixels held decoded at once; others wait. Up to 30 bytes each, "
        "45 where channels have 16 bits",
    )
    codec_processes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="processes that decode and encode, for photos of up to 4 megapixels and as many for larger ones; "
        "0: one for each core, at most 4",
    )
    codec_memory_bytes: int = Field(
        default=8192 * MIB,
        ge=256 * MIB,
        le=PIB,
        description="address space of each of these processes; a photo whose decoding needs more is a 422",
    )
    decode_timeout_seconds: Seconds = Field(
        default=10.0,
        description="seconds that decoding a photo of up to 4 megapixels may take, and as much longer as it is larger; "
        "more is a 422",
    )
    upload_timeout_seconds: Seconds = Field(
        default=300.0, description="seconds for a request's body to arrive; more is a 408"
    )
    upload_grace_seconds: Seconds = Field(
        default=10.0, description="seconds that a body may take before its speed counts"
    )
    min_upload_bytes_per_second: float = Field(
        default=1024.0,
        gt=0,
        allow_inf_nan=False,
        description="how fast a body must come on average after that; slower is a 408",
    )
    deadline_seconds: Seconds = Field(
        default=300.0, description="seconds from the end of the upload to the answer; more is a 504"
    )
    keep_alive_seconds: int = Field(
        default=75,
        ge=1,
        le=DAY_SECONDS,
        description="seconds that a connection stays open without a request; more than callers and proxies keep it",
    )
    shutdown_grace_seconds: int = Field(
        default=30,
        ge=0,
        le=DAY_SECONDS,
        description="seconds that requests in flight are given after SIGTERM",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least that is logged"
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for people, `json` for machines"
    )
    metrics_enabled: bool = Field(default=True, description="serve `/metrics`")
    tracing_enabled: bool = Field(
        default=False,
        description="send spans to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names; needs the extra `tracing`",
    )

    @model_validator(mode="after")
    def _expect_tracing_installed(self) -> "Settings":
        if self.tracing_enabled and not tracing.is_installed():
            raise ValueError(
                f"{ENV_PREFIX}TRACING_ENABLED=true needs OpenTelemetry, which is not installed; "
                "pip install 'photo-restoration[tracing]', or leave it out"
            )
        return self

    @field_validator("model_store")
    @classmethod
    def _find_the_store(cls, store: Path | str) -> Path | str:
        """A folder may be made later; what can never be one would be an empty store for ever."""
        if isinstance(store, str):
            return store
        folder = expand_home(store)
        is_there = os.path.exists(folder)  # not Path's, which raises where it may not look
        if is_there and not os.path.isdir(folder):
            raise ValueError(f"{folder} is no folder; name the folder that the releases are in")
        if NEARLY_URL.match(str(store)) and not is_there:
            raise ValueError("there is no such folder, and a URL begins as s3://bucket/releases does")
        return folder

    @field_validator("model_copies")
    @classmethod
    def _find_the_copies(cls, copies: Path) -> Path:
        return expand_home(copies)

    @field_validator("model_version")
    @classmethod
    def _number_the_release(cls, version: str | None) -> str | None:
        if version is not None and not VERSION.fullmatch(version):
            raise ValueError("that is no release; write its number with four digits, such as 0010")
        return version

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_lower_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _name_each_site(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin} is no origin; name each site in full and without a path, https://photos.example.org"
                )
        return origins

    @model_validator(mode="after")
    def _refuse_strangers(self) -> "Settings":
        if not (self.api_keys_file or self.allow_anonymous or is_loopback(self.host)):
            raise ValueError(
                f"{ENV_PREFIX}HOST={self.host} can be reached from other machines, and anyone there could restore "
                f"photos without a key; set {ENV_PREFIX}API_KEYS_FILE, listen on 127.0.0.1, or set "
                f"{ENV_PREFIX}ALLOW_ANONYMOUS=true if that is meant"
            )
        return self

    @model_validator(mode="after")
    def _make_room_for_one_photo(self) -> "Settings":
        if self.max_decoded_pixels < self.max_pixels:
            raise ValueError(
                f"{ENV_PREFIX}MAX_DECODED_PIXELS={self.max_decoded_pixels} is less than one photo may have "
                f"({ENV_PREFIX}MAX_PIXELS={self.max_pixels}); raise the first or lower the second"
            )
        return self

    @model_validator(mode="after")
    def _make_room_for_one_upload(self) -> "Settings":
        if self.max_buffered_bytes < self.max_upload_bytes:
            raise ValueError(
                f"{ENV_PREFIX}MAX_BUFFERED_BYTES={self.max_buffered_bytes} is less than one upload may have "
                f"({ENV_PREFIX}MAX_UPLOAD_BYTES={self.max_upload_bytes}); raise the first or lower the second"
            )
        return self

    @property
    def num_codec_processes(self) -> int:
        return self.codec_processes or min(4, len(os.sched_getaffinity(0)))


def expand_home(path: Path) -> Path:
    """`~` and `~user`. Raises ValueError where there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the path in full") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. A name other than localhost could lead anywhere: False."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that no setting reads: most likely misspelt."""
    known = {f"{ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    return sorted(name for name in environment if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)
