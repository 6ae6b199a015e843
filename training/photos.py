"""Folders of photographs in memory, and the crops that a step trains on."""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from restoration.errors import DataError
from training.splits import Split, list_images, select_split

LEAST_MEASURED_PX = 32
"""Short side of the smallest photograph that is measured on: SSIM takes none below 11 px, LPIPS none below 31 px."""
MOST_NAMED = 5

logger = logging.getLogger(__name__)


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
    """Read the photographs of one split, of a held-out one those that are large enough.

    Raises DataError for a folder without any, or a file that cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name a folder of clean photographs")
    paths = select_split(list_images(folder), folder, split, held_out_share)
    if split != "train":
        paths = leave_out_small(paths)
    if most is not None and len(paths) > most:
        paths = [paths[index] for index in sorted(np.random.default_rng(0).permutation(len(paths))[:most])]
    if not paths:
        raise DataError(
            f"{folder} holds no photograph for {split} (JPEG, PNG, WebP or TIFF, {held_out_share:.0%} held out"
            f"{'' if split == 'train' else f', a short side of at least {LEAST_MEASURED_PX} px'})"
        )
    with ThreadPoolExecutor() as pool:
        photos = list(pool.map(lambda path: read_photo(path, short_side_px), paths))
    return PhotoSet(photos, [path.relative_to(folder).as_posix() for path in paths])


def load_largest_photos(folder: Path, split: Split, *, held_out_share: float, most: int) -> PhotoSet:
    """Those of one split that have the longest short sides, the longest first, as large as they are."""
    paths = select_split(list_images(folder), folder, split, held_out_share)
    largest = sorted(filter(is_measurable, paths), key=_short_side_px, reverse=True)[:most]
    return PhotoSet([read_photo(path) for path in largest], [path.relative_to(folder).as_posix() for path in largest])


def leave_out_small(paths: Sequence[Path]) -> list[Path]:
    """Those that can be measured on; the log says which cannot."""
    measurable = list(filter(is_measurable, paths))
    if small := sorted(set(paths) - set(measurable)):
        logger.warning(
            "%d held-out photographs have a short side below %d px and are left out: %s%s",
            len(small),
            LEAST_MEASURED_PX,
            ", ".join(map(str, small[:MOST_NAMED])),
            ", ..." if len(small) > MOST_NAMED else "",
        )
    return measurable


def is_measurable(path: Path) -> bool:
    """Whether it is not too small. What cannot be read is not: it is to be said when it is read."""
    return not 0 < _short_side_px(path) < LEAST_MEASURED_PX


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
            if image.mode == "F":
                raise DataError(
                    f"{path} holds floating-point samples, whose black and white nothing says; save it with 8 or 16 "
                    "bits a channel, or take it out"
                )
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


MUCH_SMALLER = 1.25
"""The cut's side over the crop's, from which on samples are averaged."""


@dataclass(frozen=True)
class ResidentPhotos:
    """Photographs in a device's memory, for crops to be cut there: a GPU takes thousands a second.

    pixels: (P, 3) uint8 of all of them, one after the other; starts, heights_px, widths_px: (N,) int64 each.
    """

    pixels: Tensor
    starts: Tensor
    heights_px: Tensor
    widths_px: Tensor

    @classmethod
    def of(cls, photos: Sequence[np.ndarray], device: torch.device) -> "ResidentPhotos":
        """photos: (H, W, 3) uint8 each."""
        sizes = torch.tensor([photo.shape[:2] for photo in photos], dtype=torch.int64)
        areas = sizes.prod(dim=1)
        pixels = torch.from_numpy(np.concatenate([photo.reshape(-1, 3) for photo in photos]))
        return cls(*(each.to(device) for each in (pixels, areas.cumsum(0) - areas, *sizes.T.contiguous())))

    def __len__(self) -> int:
        return len(self.starts)

    def cut(self, places: Tensor, crop_px: int, config: CropConfig) -> Tensor:
        """places: as `draw_places` draws them, on the device. Returns (N, 3, crop_px, crop_px) float32 in [0, 1].

        Cubic; what is made much smaller, from a grid twice as fine, so that its detail does not turn into another.
        """
        chosen = (places[:, 0] * len(self)).long().clamp(max=len(self) - 1)
        sizes_px = torch.stack([self.heights_px[chosen], self.widths_px[chosen]], dim=1)
        low, high = (math.log(each) for each in config.zoom)
        sides_px = (crop_px * torch.exp(low + places[:, 1] * (high - low))).clamp(min=8.0)
        sides_px = torch.minimum(sides_px, sizes_px.amin(dim=1)).floor()
        corners_px = (places[:, 2:4] * (sizes_px - sides_px[:, None] + 1.0)).floor()
        window_px = int(crop_px * config.zoom[1]) + 1
        windows = self._windows(chosen, corners_px.long(), window_px)
        theta = _turned(places[:, 4]) * (sides_px / window_px)[:, None, None]
        middle = (sides_px / window_px - 1.0)[:, None].expand(-1, 2)
        theta = torch.cat([theta, middle[:, :, None]], dim=2).float()
        straight, averaged = _sampled(windows, theta, crop_px), F.avg_pool2d(_sampled(windows, theta, 2 * crop_px), 2)
        is_much_smaller = sides_px > MUCH_SMALLER * crop_px
        return torch.where(is_much_smaller[:, None, None, None], averaged, straight).div_(255.0).clamp_(0.0, 1.0)

    def _windows(self, chosen: Tensor, corners_px: Tensor, window_px: int) -> Tensor:
        """(N, 3, window_px, window_px) float32 from 0 to 255; beyond a photo's edge its last samples."""
        along = torch.arange(window_px, device=chosen.device)
        rows = torch.minimum(corners_px[:, :1] + along, self.heights_px[chosen, None] - 1)
        columns = torch.minimum(corners_px[:, 1:] + along, self.widths_px[chosen, None] - 1)
        at = self.starts[chosen, None, None] + rows[:, :, None] * self.widths_px[chosen, None, None] + columns[:, None]
        return self.pixels[at].permute(0, 3, 1, 2).float()


def _sampled(windows: Tensor, theta: Tensor, side_px: int) -> Tensor:
    """(N, 3, side_px, side_px): the parts of the windows, (N, 3, W, W), that theta, (N, 2, 3), maps the whole onto."""
    grid = F.affine_grid(theta, [len(theta), 3, side_px, side_px], align_corners=False)
    return F.grid_sample(windows, grid, mode="bicubic", padding_mode="border", align_corners=False)


def draw_places(num_crops: int, rng: np.random.Generator) -> Tensor:
    """(N, 5) float64 in [0, 1): which photo, how large a cut, where from top to bottom and from left to right, how it
    is held."""
    return torch.from_numpy(rng.random((num_crops, 5)))


def _turned(held: Tensor) -> Tensor:
    """held: (N,) in [0, 1); the matrices of the eight orientations, (N, 2, 2)."""
    index = (held * 8.0).long().clamp(max=7)
    flips = torch.stack([1.0 - 2.0 * (index & 1), 1.0 - (index & 2)], dim=1)
    straight = torch.diag_embed(flips)
    return torch.where((index >= 4)[:, None, None], straight.flip(2), straight)


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
