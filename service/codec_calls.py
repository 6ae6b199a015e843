"""What is called in a codec worker beside the functions of `restoration/`. Imports no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from restoration.damage_maps import encode_map
from restoration.errors import MetadataTooLarge
from restoration.photo import Photo, PhotoLimits, count_pixels, decode_photo, encode_photo, measure_photo

__all__ = ["count_pixels", "decode_bounded", "encode_map", "encode_photo", "measure_photo"]


def decode_bounded(encoded: bytes, limits: PhotoLimits, max_metadata_bytes: int) -> Photo:
    """See `decode_photo`; raises MetadataTooLarge besides."""
    photo = decode_photo(encoded, limits)
    found_bytes = sum(len(value) for value in bytes_within(photo) if value is not encoded)
    if found_bytes > max_metadata_bytes:
        raise MetadataTooLarge(found_bytes, max_metadata_bytes)
    return photo


def bytes_within(value: Any) -> Iterator[bytes]:
    """Every bytes object in a dataclass, and in what it holds; arrays are not looked into."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from bytes_within(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from bytes_within(each)
    elif is_dataclass(value):
        for member in fields(value):
            yield from bytes_within(getattr(value, member.name))
