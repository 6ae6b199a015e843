"""From a restoration to the bytes that the caller asked for."""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from restoration.errors import InvalidOption
from restoration.photo import MEDIA_TYPES, Depth, Photo, PhotoFormat, check_writable
from restoration.restorer import Mode, Restoration
from service.codecs import Codec

FILE_SUFFIXES: dict[PhotoFormat, str] = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "tiff": "tif",
    "jp2": "jp2",
    "j2k": "j2k",
}


LAID_ON_ITS_SIDE = (5, 6, 7, 8)
RIGHT_IS_STORED_FIRST = (2, 3, 6, 7)
"""Orientations (EXIF 2.32, 4.6.4) by where left and right are stored: along rows or columns, and from which end."""


class RestoreQuery(BaseModel):
    """The query of POST /restore. A parameter that is not here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field(
        default="auto",
        description="`auto` works from coarse to fine, `tile` at full resolution alone, `resize` on a reduced copy",
        examples=["auto", "tile", "resize"],
    )
    output: Literal["restored", "damage_map", "comparison", "all"] = Field(
        default="restored",
        description="the photo; the damage found, as a grey PNG; before and after side by side; "
        "or all of it as multipart/form-data with the parts `restored`, `damage_map` and `info`",
        examples=["restored", "damage_map", "comparison", "all"],
    )
    preview: bool = Field(
        default=False,
        description="with `output=all`: the parts `before` and `after` too, JPEG or PNG of full size, for a browser "
        "that cannot show the photo's own format",
        examples=[True],
    )
    format: Literal["same", "jpeg", "png", "webp", "tiff", "jp2"] = Field(
        default="same", description="format of the answer", examples=["same", "jpeg", "png", "webp", "tiff", "jp2"]
    )
    quality: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="of a lossy answer, that is of JPEG, or WebP; unset: as the photo had it",
        examples=[90],
    )
    sensitivity: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="how readily something counts as damage; 0.6 to 0.8 for badly damaged prints, at the risk of more "
        "that is none",
        examples=[0.5, 0.7],
    )
    denoise: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="how much of noise, grain and compression artifacts is taken out; above 0 samples change all over "
        "the photo, not in the damage alone",
        examples=[0.0, 0.5, 1.0],
    )
    depth: Depth = Field(
        default="same", description="`8` writes 16 bits a channel as 8; `same` keeps them", examples=["same", "8"]
    )
    history: bool = Field(
        default=True,
        description="say in the XMP's history what was restored, by which release; only if anything was",
        examples=[False],
    )
    release: str | None = Field(
        default=None,
        pattern=r"^[0-9]{4,12}$",
        description="answer only with this release, else 409",
        examples=["0001"],
    )

    @property
    def photo_format(self) -> PhotoFormat | None:
        return None if self.format == "same" else self.format


@dataclass(frozen=True)
class Answer:
    """A body and what its headers say about it."""

    body: bytes
    media_type: str
    file_name: str | None = None


def check_answerable(query: RestoreQuery) -> None:
    """Raises InvalidOption for parameters that contradict each other; costs nothing, so ask before the upload."""
    asks_for_photo = query.format not in ("same", "png") or query.quality is not None or query.depth != "same"
    if query.output == "damage_map" and asks_for_photo:
        raise InvalidOption("a damage map is always a grey PNG; leave `format`, `quality` and `depth` out")
    if query.preview and query.output != "all":
        raise InvalidOption("previews are parts of a form; add output=all, or leave `preview` out")


def check_answer(query: RestoreQuery, photo: Photo) -> None:
    """Raises InvalidOption for an answer that the photo cannot be had in; to be asked before restoring it."""
    if query.output not in ("restored", "all") and photo.further_pages:
        raise InvalidOption(
            f"the photo has {len(photo.pages)} pages, and output={query.output} shows one; send them one by one, or "
            "ask for output=restored or all"
        )
    if query.output != "damage_map":
        size_px = [photo.height_px, photo.width_px]
        if query.output == "comparison":
            size_px[axis_across(photo)] *= 2
        check_writable(
            photo, format=query.photo_format, quality=query.quality, depth=query.depth, size_px=tuple(size_px)
        )
    if query.preview:
        choose_preview_format(first_page(photo))


def encode_answer(codec: Codec, photo: Photo, restoration: Restoration, query: RestoreQuery, version: str) -> Answer:
    """Raises CodecUnavailable. What `check_answer` let pass can be had."""
    match query.output:
        case "restored":
            return encode_restored(codec, photo, restoration, query, version)
        case "damage_map":
            return encode_damage_map(codec, restoration)
        case "comparison":
            return encode_comparison(codec, photo, restoration, query)
        case "all":
            return encode_all(codec, photo, restoration, query, version)


def encode_restored(codec: Codec, photo: Photo, restoration: Restoration, query: RestoreQuery, version: str) -> Answer:
    body = codec.encode(
        photo,
        restoration.samples,
        further_pages=[page.samples for page in restoration.further_pages],
        format=query.photo_format,
        quality=query.quality,
        depth=query.depth,
        history=restoration.history(version) if query.history else None,
        is_denoised=restoration.denoise > 0.0,
    )
    format = query.photo_format or photo.format
    return Answer(body, MEDIA_TYPES[format], f"restored.{FILE_SUFFIXES[format]}")


def encode_damage_map(codec: Codec, restoration: Restoration) -> Answer:
    return Answer(codec.encode_map(restoration.damage_map), MEDIA_TYPES["png"], "damage_map.png")


def encode_comparison(codec: Codec, photo: Photo, restoration: Restoration, query: RestoreQuery) -> Answer:
    """Before on the left, after on the right, once the stored grid is turned as the orientation says."""
    halves = (photo.samples, restoration.samples)
    if photo.metadata.orientation in RIGHT_IS_STORED_FIRST:
        halves = halves[::-1]
    side_by_side = np.concatenate(halves, axis=axis_across(photo))
    format = query.photo_format or photo.format
    body = codec.encode(
        photo,
        side_by_side,
        format=query.photo_format,
        quality=query.quality,
        depth=query.depth,
        is_denoised=restoration.denoise > 0.0,
    )
    return Answer(body, MEDIA_TYPES[format], f"comparison.{FILE_SUFFIXES[format]}")


def axis_across(photo: Photo) -> int:
    """Of the stored grid, which is seen from left to right."""
    return 0 if photo.metadata.orientation in LAID_ON_ITS_SIDE else 1


def encode_all(codec: Codec, photo: Photo, restoration: Restoration, query: RestoreQuery, version: str) -> Answer:
    """Map and previews are of the first page."""
    info = {
        "release": version,
        "damage_ratio": restoration.damage_ratio,
        "suspected_from": restoration.suspected_from,
        "width_px": photo.width_px,
        "height_px": photo.height_px,
        "num_pages": len(photo.pages),
        "format": query.photo_format or photo.format,
        "orientation": photo.metadata.orientation,
        "mode": query.mode,
        "sensitivity": query.sensitivity,
        "denoise": query.denoise,
    }
    parts = {
        "restored": encode_restored(codec, photo, restoration, query, version),
        "damage_map": encode_damage_map(codec, restoration),
        "info": Answer(json.dumps(info).encode(), "application/json"),
    }
    if query.preview:
        first = first_page(photo)
        before = encode_preview(codec, first, photo.samples, is_denoised=False)
        is_untouched = restoration.samples is photo.samples
        is_denoised = restoration.denoise > 0.0
        after = before if is_untouched else encode_preview(codec, first, restoration.samples, is_denoised=is_denoised)
        parts |= {name: preview.called(name) for name, preview in (("before", before), ("after", after))}
    return encode_form(parts)


@dataclass(frozen=True)
class Preview:
    """A picture that every browser shows."""

    body: bytes
    format: PhotoFormat

    def called(self, name: str) -> Answer:
        return Answer(self.body, MEDIA_TYPES[self.format], f"{name}.{FILE_SUFFIXES[self.format]}")


def encode_preview(codec: Codec, photo: Photo, samples: np.ndarray, *, is_denoised: bool) -> Preview:
    format = choose_preview_format(photo)
    return Preview(codec.encode(photo, samples, format=format, depth="8", is_denoised=is_denoised), format)


def choose_preview_format(photo: Photo) -> PhotoFormat:
    """JPEG, which is small and soon encoded; PNG for alpha, or a side longer than JPEG can hold. Raises InvalidOption
    where neither will do."""
    try:
        check_writable(photo, format="jpeg", depth="8")
        return "jpeg"
    except InvalidOption:
        check_writable(photo, format="png", depth="8")
        return "png"


def first_page(photo: Photo) -> Photo:
    return replace(photo, further_pages=())


def encode_form(parts: dict[str, Answer]) -> Answer:
    """multipart/form-data (RFC 7578). The boundary is a hash of the parts: the same photo gives the same bytes."""
    digest = hashlib.sha256()
    for part in parts.values():
        digest.update(part.body)
    boundary = f"part-{digest.hexdigest()}"
    pieces: list[bytes] = []
    for name, part in parts.items():
        file_name = f'; filename="{part.file_name}"' if part.file_name else ""
        head = f'Content-Disposition: form-data; name="{name}"{file_name}\r\nContent-Type: {part.media_type}\r\n'
        pieces += [f"--{boundary}\r\n{head}\r\n".encode(), part.body, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return Answer(b"".join(pieces), f"multipart/form-data; boundary={boundary}")
