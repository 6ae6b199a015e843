"""Measures of a restored photo against the clean one. Pictures are (H, W, 3) uint8 unless said otherwise."""

import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional as F

from restoration.errors import DataError
from restoration.tensors import to_model_range, to_signed_range

PSNR_OF_EQUAL = 100.0
"""PSNR in dB of a picture that equals the clean one; infinity would spoil every mean."""


def psnr(picture: np.ndarray, clean: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over all samples."""
    mean_square = float(np.mean((picture.astype(np.float64) - clean) ** 2))
    return PSNR_OF_EQUAL if mean_square == 0 else min(PSNR_OF_EQUAL, 10.0 * math.log10(255.0**2 / mean_square))


def ssim(picture: np.ndarray, clean: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004), 11-tap Gaussian as in the paper, mean over the colour channels."""
    return float(
        structural_similarity(
            picture,
            clean,
            channel_axis=2,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def mean_error(picture: np.ndarray, clean: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference in levels over the pixels (H, W) where `where` is set; NaN where it is nowhere."""
    return float(np.abs(picture[where].astype(np.int16) - clean[where]).mean()) if where.any() else math.nan


def exact_share(picture: np.ndarray, original: np.ndarray, where: np.ndarray) -> float:
    """Share of the pixels (H, W) under `where` that kept every sample; NaN where it is nowhere."""
    return float((picture[where] == original[where]).all(axis=1).mean()) if where.any() else math.nan


def detection_scores(found: np.ndarray, mask: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """found, mask, counts: (H, W) bool. NaN where a score has nothing to be measured on."""
    hits = float((found & mask & counts).sum())
    num_found, num_true = float((found & counts).sum()), float((mask & counts).sum())
    return {
        "recall": hits / num_true if num_true else math.nan,
        "precision": hits / num_found if num_found else math.nan,
        "iou": hits / (num_found + num_true - hits) if num_found + num_true else math.nan,
    }


class LPIPS:
    """Learned perceptual image patch similarity, version 0.1 with AlexNet (Zhang et al. 2018, arXiv 1801.03924).

    The weights are not part of this repository: a folder with `alexnet_features_fp16.safetensors` (torchvision's names)
    and `lpips_alex_lin.safetensors` (`linN.weight`). Lower is closer.
    """

    LAYERS = ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1))  # torchvision's index, stride, padding
    MEAN = (-0.030, -0.088, -0.188)
    SCALE = (0.458, 0.448, 0.450)

    def __init__(self, folder: Path) -> None:
        self._features = load_weights(folder / "alexnet_features_fp16.safetensors", "--lpips-weights")
        self._linear = load_weights(folder / "lpips_alex_lin.safetensors", "--lpips-weights")

    @classmethod
    def normalised(cls, pictures: Tensor) -> Tensor:
        """pictures: (N, 3, H, W) in [-1, 1]; as the networks expect them."""
        mean, scale = (torch.tensor(each, device=pictures.device).view(1, 3, 1, 1) for each in (cls.MEAN, cls.SCALE))
        return (pictures - mean) / scale

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, clean: np.ndarray) -> float:
        x = self.normalised(to_signed_range(torch.stack([to_model_range(picture), to_model_range(clean)])))
        distance = 0.0
        for index, (layer, stride, padding) in enumerate(self.LAYERS):
            weight, bias = self._features[f"features.{layer}.weight"], self._features[f"features.{layer}.bias"]
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            squared = (unit[:1] - unit[1:]) ** 2
            distance += float(F.conv2d(squared, self._linear[f"lin{index}.weight"]).mean())
            if index < 2:
                x = F.max_pool2d(x, 3, 2)
        return distance


def load_weights(path: Path, option: str) -> dict[str, Tensor]:
    """float32, by name. option: by which the folder was named. Raises DataError for a file that is not there."""
    if not path.is_file():
        raise DataError(f"{path.parent} holds no {path.name}; name the folder that holds it with {option}")
    return {name: weight.float() for name, weight in load_file(path).items()}
