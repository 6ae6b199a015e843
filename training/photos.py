"""Folders of photographs in memory, and the crops that a step trains on."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from restoration.errors import DataError
from training.splits import Split, list_images, select_split


@dataclass(frozen=True)
class PhotoSet:
    """Decoded photographs, (H, W, 3) uint8 each, their short side at most as asked for."""

    photos: list[np.ndarray]
    names: list[str]

    def __len__(self) -> int:
        return len(self.photos)


def load_photos(
    folder: Path,
    split: Split,
    *,
    held_out_share: float,
    short_side_px: int = 320,
    most: int | None = None,
) -> PhotoSet:
    """Read the photographs of one split. Raises DataError for a folder without any, or a file that cannot be read."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name a folder of clean photographs")
    paths = select_split(list_images(folder), folder, split, held_out_share)
    if most is not None and len(paths) > most:
        paths = [paths[index] for index in sorted(np.random.default_rng(0).permutation(len(paths))[:most])]
    if not paths:
        raise DataError(
            f"{folder} holds no photograph for {split} (JPEG, PNG, WebP or TIFF, {held_out_share:.0%} held out)"
        )
    with ThreadPoolExecutor() as pool:
        photos = list(pool.map(lambda path: read_photo(path, short_side_px), paths))
    return PhotoSet(photos, [path.relative_to(folder).as_posix() for path in paths])


def load_largest_photos(folder: Path, split: Split, *, held_out_share: float, most: int) -> PhotoSet:
    """Those of one split that have the longest short sides, the longest first, as large as they are."""
    paths = select_split(list_images(folder), folder, split, held_out_share)
    largest = sorted(paths, key=_short_side_px, reverse=True)[:most]
    return PhotoSet([read_photo(path) for path in largest], [path.relative_to(folder).as_posix() for path in largest])


def _short_side_px(path: Path) -> int:
    """From the file's head; 0 for what cannot be read."""
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0


def read_photo(path: Path, short_side_px: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8, upright, made smaller if its short side is longer than asked for."""
    try:
        with Image.open(path) as image:
            upright = _to_eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a photograph ({error}); repair it or take it out") from error
    if short_side_px is not None and (scale := short_side_px / min(upright.size)) < 1.0:
        size = (max(1, round(upright.width * scale)), max(1, round(upright.height * scale)))
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(upright)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion would clip a 16-bit grey scan to its darkest 256 levels."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class CropConfig:
    """How crops are taken."""

    zoom: tuple[float, float] = (0.45, 1.8)
    """The cut's side over the crop's; below 1 it is enlarged, as a fine scan of soft film is."""
    is_whole: bool = False
    """The whole photo is resized to the crop's size, whatever its shape, as the original does; no zoom then."""


def sample_crops(
    photos: Sequence[np.ndarray], num_crops: int, crop_px: int, config: CropConfig, rng: np.random.Generator
) -> Tensor:
    """(N, 3, crop_px, crop_px) float32 in [0, 1], in all eight orientations."""
    return to_planes(draw_crops(photos, num_crops, crop_px, config, rng))


def draw_crops(
    photos: Sequence[np.ndarray], num_crops: int, crop_px: int, config: CropConfig, rng: np.random.Generator
) -> Tensor:
    """(N, crop_px, crop_px, 3) uint8, in all eight orientations."""
    crops = [sample_crop(photos[int(rng.integers(len(photos)))], crop_px, config, rng) for _ in range(num_crops)]
    return torch.from_numpy(np.stack(crops))


def to_planes(crops: Tensor) -> Tensor:
    """(N, H, W, C) uint8 to (N, C, H, W) float32 in [0, 1], on the same device."""
    return crops.permute(0, 3, 1, 2).contiguous().float().div_(255.0)


def sample_crop(photo: np.ndarray, crop_px: int, config: CropConfig, rng: np.random.Generator) -> np.ndarray:
    """photo: (H, W, C) uint8; returns (crop_px, crop_px, C) uint8."""
    if config.is_whole:
        return turn(_resize(photo, crop_px), int(rng.integers(8)))
    side_px = round(crop_px * np.exp(rng.uniform(np.log(config.zoom[0]), np.log(config.zoom[1]))))
    side_px = min(max(8, side_px), *photo.shape[:2])
    top, left = (int(rng.integers(0, extent - side_px + 1)) for extent in photo.shape[:2])
    cut = photo[top : top + side_px, left : left + side_px]
    if side_px != crop_px:
        cut = _resize(cut, crop_px)
    return turn(cut, int(rng.integers(8)))


def _resize(picture: np.ndarray, side_px: int) -> np.ndarray:
    """picture: (H, W, C) uint8. Three channels at a time: OpenCV takes at most four, and a stacked pair has six."""
    interpolation = cv2.INTER_AREA if min(picture.shape[:2]) > side_px else cv2.INTER_CUBIC
    thirds = [picture[..., first : first + 3] for first in range(0, picture.shape[2], 3)]
    return np.concatenate(
        [cv2.resize(each, (side_px, side_px), interpolation=interpolation) for each in thirds], axis=2
    )


def turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """One of the eight orientations of (H, W, C): quarter turns 0 to 3, and the same mirrored."""
    turned = np.rot90(picture, orientation % 4)
    return turned[:, ::-1] if orientation >= 4 else turned
