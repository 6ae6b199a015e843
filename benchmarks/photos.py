"""Photos to send: scikit-image's sample photographs, resized, with scratches drawn on; an eighth of them has none."""

import io
import math
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageDraw
from skimage import data

SAMPLES = ("astronaut", "chelsea", "coffee", "rocket")


def draw_photo(index: int, height_px: int, width_px: int) -> Image.Image:
    """A sample photograph of that size, with a few scratches, or none every eighth time."""
    photo = Image.fromarray(getattr(data, SAMPLES[index % len(SAMPLES)])()).resize((width_px, height_px))
    draw, rng = ImageDraw.Draw(photo), np.random.default_rng(index)
    for _ in range(rng.integers(2, 6) if index % 8 else 0):
        ends = rng.uniform(0, 1, (2, 2)) * (width_px, height_px)
        draw.line([tuple(end) for end in ends], fill=(245, 242, 235), width=max(2, min(photo.size) // 250))
    return photo


def save(photo: Image.Image, format: str, **options: object) -> bytes:
    encoded = io.BytesIO()
    photo.save(encoded, format, **options)
    return encoded.getvalue()


def make_photo(index: int, height_px: int, width_px: int) -> bytes:
    """`draw_photo` as a JPEG."""
    return save(draw_photo(index, height_px, width_px), "JPEG", quality=92)


def make_mosaic(num_parts: int, height_px: int, width_px: int) -> bytes:
    """One photograph of that size, so many times, as a JPEG: alike in content by the megapixel whatever its size. Each
    part is mirrored, turned by 180 degrees, both or neither, by chance: nothing is repeated at even distances."""
    num_rows = next(num for num in range(math.isqrt(num_parts - 1) + 1, num_parts + 1) if num_parts % num == 0)
    part, rng = np.asarray(draw_photo(1, height_px, width_px)), np.random.default_rng(0)
    rows = [
        np.concatenate([part[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))] for _ in range(num_parts // num_rows)], 1)
        for _ in range(num_rows)
    ]
    return save(Image.fromarray(np.concatenate(rows)), "JPEG", quality=92)


def make_tiff(index: int, height_px: int, width_px: int) -> bytes:
    """`draw_photo` as a TIFF, losslessly compressed."""
    return save(draw_photo(index, height_px, width_px), "TIFF", compression="tiff_lzw")


def save_16_bits(photo: Image.Image) -> bytes:
    """A master: TIFF, RGB, 16 bits a channel, deflated in strips of 64 rows."""
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, with_16_bits(photo), photometric="rgb", compression="zlib", rowsperstrip=64)
    return encoded.getvalue()


def with_16_bits(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo).astype(np.uint16) * 257


WRITERS: tuple[Callable[[Image.Image], bytes], ...] = (
    lambda photo: save(photo, "JPEG", quality=85),
    lambda photo: save(photo, "JPEG", quality=92, progressive=True),
    lambda photo: save(photo.convert("L"), "JPEG"),
    lambda photo: save(photo, "PNG"),
    lambda photo: save(photo.convert("LA"), "PNG"),
    lambda photo: save(photo.quantize(64), "PNG"),
    lambda photo: bytes(imagecodecs.png_encode(with_16_bits(photo))),
    lambda photo: save(photo, "WEBP", quality=90),
    lambda photo: save(photo, "WEBP", lossless=True),
    lambda photo: save(photo, "TIFF", compression="tiff_lzw"),
    save_16_bits,
    lambda photo: save(photo.convert("L"), "TIFF"),
    lambda photo: save(photo, "JPEG2000"),
    lambda photo: save(photo.convert("CMYK"), "JPEG", quality=90),
    lambda photo: save(photo, "TIFF", save_all=True, append_images=[photo.rotate(180)]),
)
"""Every format that is taken, in several kinds."""


def make_small_photos(num: int, sides_px: tuple[int, int]) -> list[bytes]:
    """One kind after the other, of random sides from `sides_px`."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(*sides_px, (num, 2), endpoint=True)
    return [
        WRITERS[index % len(WRITERS)](draw_photo(index, int(height_px), int(width_px)))
        for index, (height_px, width_px) in enumerate(sizes)
    ]


def make_poison(photos: list[bytes], rng: np.random.Generator) -> bytes:
    """A photo cut short, with some bytes changed, or no photo at all."""
    photo = photos[rng.integers(len(photos))]
    kind = rng.integers(3)
    if kind == 0:
        return photo[: int(len(photo) * rng.uniform(0.01, 0.95))]
    if kind == 1:
        changed = bytearray(photo)
        for at in rng.integers(2, len(photo), 20):
            changed[at] = rng.integers(256)
        return bytes(changed)
    return rng.bytes(int(rng.integers(1, 100_000)))
