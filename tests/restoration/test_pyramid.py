"""Coarse to fine, with painters and detectors that see as far as they say and no farther."""

import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage
from skimage import data

from restoration import pyramid
from restoration.device import DeviceGenerator
from restoration.passes import Seen, TilePass
from restoration.photo import decode_photo
from restoration.pyramid import RIM_PX, PyramidPass, decided_parts, deep_parts, double, double_where, halve
from restoration.restorer import RestoreOptions, restore_photo
from restoration.windows import halve_mask

from .small_generator import encode, make_generator

SIZES = [(256, 256), (257, 301), (511, 640)]


class SeesNear:
    """Takes white for damage if it sees its edge within 32 px on either side, and paints what it is shown beside it."""

    batch_size = 4
    calls_at_once = 1
    detector_radius_px = 32
    required_evidence = 0.0
    num_context_planes, has_verifier = 0, False
    conditions = ("see_through",)

    def __init__(self) -> None:
        self.num_detected = self.num_filled = 0

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        self.num_detected += len(tiles)
        is_white = (tiles.amin(dim=1, keepdim=True) > 0.99).float()
        rows = torch.nn.functional.max_pool2d(1.0 - is_white, (65, 1), stride=1, padding=(32, 0))
        sees_other = torch.nn.functional.max_pool2d(rows, (1, 65), stride=1, padding=(0, 32))
        return is_white * sees_other

    def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of the tile's samples outside the mask; what is shown under it, where there are none."""
        self.num_filled += len(tiles)
        outside = 1.0 - mask
        total = outside.sum(dim=(2, 3), keepdim=True)
        mean = (tiles * outside).sum(dim=(2, 3), keepdim=True) / total.clamp(min=1.0)
        return torch.where(total > 0, mean, tiles).expand_as(tiles)


def scan(height_px: int, width_px: int, stripe_px: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark scan with a white stripe of that width: (H, W, 3) uint8 and where the stripe is, (H, W) bool."""
    samples = np.random.default_rng(0).integers(60, 80, (height_px, width_px, 3), np.uint8)
    stripe = np.zeros((height_px, width_px), bool)
    stripe[:, width_px // 3 : width_px // 3 + stripe_px] = True
    samples[stripe] = 255
    return samples, stripe


def restore(samples: np.ndarray, generator, **options):
    return restore_photo(decode_photo(encode(samples)), generator, RestoreOptions(**options))


def test_wide_damage_of_sixteen_bits_goes_as_of_eight_and_its_paint_is_finer():
    samples, stripe = scan(520, 640, 150)
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, samples.astype(np.uint16) * 257, photometric="rgb")
    deep = restore_photo(decode_photo(encoded.getvalue()), SeesNear()).samples
    assert (deep[stripe] < 100 * 257).all()
    assert (deep[stripe] % 257 != 0).any()
    difference = deep.astype(int) - restore(samples, SeesNear()).samples.astype(int) * 257
    assert np.abs(difference).max() <= 257


@pytest.mark.parametrize("stripe_px", [3, 60, 150])
def test_wide_damage_goes_as_narrow_damage_does(stripe_px):
    samples, stripe = scan(1000, 1200, stripe_px)
    restored = restore(samples, SeesNear(), mode="auto")
    assert restored.mask[stripe].mean() > 0.99
    assert restored.samples[stripe].max() < 90
    assert np.array_equal(restored.samples[~restored.mask], samples[~restored.mask])


def test_the_native_pass_alone_leaves_the_middle_of_what_is_wide():
    samples, stripe = scan(1000, 1200, 150)
    restored = restore(samples, SeesNear(), mode="tile")
    assert restored.mask[stripe].mean() < 0.5


@pytest.mark.parametrize("stripe_px", [3, 60, 150])
def test_the_edge_of_the_mask_is_that_of_the_damage(stripe_px):
    """To a few samples: what a copy found is as exact as its samples are."""
    samples, stripe = scan(700, 900, stripe_px)
    mask = restore(samples, SeesNear(), mode="auto").mask
    assert mask[stripe].all()
    assert not mask[~ndimage.binary_dilation(stripe, np.ones((1, 9)))].any()


def test_it_costs_a_third_more_than_the_native_pass():
    samples, _ = scan(2048, 2048, 3)
    counts = []
    for mode in ("tile", "auto"):
        generator = SeesNear()
        restore(samples, generator, mode=mode)
        counts.append(generator.num_detected)
    assert counts[1] / counts[0] < 1.45


def test_forced_damage_wider_than_a_tile_is_filled_from_what_lies_around_it():
    samples, _ = scan(1024, 1024, 0)
    forced = np.zeros((1024, 1024), bool)
    forced[300:700, 250:750] = True
    samples[forced] = 255
    restored = restore(samples, SeesNear(), mode="auto", damage=forced)
    assert restored.samples[forced].max() < 90
    assert restore(samples, SeesNear(), mode="tile", damage=forced).samples[500, 500].min() > 120


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_halving_and_doubling_keep_the_place(size):
    """A ramp comes back as it was, at odd sizes too: half a coarse pixel's shift would show."""
    ramp = np.add.outer(np.linspace(0, 120, size[0]), np.linspace(0, 120, size[1])).astype(np.uint8)
    colour = np.repeat(ramp[:, :, None], 3, axis=2)
    back = double(halve(colour)[:, :, 0], size)
    assert back.shape == size
    assert np.abs(back.astype(int) - ramp).max() <= 2
    assert np.array_equal(double_where(np.ones(size, bool), halve(colour), colour.dtype)[:, :, 1], back)


def test_bands_leave_no_seam(monkeypatch):
    samples = np.random.default_rng(0).integers(0, 256, (301, 77, 3), np.uint8)
    whole = halve(samples), double(samples[:151, :39, 0].copy(), (301, 77))
    monkeypatch.setattr(pyramid, "BAND_PX", 32)
    assert np.array_equal(halve(samples), whole[0])
    by_bands = double(samples[:151, :39, 0].copy(), (301, 77))
    assert np.abs(by_bands.astype(int) - whole[1]).max() <= 1  # rows are doubled first, and rounded


@pytest.mark.parametrize("size", [(301, 77), (1300, 61)], ids=["columns first", "rows first"])
def test_what_is_doubled_does_not_depend_on_what_else_is(size):
    """Box by box, where something is set; Pillow, given bands of all of it, is the yardstick."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, [-(-extent // 2) for extent in size], np.uint8)
    coarse[rng.random(coarse.shape) < 0.9] = 0
    whole = np.empty(size, np.uint8)
    for top in range(0, size[0], pyramid.BAND_PX):
        bottom = min(top + pyramid.BAND_PX, size[0])
        box = (0.0, top / 2, size[1] / 2, bottom / 2)
        whole[top:bottom] = Image.fromarray(coarse).resize((size[1], bottom - top), Image.Resampling.BILINEAR, box)
    assert np.array_equal(double(coarse, size), whole)
    specks = np.zeros_like(coarse)
    specks[5, 7] = specks[-1, -1] = specks[70, 20] = 255
    alone = [np.zeros_like(coarse) for _ in range(3)]
    for each, place in zip(alone, ((5, 7), (-1, -1), (70, 20)), strict=True):
        each[place] = 255
    assert np.array_equal(double(specks, size), sum(double(each, size) for each in alone))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_hairline_of_a_mask_survives_halving(size):
    mask = np.zeros(size, bool)
    mask[:, size[1] - 1] = True
    halved = halve_mask(mask)
    assert halved.shape == (-(-size[0] // 2), -(-size[1] // 2))
    assert halved[:, -1].all()
    assert not halved[:, :-1].any()


def test_what_was_decided_is_carried_on_but_for_what_is_thin():
    opacities = np.zeros((100, 100), np.uint8)
    opacities[:, 10:12] = 255
    opacities[20:60, 40:80] = 255
    opacities[20:60, 60:80] = 64
    decided = decided_parts(opacities)
    assert not decided[:, :30].any()
    assert not decided[70:].any()
    assert (decided[20:60, 40:80] == pyramid.CARRIED_LEVEL).all()


class MustBeSure(SeesNear):
    """Certain of bright stripes of up to 8 px; of wider ones it sees a rim of 4 px, as certainly as `rim` says."""

    required_evidence = 5.5
    rim = 0.05

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        bright = (tiles.amin(dim=1, keepdim=True) > 0.6).float()
        is_inside = -torch.nn.functional.max_pool2d(-bright, 9, stride=1, padding=4)
        is_wide = torch.nn.functional.max_pool2d(is_inside, 9, stride=1, padding=4)
        return bright - is_wide + self.rim * (is_wide - is_inside)


def test_what_a_copy_takes_for_damage_is_found_to_its_edge_where_the_photo_itself_has_evidence():
    class SeesTheRim(MustBeSure):
        rim = 0.99

    samples, stripe = scan(1000, 1200, 24)
    assert restore(samples, SeesTheRim(), mode="tile").mask[stripe].mean() < 0.5
    found = restore(samples, SeesTheRim(), mode="auto").mask
    assert found[stripe].all()
    assert not found[~ndimage.binary_dilation(stripe, np.ones((9, 9)))].any()


def test_what_only_a_copy_takes_for_damage_is_none():
    """Cables and lamps were strokes and holes on small copies, and nothing of the kind on the photo."""
    samples, _ = scan(1000, 1200, 24)
    assert restore(halve(halve(samples)), MustBeSure(), mode="tile").mask.any()
    assert not restore(samples, MustBeSure(), mode="auto").mask.any()


def test_what_lies_deep_in_damage_has_nothing_but_damage_within_the_rim():
    mask = np.zeros((100, 100), bool)
    mask[:, 10 : 10 + 2 * RIM_PX] = True  # too narrow by a sample
    mask[20:60, 40:80] = True
    deep = deep_parts(mask)
    assert set(np.unique(deep)) == {0, 255}
    assert not deep[70:, :30].any()
    assert np.array_equal(deep[:, 40:] > 0, ndimage.binary_erosion(mask[:, 40:], np.ones((2 * RIM_PX + 1,) * 2)))


def test_a_rim_is_painted_on_the_photo_itself_and_what_is_deeper_on_its_copies_only():
    class PaintsFinely(SeesNear):
        """A dither of 60 and 90, which no doubled copy can show."""

        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            dither = torch.full_like(tiles, 60 / 255)
            dither[..., ::2, ::2] = dither[..., 1::2, 1::2] = 90 / 255
            return dither

    samples, stripe = scan(520, 640, 150)
    painted = restore(samples, PaintsFinely(), damage=stripe).samples[:, :, 0].astype(int)
    first, last = np.flatnonzero(stripe[0])[[0, -1]]
    is_fine = (np.abs(np.diff(painted, axis=0)) == 30).all(axis=0)
    assert is_fine[first : first + 2 * RIM_PX - 1].all()
    assert is_fine[last - 2 * RIM_PX + 2 : last + 1].all()
    assert not is_fine[first + 2 * RIM_PX + 2 : last - 2 * RIM_PX - 1].any()


def test_what_a_painter_makes_of_undamaged_samples_does_not_bleed_into_the_fill():
    class GlaresOutside(SeesNear):
        """Right under the mask, blinding beside it, where its answer means nothing."""

        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            shows_through = (tiles * mask).sum() / mask.sum().clamp(min=1.0) < 0.9
            return torch.where(mask > 0, tiles if shows_through else torch.full_like(tiles, 70 / 255), 1.0)

    samples, _ = scan(512, 512, 0)
    forced = np.zeros((512, 512), bool)
    forced[101:301, 151:351] = True
    samples[forced] = 255
    restored = restore(samples, GlaresOutside(), mode="auto", damage=forced)
    assert np.abs(restored.samples[forced].astype(int) - 70).max() <= 12


def test_a_generator_that_cannot_look_through_a_mask_repaints_at_the_photo_s_own_scale():
    """Given its own coarse picture instead of the photo, `pix2pix` would lose all detail."""

    class Repaints(SeesNear):
        conditions = ()

    samples, _ = scan(512, 512, 60)
    counts = []
    for mode in ("tile", "auto"):
        generator = Repaints()
        restore(samples, generator, mode=mode)
        counts.append((generator.num_detected, generator.num_filled))
    assert counts[0] == counts[1]


class TellsWhatItSees(SeesNear):
    """It tells how bright each sample is; and how many planes it was told of which brightness, is kept."""

    num_context_planes, has_verifier = 1, False

    def __init__(self) -> None:
        super().__init__()
        self.told = []

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        self.told.append(None if context is None else (tiles, context))
        return torch.cat([super().detect(tiles), tiles[:, :1]], dim=1)


def test_each_copy_is_told_what_was_seen_of_the_same_place_on_the_next_smaller_one():
    samples, _ = scan(640, 768, 3)
    generator = TellsWhatItSees()
    restore(samples, generator, mode="auto", protect=np.ones(samples.shape[:2], bool))
    assert generator.told[0] is None  # the smallest
    told = [each for each in generator.told if each]
    assert len(told) > 4
    for tiles, context in told:
        halved = torch.nn.functional.avg_pool2d(tiles[:, :1], 2)
        is_told = context > 0.0  # nothing is where it would not count
        assert is_told.float().mean() > 0.2
        assert (halved - context)[is_told].abs().max() < 0.01


def test_what_is_told_where_something_is_suspect_is_what_would_be_told_everywhere(monkeypatch):
    """The second look at the copies is at as little as will do: the map must not show it."""
    generator = make_generator(detector_channels=(8, 12, 16), detector_context=2, detector_shift=4.25)
    torch.nn.init.normal_(generator.detector.context_stem.weight, generator=torch.Generator().manual_seed(0))
    colour = data.astronaut()[:509, :430]
    one_pass = TilePass(DeviceGenerator(generator, torch.device("cpu"), "float32"))
    small = PyramidPass(one_pass, decide=np.zeros_like).detect(colour)
    is_suspect = one_pass.find_suspects(one_pass.look_once(colour)[0])
    assert 0.02 < is_suspect.mean() < 0.98
    monkeypatch.setattr(TilePass, "shown_of_copy", lambda _, places: np.ones_like(halve_mask(places)))
    assert np.array_equal(PyramidPass(one_pass, decide=np.zeros_like).detect(colour), small)


def test_a_small_photo_has_no_smaller_copy():
    class OnePass:
        def look_once(self, colour: np.ndarray, told: None, *, tells: bool) -> tuple[np.ndarray, None]:
            assert colour.shape == (255, 900, 3)
            assert told is None
            assert not tells
            return np.zeros(colour.shape[:2], np.uint8), None

        def look_again(self, copies: list[Seen]) -> None:
            assert len(copies) == 1

    assert not PyramidPass(OnePass(), decide=lambda coarse: coarse).detect(np.zeros((255, 900, 3), np.uint8)).any()
