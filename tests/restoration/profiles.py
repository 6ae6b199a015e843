"""Colour profiles made here: Adobe RGB and Display P3 by their primaries, and inks that behave as in a textbook."""

import itertools
import struct

import numpy as np
from PIL import ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Columns of red, green and blue, adapted to D50 (Adobe RGB (1998), annex A; Apple's Display P3 profile).
_PRIMARIES = {
    "Adobe RGB": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
    "Display P3": ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}


def rgb_profile(name: str) -> bytes:
    """sRGB's profile with other primaries."""
    profile = bytearray(SRGB)
    (num_tags,) = struct.unpack_from(">L", profile, 128)
    for index in range(num_tags):
        tag, offset, _ = struct.unpack_from(">4sLL", profile, 132 + 12 * index)
        if tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            column = _PRIMARIES[name][b"rgb".index(tag[:1])]
            struct.pack_into(">3l", profile, offset + 8, *(round(value * 65536) for value in column))
    return bytes(profile)


def ink_profile(num_steps: int = 13, num_ink_steps: int = 7) -> bytes:
    """CMYK of which each ink takes away its complement, and black everything; Lab is what the tables lead to."""
    inks = np.array(list(itertools.product(np.linspace(0.0, 1.0, num_ink_steps), repeat=4)))
    rgb = (1.0 - inks[:, :3]) * (1.0 - inks[:, 3:])
    to_lab = _lut(4, 3, num_ink_steps, _lab_of(rgb))
    lab = np.array(list(itertools.product(np.linspace(0.0, 1.0, num_steps), repeat=3)))
    back = np.clip(_rgb_of(lab), 0.0, 1.0)
    black = 1.0 - back.max(axis=1, keepdims=True)
    coloured = np.where(black < 1.0, (1.0 - back - black) / np.maximum(1.0 - black, 1e-6), 0.0)
    to_inks = _lut(3, 4, num_steps, np.hstack((coloured, black)))
    text = b"desc" + bytes(4) + struct.pack(">L", 5) + b"inks\0" + bytes(79)
    white = b"XYZ " + bytes(4) + struct.pack(">3l", 63190, 65536, 54061)
    copyright_ = b"text" + bytes(4) + b"none\0"
    tags = {b"desc": text, b"wtpt": white, b"cprt": copyright_, b"A2B0": to_lab, b"B2A0": to_inks}
    table, body = struct.pack(">L", len(tags)), b""
    for name, content in tags.items():
        body += bytes(-len(body) % 4)
        table += struct.pack(">4sLL", name, 132 + 12 * len(tags) + len(body), len(content))
        body += content
    size = 132 + 12 * len(tags) + len(body)
    header = struct.pack(">L4sL4s4s4s", size, bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3l", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


def _lut(num_in: int, num_out: int, num_steps: int, nodes: np.ndarray) -> bytes:
    """lut16Type (ICC.1:2001-04, section 6.5.7) with straight curves. nodes: (N, num_out) in [0, 1]."""
    head = b"mft2" + bytes(4) + bytes((num_in, num_out, num_steps, 0))
    matrix = struct.pack(">9l", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    line = struct.pack(">2H", 0, 65535)
    values = np.rint(np.clip(nodes, 0.0, 1.0) * 65535).astype(">u2").tobytes()
    return head + matrix + struct.pack(">2H", 2, 2) + line * num_in + values + line * num_out


_TO_XYZ = np.array([[0.43607, 0.38515, 0.14308], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
_WHITE = np.array([0.96420, 1.0, 0.82491])


def _lab_of(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to Lab as 16-bit ICC tables of version 2 have it, in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(linear @ _TO_XYZ.T / _WHITE).T
    lab = np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=1)
    return (lab + np.array((0, 128, 128))) * (65280 / 100, 256, 256) / 65535


def _rgb_of(encoded: np.ndarray) -> np.ndarray:
    lightness, a, b = (encoded * 65535 / (65280 / 100, 256, 256) - (0, 128, 128)).T
    y = (lightness + 16) / 116
    linear = (np.stack((y + a / 500, y, y - b / 200), axis=1) ** 3 * _WHITE) @ np.linalg.inv(_TO_XYZ).T
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
