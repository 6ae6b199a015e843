"""One pass over a photo at one scale: the damage map first, then what was under the mask.

`TilePass` works at the photo's own scale, tile by tile. `ResizePass` sees the whole photo at once in a single tile.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from restoration.freed_memory import give_back_freed_memory
from restoration.tensors import band_to_samples, stack_tiles, to_samples
from restoration.tile_generator import TileGenerator
from restoration.tiling import TilePlan, blend_tiles, cut_tiles, plan_tiles, plan_tiles_around, plan_tiles_over
from restoration.windows import copy_where, halve_mask, largest_within

TILE_PX = 256
OVERLAP_PX = 128
"""Half of it on either side of a sample is as far as a detector may look for its map not to depend on the tiles."""
FIRST_OVERLAP_PX = 64
"""The same where a verifier decides, and the first look only says what it is asked of: half as many tiles."""
CELL_PX = 32
"""Tiles start at multiples of it: a network answers alike for what moves by whole cells of its coarsest layer, 8 or
16 px in ours."""
FILL_MARGIN_PX = 32
"""What is filled has so much of the photo around it in its tile."""
SUSPECT_LEVEL = 5
"""From this level of the map on, a logit of -4, a sample is suspect: it is looked at again."""
STILL_SUSPECT_LEVEL = 1
"""And from this on, a logit of -5.5, once more in another orientation: what is less can hardly become damage."""
GROWN_PX = 8
"""And so is what lies so near, into which the damage may reach."""
VERIFIED_PX = 16
"""The same where there is a verifier, which finds more than what was suspected."""
LEAST_DOUBT = 1e-7
"""A map is never nearer to 0 or 1 than this where logits are averaged, 16 in logits."""

Look = Callable[..., Tensor]
Turn = Callable[[Tensor], Tensor]
TURNS: tuple[tuple[Turn, Turn], ...] = (
    (lambda tiles: tiles, lambda tiles: tiles),
    (lambda tiles: tiles.rot90(1, (2, 3)), lambda tiles: tiles.rot90(-1, (2, 3))),
    (lambda tiles: tiles.flip(3), lambda tiles: tiles.flip(3)),
    (lambda tiles: tiles.transpose(2, 3), lambda tiles: tiles.transpose(2, 3)),
)
"""Four of the eight orientations of (N, C, T, T), each with its inverse. A verifier looks in the first
`verifier_turns` of them."""

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


@dataclass(eq=False)
class Seen:
    """A copy of a photo, and what was seen of it so far.

    colour: (H, W, 3) uint8; damage_map: (H, W) uint8, which is written to; logits: (H, W) float16, the sum of those of
    the orientations in which it was looked at again, where it was.
    """

    colour: np.ndarray
    damage_map: np.ndarray
    logits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.logits = np.zeros(self.damage_map.shape, np.float16)  # what is never written costs no memory


@dataclass(frozen=True, eq=False)
class FilledBefore:
    """What was filled of a photo on a smaller copy.

    picture: (H, W, 3) uint8 or uint16 as the photo's colour, which is written to; where: (H, W) bool.
    """

    picture: np.ndarray
    where: np.ndarray


class TilePass:
    """The native pass: overlapping tiles, all over the photo to detect, around the mask to fill.

    `offset_px` moves the grid of tiles on which damage is detected; the result should not change.
    """

    def __init__(self, generator: TileGenerator, *, offset_px: int = 0) -> None:
        self._generator = generator
        self._offset_px = offset_px

    @property
    def num_turns(self) -> int:
        """In how many of `TURNS` what is suspect is looked at again."""
        return self._generator.verifier_turns if self._generator.has_verifier else len(TURNS)

    def detect(self, colour: np.ndarray) -> np.ndarray:
        damage_map, _ = self.look_once(colour)
        self.look_again([Seen(colour, damage_map)])
        return damage_map

    def look_once(
        self, colour: np.ndarray, told: np.ndarray | None = None, *, tells: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The damage map, (H, W) uint8, before what is suspect was looked at again; what the next finer copy is told.

        told: what this told of a copy of half the side, (H / 2, W / 2, C) uint8, if there is one. The second is
        (H, W, C) uint8, C being the generator's `num_context_planes`; None if that is 0, or unless it is to tell.
        """
        is_first_of_two = self._generator.has_verifier and not self._sees_past_overlap
        plan = self._grid(colour.shape[:2], FIRST_OVERLAP_PX if is_first_of_two else OVERLAP_PX)
        num_planes = 1 + (self._generator.num_context_planes if tells else 0)
        answers = self._answers(colour, told, plan, self._generator.detect)
        damage_map = np.empty(colour.shape[:2], np.uint8)
        tells_next = np.empty((*colour.shape[:2], num_planes - 1), np.uint8)
        for box, band in blend_tiles(plan, (each[:, :, :num_planes] for each in answers), num_channels=num_planes):
            planes = band_to_samples(band)
            damage_map[box], tells_next[box] = planes[:, :, 0], planes[:, :, 1:]
        return damage_map, tells_next if tells and num_planes > 1 else None

    def look_again(self, copies: Sequence[Seen]) -> None:
        """Write into the copies' maps what the verifier, or several orientations, say of the suspects.

        With a verifier nothing else is damage. copies: the photo, and those of half the side of the one before.
        What one orientation does not suspect any more is not looked at in the next: there the map stays as it is.
        """
        suspects: list[np.ndarray] = []
        for turn in range(self.num_turns):
            found = [self.find_suspects(copy.damage_map, turn) for copy in copies]
            for is_suspect, was_suspect in zip(found, suspects, strict=False):  # before the first turn nothing was
                is_suspect &= was_suspect
            suspects = found
            if turn == 0 and self._generator.has_verifier:
                for copy, is_suspect in zip(copies, suspects, strict=True):
                    np.multiply(copy.damage_map, is_suspect, out=copy.damage_map)
            self.look_in_turn(turn, copies, suspects)

    def look_in_turn(self, turn: int, copies: Sequence[Seen], suspects: Sequence[np.ndarray]) -> None:
        """Look at the suspects, (H, W) bool of each copy, in one of `TURNS`, and at as much of each smaller copy as is
        told of there. Their map is then that of the mean logits of all turns so far."""
        places = list(suspects[:1])
        for suspects_of_copy in suspects[1:]:
            places.append(suspects_of_copy | self.shown_of_copy(places[-1]))
        told: np.ndarray | None = None
        for index in reversed(range(len(copies))):
            told = self._look_at(turn, copies[index], suspects[index], places[index], told, tells=index > 0)

    def _look_at(
        self,
        turn: int,
        seen: Seen,
        suspects: np.ndarray,
        places: np.ndarray,
        told: np.ndarray | None,
        *,
        tells: bool,
    ) -> np.ndarray | None:
        """suspects, places: (H, W) bool, of which the map is mended, and where anything is to be looked at, suspects
        included. told: what this told of a copy of half the side in the same turn, (H / 2, W / 2, C) uint8. Returns
        what the next finer copy is told at the places, (H, W, C) uint8, or None as `look_once` does."""
        look = self._generator.verify if self._generator.has_verifier else self._generator.detect
        num_told = self._generator.num_context_planes if tells else 0
        tells_next = np.zeros((*places.shape, num_told), np.uint8)  # what is never written costs no memory
        plan = self._plan_over(places)
        answers = self._answers(seen.colour, told, plan, partial(look_turned, look, turn))
        num_planes = 1 + num_told
        for box, band in blend_tiles(plan, (each[:, :, :num_planes] for each in answers), num_channels=num_planes):
            tells_next[box] = band_to_samples(band[:, :, 1:])
            certain = band[:, :, 0]
            if self.num_turns > 1:
                logits = torch.from_numpy(seen.logits[box])
                logits += torch.logit(torch.from_numpy(certain), LEAST_DOUBT)
                certain = torch.sigmoid(logits.float() / (turn + 1)).numpy()
            np.copyto(seen.damage_map[box], band_to_samples(certain), where=suspects[box])
            give_back_freed_memory(seen.damage_map.size)
        return tells_next if num_told else None

    def find_suspects(self, damage_map: np.ndarray, turn: int = 0) -> np.ndarray:
        """damage_map: (H, W) uint8 of the first look, or after some turns; returns (H, W) bool, what is to be looked at
        again."""
        level = STILL_SUSPECT_LEVEL if turn else SUSPECT_LEVEL
        return largest_within(damage_map >= level, VERIFIED_PX if self._generator.has_verifier else GROWN_PX)

    def shown_of_copy(self, places: np.ndarray) -> np.ndarray:
        """What of a copy of half the side counts for what is seen of these places, (H, W) bool.

        Returns (ceil(H / 2), ceil(W / 2)) bool; nothing is set where the generator is told nothing of a copy.
        """
        if not self._generator.num_context_planes:
            return halve_mask(np.zeros_like(places))
        return halve_mask(largest_within(places, min(self._generator.detector_radius_px, TILE_PX)))

    def _answers(
        self,
        colour: np.ndarray,
        told: np.ndarray | None,
        plan: TilePlan,
        look: Look,
    ) -> Iterator[np.ndarray]:
        """(T, T, C) float32 each."""

        def look_at_batch(tiles: Sequence[tuple[np.ndarray, ...]]) -> Tensor:
            of_colour, *of_told = zip(*tiles, strict=True)
            return look(stack_tiles(of_colour), stack_tiles(of_told[0]) if of_told else None)

        planes = [cut_tiles(colour, plan)]
        if told is not None:
            planes.append(cut_tiles(told, plan.halved()))
        return self._in_full_batches(zip(*planes, strict=True), look_at_batch)

    def fill(
        self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray, before: FilledBefore | None = None
    ) -> np.ndarray:
        """See `Pass.fill`. before: seen in place of the colour where it was filled, outside the mask; what is filled is
        written into its picture, which is returned."""
        plan = plan_tiles_around(mask, tile_px=TILE_PX, overlap_px=OVERLAP_PX, margin_px=FILL_MARGIN_PX)
        tiles = _cut_damaged_tiles(colour, mask, see_through, plan, before)
        pictures = self._in_full_batches(tiles, self._fill_batch)
        filled = before.picture if before else np.zeros(colour.shape, colour.dtype)  # what is not written costs nothing
        for box, band in blend_tiles(plan, pictures):
            samples = band_to_samples(band, colour.dtype.type)
            if before:
                copy_where(before.where[box], filled[box], samples)
            filled[box] = samples
            give_back_freed_memory(mask.size)
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
        for (rows, _), band in blend_tiles(plan, self._in_full_batches(tiles, self._denoise_batch)):
            yield rows.start, band

    @property
    def _sees_past_overlap(self) -> bool:
        return self._generator.detector_radius_px > OVERLAP_PX // 2

    def _grid(self, size_px: tuple[int, ...], overlap_px: int) -> TilePlan:
        height_px, width_px = size_px
        return plan_tiles(
            height_px,
            width_px,
            tile_px=TILE_PX,
            overlap_px=overlap_px,
            margin_px=0 if self._sees_past_overlap else overlap_px // 2,
            cell_px=CELL_PX,
            offset_px=self._offset_px,
        )

    def _plan_over(self, places: np.ndarray) -> TilePlan:
        """The tiles with which the places, (H, W) bool, are looked at again."""
        if self._sees_past_overlap:
            return self._grid(places.shape, OVERLAP_PX).touching(places)
        return plan_tiles_over(
            places, tile_px=TILE_PX, margin_px=OVERLAP_PX // 2, cell_px=CELL_PX, offset_px=self._offset_px
        )

    def _in_full_batches(
        self, items: Iterable[Item], compute: Callable[[Sequence[Item]], Tensor]
    ) -> Iterator[np.ndarray]:
        """See `_in_batches`."""
        return _in_batches(items, compute, self._generator.batch_size, self._generator.calls_at_once)

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
        damage_map = TilePass(self._generator).detect(_to_one_tile(colour))
        return _resize(damage_map, colour.shape[:2], Image.Resampling.BILINEAR)

    def fill(self, colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray) -> np.ndarray:
        masks = _stack_masks([_mask_of_one_tile(mask)])
        erased = _stack_masks([_mask_of_one_tile(~see_through)])
        picture = to_samples(_fill(self._generator, stack_tiles([_to_one_tile(colour)]), masks, 1.0 - erased)[0])
        return _resize(picture, colour.shape[:2], Image.Resampling.BICUBIC)


def look_turned(look: Look, turn: int, tiles: Tensor, context: Tensor | None = None) -> Tensor:
    """What is seen of the tiles in one of `TURNS`, turned back.

    What is damage does not depend on how a photo is held; what a network errs in does. Told in one orientation, a
    network can't be trusted to understand it in another: what was told of a turned copy goes to the tile that is turned
    alike. look: as `TileGenerator.detect`; tiles: (N, 3, T, T); context: None, or what was told in the same turn.
    """
    turned, back = TURNS[turn]
    return back(look(turned(tiles)) if context is None else look(turned(tiles), turned(context)))


def _cut_damaged_tiles(
    colour: np.ndarray, mask: np.ndarray, see_through: np.ndarray, plan: TilePlan, before: FilledBefore | None
) -> Iterator[DamagedTile]:
    colours = cut_tiles(colour, plan)
    if before:
        colours = map(_filled_in, colours, cut_tiles(before.picture, plan), cut_tiles(before.where[:, :, None], plan))
    return zip(colours, cut_tiles(mask[:, :, None], plan), cut_tiles(see_through[:, :, None], plan), strict=True)


def _filled_in(tile: np.ndarray, picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """where: (T, T, 1) bool."""
    if not where.any():
        return tile
    filled_in = tile.copy()
    copy_where(where[:, :, 0], picture, filled_in)
    return filled_in


def _fill(generator: TileGenerator, tiles: Tensor, masks: Tensor, see_through: Tensor) -> Tensor:
    """Give the generator the one condition that there is, if it has a plane for it."""
    return generator.fill(tiles, masks, see_through if generator.conditions else None)


def _in_batches(
    items: Iterable[Item], compute: Callable[[Sequence[Item]], Tensor], batch_size: int, num_at_once: int
) -> Iterator[np.ndarray]:
    """Compute the items, `batch_size` at a time. compute: items to (N, C, T, T) float32; yields (T, T, C) float32.

    While batches are computed, each in a thread, the next one is cut, and what the last one gave is made use of.
    """
    remaining = iter(items)
    batches = iter(lambda: list(islice(remaining, batch_size)), [])
    computed: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(num_at_once, "batches") as threads:
        for batch in batches:
            computed.append(threads.submit(compute, batch))
            if len(computed) > num_at_once:
                yield from _tiles_of(computed.popleft())
        while computed:
            yield from _tiles_of(computed.popleft())


def _tiles_of(computed: Future[Tensor]) -> np.ndarray:
    """(N, T, T, C) float32 of a batch."""
    tiles: np.ndarray = computed.result().permute(0, 2, 3, 1).numpy()
    return tiles


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
