"""One pass over a photo at one scale: the damage map first, then what was under the mask.

`TilePass` works at the photo's own scale, tile by tile. `ResizePass` sees the whole photo at once in a single tile.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from restoration.device import TileGenerator
from restoration.tensors import stack_tiles, to_samples
from restoration.tiling import TilePlan, blend_tiles, cut_tiles, plan_tiles, plan_tiles_around

TILE_PX = 256
OVERLAP_PX = 128
"""Half of it on either side of a sample is as far as a detector may look for its map not to depend on the tiles."""
CELL_PX = 32
"""Tiles start at multiples of it: a network answers alike for what moves by whole cells of its coarsest layer, 8 or
16 px in ours."""
FILL_MARGIN_PX = 32
"""What is filled has so much of the photo around it in its tile."""
SUSPECT_LEVEL = 5
"""From this level of the map on, a logit of -4, a sample is suspect: it is looked at again, in other orientations."""
GROWN_PX = 8
"""And so is what lies so near, into which the damage may reach."""
LEAST_DOUBT = 1e-7
"""A map is never nearer to 0 or 1 than this where logits are averaged, 16 in logits."""
BATCHES_AHEAD = 2
"""One that is computed, and one that waits for the device."""

Turn = Callable[[Tensor], Tensor]
TURNS: tuple[tuple[Turn, Turn], ...] = (
    (lambda tiles: tiles, lambda tiles: tiles),
    (lambda tiles: tiles.rot90(1, (2, 3)), lambda tiles: tiles.rot90(-1, (2, 3))),
    (lambda tiles: tiles.flip(3), lambda tiles: tiles.flip(3)),
    (lambda tiles: tiles.transpose(2, 3), lambda tiles: tiles.transpose(2, 3)),
)
"""Four of the eight orientations of (N, C, T, T), each with its inverse."""

Item = TypeVar("Item")
DamagedTile = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A tile (T, T, 3) uint8 or uint16, its mask and where it may be looked through, (T, T, 1) bool each."""


class Pass(Protocol):
    """colour: (H, W, 3) uint8, what the generator sees of a photo."""

    def detect(self, colour: np.ndarray) -> np.ndarray:
        """Returns the damage map, (H, W) uint8, 255 is certain damage."""

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        """mask, see_through: (H, W) bool, what to fill, and where the generator may look at the damaged samples.

        Returns (H, W, 3) uint8, of which only what lies under the mask means anything. `TilePass` and what works
        through it take colours of uint16, too, and then paint uint16.
        """


class TilePass:
    """The native pass: overlapping tiles, all over the photo to detect, around the mask to fill.

    `offset_px` moves the grid of tiles on which damage is detected; the result should not change.
    """

    def __init__(self, generator: TileGenerator, *, offset_px: int = 0) -> None:
        self._generator = generator
        self._offset_px = offset_px

    def detect(self, colour: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        """See `Pass.detect`. context: what `survey` told of a copy of half the side, (H / 2, W / 2, C) uint8."""
        damage_map = self.look_once(colour, context)
        self._look_again(damage_map, colour, context)
        return damage_map

    def survey(self, colour: np.ndarray, context: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """`detect`, and what the next finer copy is told, (H, W, C) uint8; None if the generator tells it nothing."""
        if not self._generator.num_context_planes:
            return self.detect(colour, context), None
        planes = self._detect(colour, context, 1 + self._generator.num_context_planes)
        damage_map = np.ascontiguousarray(planes[:, :, 0])
        self._look_again(damage_map, colour, context)
        return damage_map, planes[:, :, 1:]

    def look_once(self, colour: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        """The damage map, (H, W) uint8, before what is suspect was looked at again."""
        return self._detect(colour, context, 1)[:, :, 0]

    def _detect(self, colour: np.ndarray, context: np.ndarray | None, num_planes: int) -> np.ndarray:
        """The first planes of the generator's answer, (H, W, num_planes) uint8."""
        plan = self._plan(colour)
        answers = self._answers(colour, context, plan, self._generator.detect, self._generator.batch_size)
        planes = np.empty((*colour.shape[:2], num_planes), np.uint8)
        for top, band in blend_tiles(plan, (each[:, :, :num_planes] for each in answers), num_channels=num_planes):
            planes[top : top + len(band)] = _band_to_samples(band)
        return planes

    def _look_again(self, damage_map: np.ndarray, colour: np.ndarray, context: np.ndarray | None) -> None:
        """Write into the map, (H, W) uint8, what a second look at the suspects finds."""
        suspects = grow(damage_map >= SUSPECT_LEVEL)
        if suspects.any():
            plan = self._plan(colour).touching(suspects)
            batch_size = max(1, self._generator.batch_size // len(TURNS))
            maps = self._answers(colour, context, plan, partial(detect_turned, self._generator), batch_size)
            for top, band in blend_tiles(plan, maps, num_channels=1):
                rows = slice(top, top + len(band))
                np.copyto(damage_map[rows], _band_to_samples(band)[:, :, 0], where=suspects[rows])

    def _answers(
        self,
        colour: np.ndarray,
        context: np.ndarray | None,
        plan: TilePlan,
        detect: Callable[[Tensor, Tensor | None], Tensor],
        batch_size: int,
    ) -> Iterator[np.ndarray]:
        """(T, T, C) float32 each."""

        def detect_batch(tiles: Sequence[tuple[np.ndarray, ...]]) -> Tensor:
            of_colour, *of_context = zip(*tiles, strict=True)
            return detect(stack_tiles(of_colour), stack_tiles(of_context[0]) if of_context else None)

        planes = [cut_tiles(colour, plan)]
        if context is not None:
            planes.append(cut_tiles(context, plan.halved()))
        return _in_batches(zip(*planes, strict=True), detect_batch, batch_size)

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        plan = plan_tiles_around(mask, tile_px=TILE_PX, overlap_px=OVERLAP_PX, margin_px=FILL_MARGIN_PX)
        tiles = _cut_damaged_tiles(colour, mask, see_through, plan)
        pictures = _in_batches(tiles, self._fill_batch, self._generator.batch_size)
        filled = np.zeros(colour.shape, colour.dtype)  # rows that are never written cost no memory
        for top, band in blend_tiles(plan, pictures):
            filled[top : top + len(band)] = _band_to_samples(band, colour.dtype.type)
        return filled

    def corrections(self, colour: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """What to add to colour, (H, W, 3) uint8 or uint16, for its noise to go: see `TileGenerator.denoise`.

        Yields (first row, band), band (rows, W, 3) float32, 1 being the full scale, from top to bottom.
        """
        plan = plan_tiles(
            *colour.shape[:2],
            tile_px=TILE_PX,
            overlap_px=OVERLAP_PX,
            margin_px=OVERLAP_PX // 2,
            cell_px=CELL_PX,
            offset_px=self._offset_px,
        )
        tiles = cut_tiles(colour, plan)
        yield from blend_tiles(plan, _in_batches(tiles, self._denoise_batch, self._generator.batch_size))

    def _plan(self, colour: np.ndarray) -> TilePlan:
        sees_past_overlap = self._generator.detector_radius_px > OVERLAP_PX // 2
        return plan_tiles(
            *colour.shape[:2],
            tile_px=TILE_PX,
            overlap_px=OVERLAP_PX,
            margin_px=0 if sees_past_overlap else OVERLAP_PX // 2,
            cell_px=CELL_PX,
            offset_px=self._offset_px,
        )

    def _denoise_batch(self, tiles: Sequence[np.ndarray]) -> Tensor:
        return self._generator.denoise(stack_tiles(tiles))

    def _fill_batch(self, damaged_tiles: Sequence[DamagedTile]) -> Tensor:
        tiles, masks, see_through = zip(*damaged_tiles, strict=True)
        return _fill(self._generator, stack_tiles(tiles), _stack_masks(masks), _stack_masks(see_through))


class ResizePass:
    """The coarse pass alone: the photo is squeezed into one tile, as the original notebook does with every photo.

    Fast, and of preview quality: what it writes has the tile's resolution. The aspect ratio is not kept.
    """

    def __init__(self, generator: TileGenerator) -> None:
        self._generator = generator

    def detect(self, colour: np.ndarray) -> np.ndarray:
        damage_map = detect_turned(self._generator, stack_tiles([_to_one_tile(colour)]))
        return _resize(to_samples(damage_map[0])[:, :, 0], colour.shape[:2], Image.Resampling.BILINEAR)

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        masks = _stack_masks([_mask_of_one_tile(mask)])
        erased = _stack_masks([_mask_of_one_tile(~see_through)])
        picture = to_samples(_fill(self._generator, stack_tiles([_to_one_tile(colour)]), masks, 1.0 - erased)[0])
        return _resize(picture, colour.shape[:2], Image.Resampling.BICUBIC)


def detect_turned(generator: TileGenerator, tiles: Tensor, context: Tensor | None = None) -> Tensor:
    """The damage map, (N, 1, T, T), whose logits are the means over several orientations of the tiles, (N, 3, T, T).

    What is damage does not depend on how a photo is held; what a network errs in does. context: see
    `TileGenerator.detect`.
    """
    turned = (torch.cat([turn(each) for turn, _ in TURNS]) for each in (tiles, context) if each is not None)
    maps = generator.detect(*turned)[:, :1]
    turned_back = [back(each) for (_, back), each in zip(TURNS, torch.chunk(maps, len(TURNS)), strict=True)]
    return torch.sigmoid(torch.logit(torch.stack(turned_back), eps=LEAST_DOUBT).mean(dim=0))


def grow(mask: np.ndarray) -> np.ndarray:
    """mask: (H, W) bool, and what lies within `GROWN_PX` of it."""
    grown: np.ndarray = ndimage.maximum_filter(mask, 2 * GROWN_PX + 1)
    return grown


def _cut_damaged_tiles(
    colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray, plan: TilePlan
) -> Iterator[DamagedTile]:
    planes = (colour, mask[:, :, None], see_through[:, :, None])
    return zip(*(cut_tiles(plane, plan) for plane in planes), strict=True)


def _fill(generator: TileGenerator, tiles: Tensor, masks: Tensor, see_through: Tensor) -> Tensor:
    """Give the generator the conditions that it has a plane for."""
    if not generator.conditions:
        return generator.fill(tiles, masks)
    planes = {"see_through": see_through}
    return generator.fill(tiles, masks, torch.cat([planes[name] for name in generator.conditions], dim=1))


def _in_batches(
    items: Iterable[Item], compute: Callable[[Sequence[Item]], Tensor], batch_size: int
) -> Iterator[np.ndarray]:
    """Compute the items, `batch_size` at a time. compute: items to (N, C, T, T) float32; yields (T, T, C) float32.

    While one batch is computed, in a thread, the next one is cut, and what the last one gave is made use of.
    """
    remaining = iter(items)
    batches = iter(lambda: list(islice(remaining, batch_size)), [])
    computed: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(1, "batches") as thread:
        for batch in batches:
            computed.append(thread.submit(compute, batch))
            if len(computed) == BATCHES_AHEAD:
                yield from _tiles_of(computed.popleft())
        while computed:
            yield from _tiles_of(computed.popleft())


def _tiles_of(computed: Future[Tensor]) -> np.ndarray:
    """(N, T, T, C) float32 of a batch."""
    tiles: np.ndarray = computed.result().permute(0, 2, 3, 1).numpy()
    return tiles


def _band_to_samples(band: np.ndarray, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> np.ndarray:
    """band: (rows, W, C) float32 in [0, 1]; returns the same as `dtype`."""
    return to_samples(torch.from_numpy(band).permute(2, 0, 1), dtype)


def _stack_masks(masks: Sequence[np.ndarray]) -> Tensor:
    """masks: N arrays (T, T, 1) bool; returns (N, 1, T, T) float32, 0 or 1."""
    return torch.from_numpy(np.stack(masks)).permute(0, 3, 1, 2).float()


def _to_one_tile(colour: np.ndarray) -> np.ndarray:
    return _resize(colour, (TILE_PX, TILE_PX), Image.Resampling.LANCZOS)


def _resize(samples: np.ndarray, size_px: tuple[int, ...], resampling: Image.Resampling) -> np.ndarray:
    """samples: (H, W) or (H, W, 3) uint8; size_px: height, width."""
    height_px, width_px = size_px
    return np.array(Image.fromarray(samples).resize((width_px, height_px), resampling))


def _mask_of_one_tile(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool to (TILE_PX, TILE_PX, 1) bool, set where any sample under it is: a hairline must not get lost."""
    for axis in (0, 1):
        starts = np.arange(TILE_PX) * mask.shape[axis] // TILE_PX
        mask = np.logical_or.reduceat(mask, starts, axis=axis)
    return mask[:, :, None]
