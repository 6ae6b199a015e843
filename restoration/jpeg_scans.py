"""A JPEG put together from one JPEG a component, each in scans of its own.

A scan of a single component is coded as if the component were a grey picture (ITU-T T.81, A.2.2), so that whoever can
write grey ones can write four: jpeglib gives its calls on coefficients three at most.
"""

import re
import struct
from collections.abc import Iterator, Sequence

_START, _END = b"\xff\xd8", b"\xff\xd9"
_TABLES, _START_OF_SCAN, _END_OF_IMAGE = 0xDB, 0xDA, 0xD9
_FRAMES = {0xC0: 0xC0, 0xC1: 0xC1, 0xC2: 0xC2, 0xC9: 0xC1, 0xCA: 0xC2}
"""Of Huffman codes, and of arithmetic ones: with what they become."""
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in coded data, stuffed bytes and restart markers are none


def join_components(encoded: bytes, grey_ones: Sequence[bytes]) -> bytes:
    """A JPEG with the frame and the quantisation tables of `encoded`, whose components have the coefficients of
    `grey_ones`, JPEGs of one component each, of the components' sizes. Raises ValueError for a file that is none."""
    pieces, identities = [_START], b""
    for marker, start, end in _segments(encoded):
        if marker == _START_OF_SCAN:
            break
        if marker == _TABLES:
            pieces.append(encoded[start:end])
        elif marker in _FRAMES:
            identities = encoded[start + 10 : end : 3]
            pieces.append(bytes((0xFF, _FRAMES[marker])) + encoded[start + 2 : end])
    if len(identities) != len(grey_ones):
        raise ValueError(f"the frame has {len(identities)} components, not {len(grey_ones)}")
    for identity, grey in zip(identities, grey_ones, strict=True):
        pieces += _scans(grey, identity)
    return b"".join((*pieces, _END))


def _scans(grey: bytes, identity: int) -> Iterator[bytes]:
    """Huffman tables and scans of a JPEG of one component, which is given that number instead of its own."""
    is_in_frame = False
    for marker, start, end in _segments(grey):
        if marker == _START_OF_SCAN:
            yield grey[start : start + 5] + bytes((identity,)) + grey[start + 6 : end]
        elif is_in_frame:
            yield grey[start:end]
        is_in_frame = is_in_frame or marker in _FRAMES


def _segments(encoded: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each, fill bytes left out; of a scan with its coded data."""
    position = len(_START)
    while match := _NEXT_MARKER.search(encoded, position):
        start, marker = match.start(), encoded[match.end() - 1]
        if marker == _END_OF_IMAGE or match.end() + 2 > len(encoded):
            return
        (num_bytes,) = struct.unpack_from(">H", encoded, match.end())
        position = match.end() + num_bytes
        if marker == _START_OF_SCAN:
            following = _NEXT_MARKER.search(encoded, position)
            position = following.start() if following else len(encoded)
        yield marker, start, position
