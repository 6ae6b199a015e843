import numpy as np
import torch
from skimage import data

from restoration.passes import TILE_PX
from training.cases import photo_of
from training.seams import SIDE_PX, STRIDE_PX, difference_of_grids, enlarge, line_over_median

# A line must stand out from this: what noise reaches in all bins of a profile together, now and then
NOISE = 12.0


def make_noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, (SIDE_PX, SIDE_PX)).astype(np.float32)


def test_noise_has_no_line_at_the_stride() -> None:
    assert all(line_over_median(make_noise(seed), STRIDE_PX) < NOISE for seed in range(4))


def test_a_faint_seam_at_every_stride_is_a_line() -> None:
    for axis in (0, 1):
        seams = make_noise(0)
        joints = np.arange(0, SIDE_PX, STRIDE_PX)
        np.moveaxis(seams, axis, 0)[joints] *= 2.0
        assert line_over_median(seams, STRIDE_PX) > 3 * NOISE


def test_a_generator_that_sees_only_single_pixels_has_no_difference_between_grids() -> None:
    class Inverts:
        batch_size = 4
        conditions: tuple[str, ...] = ()

        def detect(self, tiles: torch.Tensor) -> torch.Tensor:
            return (tiles.mean(dim=1, keepdim=True) > 0.5).float()

        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            return 1.0 - tiles

    photo = photo_of(enlarge(data.astronaut(), 2 * TILE_PX))
    assert np.abs(difference_of_grids(photo, Inverts())).max() <= 1.0
