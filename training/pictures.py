"""Contact sheets: pictures side by side with labels, for eyes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from restoration.errors import InvalidOption
from restoration.tensors import to_samples

LABEL_PX = 16


def draw_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    gap_px: int = 4,
) -> Image.Image:
    """rows: pictures (H, W, 3) uint8, all of one size."""
    height_px, width_px = rows[0][0].shape[:2]
    left_px = 90 if row_labels else 0
    top_px = LABEL_PX if column_labels else 0
    num_columns = max(len(row) for row in rows)
    size = (left_px + num_columns * (width_px + gap_px), top_px + len(rows) * (height_px + gap_px))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(column_labels):
        draw.text((left_px + column * (width_px + gap_px) + 2, 2), label, fill="black")
    for index, row in enumerate(rows):
        top = top_px + index * (height_px + gap_px)
        if row_labels:
            draw.text((2, top + height_px // 2), row_labels[index], fill="black")
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (left_px + column * (width_px + gap_px), top))
    return sheet


def tensors_to_rows(*columns: Tensor) -> list[list[np.ndarray]]:
    """columns: (N, 3 or 1, H, W) in [0, 1] each; returns N rows of pictures (H, W, 3) uint8."""
    return [[to_samples(picture.expand(3, -1, -1)) for picture in row] for row in zip(*columns, strict=True)]


def expect_savable(path: Path) -> None:
    """Raises InvalidOption if no format goes by the file's name: drawing first may take minutes."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InvalidOption(f"{path} names no format that a picture can be written in; end it in .png, .jpg or .webp")


def save_sheet(sheet: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)
