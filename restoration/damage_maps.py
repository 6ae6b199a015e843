"""Damage maps as files."""

import io

import numpy as np
from PIL import Image


def encode_map(damage_map: np.ndarray) -> bytes:
    """damage_map: (H, W) uint8; returns a grey PNG."""
    png = io.BytesIO()
    Image.fromarray(damage_map).save(png, "PNG")
    return png.getvalue()
