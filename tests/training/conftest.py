"""Small folders of real photographs, a small bank of damage, and recipes that take moments."""

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from training.overlays import OverlayBank, build_bank
from training.photos import read_photo
from training.samples import NAMES, crop_sample
from training.splits import split_of

HELD_OUT_SHARE = 0.05  # the recipes'
VGG_LAYERS = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256)}
"""Of VGG16 up to relu3_3: channels out and in, by torchvision's index."""


def names_for(split: str, num: int, suffix: str = ".png") -> list[str]:
    """File names that fall to the split."""
    names = (f"photo_{index}{suffix}" for index in count())
    fitting = (name for name in names if split_of(name, HELD_OUT_SHARE) == split)
    return [next(fitting) for _ in range(num)]


def write_photos(folder: Path, names: list[str], side_px: int = 96) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(crop_sample(NAMES[index % len(NAMES)], side_px)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photographs to train on and one that is held out, 96 px each."""
    folder = tmp_path_factory.mktemp("photographs")
    return write_photos(folder, names_for("train", 4) + names_for("evaluation", 1))


@pytest.fixture(scope="session")
def paired_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Damaged and clean, equal names: a glaring square of 24 px on each of three photographs of 64 px."""
    clean = write_photos(tmp_path_factory.mktemp("pairs") / "clean", names_for("train", 3), side_px=64)
    damaged = clean.parent / "damaged"
    damaged.mkdir()
    for path in clean.iterdir():
        samples = read_photo(path).copy()
        samples[8:32, 16:40] = np.where(samples[8:32, 16:40] > 127, 0, 255)
        Image.fromarray(samples).save(damaged / path.name)
    return damaged, clean


@pytest.fixture(scope="session")
def overlay_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 overlay files each of dust, fibres and scratches."""
    folder = tmp_path_factory.mktemp("overlays")
    rng = np.random.default_rng(0)
    for family_folder in ("dirt", "hair", "scratches"):
        (folder / family_folder).mkdir()
        for index in range(24):
            opacity = np.zeros((64, 64), np.uint8)
            for row, column in rng.integers(4, 60, (12, 2)):
                opacity[row : row + 3, column : column + 3] = 255
            Image.fromarray(opacity).save(folder / family_folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="session")
def bank() -> OverlayBank:
    """Every family, a few small drawn overlays each."""
    return build_bank("train", side_px=96, num_per_family=6)


@pytest.fixture(scope="session")
def vgg_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the right names and shapes, with random values: the real ones are not part of the repository."""
    folder, rng = tmp_path_factory.mktemp("vgg"), torch.Generator().manual_seed(0)
    features, linear = {}, {}
    for layer, (wide, from_wide) in VGG_LAYERS.items():
        weight = torch.randn(wide, from_wide, 3, 3, generator=rng) * (from_wide * 9) ** -0.5
        features |= {f"features.{layer}.weight": weight.half(), f"features.{layer}.bias": torch.zeros(wide).half()}
    for index, wide in enumerate((64, 128, 256)):
        linear[f"lin{index}.weight"] = torch.rand(1, wide, 1, 1, generator=rng)
    save_file(features, folder / "vgg16_features_to_relu3_3_fp16.safetensors")
    save_file(linear, folder / "lpips_vgg_lin.safetensors")
    return folder
