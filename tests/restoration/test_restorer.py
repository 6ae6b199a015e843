import io
import tracemalloc

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data

from restoration.architectures import build_generator
from restoration.device import DeviceGenerator
from restoration.errors import InvalidOption
from restoration.passes import TilePass
from restoration.photo import Photo, decode_photo, encode_photo
from restoration.restorer import RestoreOptions, restore_photo
from restoration.under_way import UNDER_WAY

from .small_generator import encode, make_generator

CPU = torch.device("cpu")


class WhiteIsDamage:
    """Takes what is all but white for damage and paints it blue: what a trained generator does, in one line each."""

    batch_size = 4
    calls_at_once = 1
    detector_radius_px = 0
    required_evidence = 0.0
    num_context_planes, has_verifier = 0, False
    conditions: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.num_detected = self.num_filled = 0

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        self.num_detected += len(tiles)
        return (tiles.amin(dim=1, keepdim=True) > 0.99).float()

    def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        assert mask.shape == (len(tiles), 1, 256, 256)
        assert ((mask == 0.0) | (mask == 1.0)).all()
        assert mask.flatten(1).any(dim=1).all()
        self.num_filled += len(tiles)
        return torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(len(tiles), 3, 256, 256)


def photo_of(samples: np.ndarray, format: str = "PNG", **options) -> Photo:
    return decode_photo(encode(samples, format, **options))


def dark_photo(height_px: int, width_px: int, mode: str = "RGB") -> np.ndarray:
    """Part of a real photo, no sample of it white."""
    picture = Image.fromarray(data.astronaut()).resize((width_px, height_px))
    return np.asarray(picture.convert(mode)) // 2


def scratched(height_px: int = 600, width_px: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """The samples, and where the scratch is: (H, W, 3) uint8 and (H, W) bool."""
    samples = dark_photo(height_px, width_px)
    scratch = np.zeros((height_px, width_px), bool)
    scratch[height_px // 10 : height_px // 2, width_px // 3 : width_px // 3 + 3] = True
    samples[scratch] = 255
    return samples, scratch


MODES = pytest.mark.parametrize("mode", ["auto", "tile", "resize"])


@MODES
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_untouched_photo_comes_back_byte_for_byte(mode, format):
    photo = photo_of(dark_photo(300, 400), format)
    restoration = restore_photo(photo, WhiteIsDamage(), RestoreOptions(mode=mode))
    assert restoration.samples is photo.samples
    assert restoration.damage_ratio == 0.0
    assert encode_photo(photo, restoration.samples) == photo.encoded


def test_the_scratch_is_painted_and_everything_else_keeps_its_value():
    samples, scratch = scratched()
    restoration = restore_photo(photo_of(samples), WhiteIsDamage())
    assert (restoration.samples[scratch] == [0, 0, 255]).all()
    assert np.array_equal(restoration.samples[~restoration.mask], samples[~restoration.mask])
    assert (restoration.damage_map[scratch] == 255).all()
    assert not restoration.damage_map[~scratch].any()


def test_the_mask_is_the_scratch():
    samples, scratch = scratched()
    restoration = restore_photo(photo_of(samples), WhiteIsDamage())
    assert np.array_equal(restoration.mask, scratch)
    assert restoration.damage_ratio == pytest.approx(restoration.mask.mean())


def test_only_tiles_that_the_mask_touches_are_filled():
    samples = dark_photo(1000, 1000)
    samples[20:24, 20:24] = 255
    generator = WhiteIsDamage()
    restore_photo(photo_of(samples), generator)
    assert generator.num_detected == 49 + 4  # one tile was suspect, and looked at in four orientations
    assert generator.num_filled == 1


@MODES
def test_damage_forces_what_was_not_found(mode):
    samples, damage = dark_photo(300, 300), np.zeros((300, 300), bool)
    damage[200:220, 100:130] = True
    restoration = restore_photo(photo_of(samples), WhiteIsDamage(), RestoreOptions(mode=mode, damage=damage))
    assert np.array_equal(restoration.mask, damage)
    assert (restoration.samples[damage] == [0, 0, 255]).all()
    assert np.array_equal(restoration.samples[~damage], samples[~damage])


@MODES
def test_protect_forbids_what_was_found(mode):
    samples, scratch = scratched()
    protect = np.zeros(scratch.shape, bool)
    protect[:200] = True
    restoration = restore_photo(
        photo_of(samples), WhiteIsDamage(), RestoreOptions(mode=mode, sensitivity=0.9, protect=protect)
    )
    assert np.array_equal(restoration.samples[:200], samples[:200])
    assert restoration.mask[200:].any()


def test_protect_wins_over_damage():
    samples, everywhere = dark_photo(50, 50), np.ones((50, 50), bool)
    photo = photo_of(samples)
    restoration = restore_photo(photo, WhiteIsDamage(), RestoreOptions(damage=everywhere, protect=everywhere))
    assert restoration.samples is photo.samples


class Doubtful(WhiteIsDamage):
    required_evidence = 10.0  # a little more than 720 samples at 0.4 are

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return super().detect(tiles) * 0.4


def test_lower_sensitivity_takes_less_for_damage():
    photo = photo_of(scratched()[0])
    ratios = [
        restore_photo(photo, Doubtful(), RestoreOptions(sensitivity=sensitivity)).damage_ratio
        for sensitivity in (0.0, 0.5, 1.0)
    ]
    assert ratios[0] == ratios[1] == 0.0
    assert ratios[2] > 0.0


@pytest.mark.parametrize("asked", [0.0, 0.25, 0.5])
def test_where_nothing_is_sure_enough_the_sensitivity_is_told_from_which_on_it_would_be(asked: float):
    samples, scratch = scratched()
    photo = photo_of(samples)
    found_from = restore_photo(photo, Doubtful(), RestoreOptions(sensitivity=asked)).suspected_from
    assert found_from is not None
    assert found_from > 0.5
    just_below = restore_photo(photo, Doubtful(), RestoreOptions(sensitivity=found_from - 0.1))
    assert (just_below.damage_ratio, just_below.suspected_from) == (0.0, found_from)
    repaired = restore_photo(photo, Doubtful(), RestoreOptions(sensitivity=found_from))
    assert repaired.damage_ratio > 0.0
    assert repaired.suspected_from is None
    protected = restore_photo(photo, Doubtful(), RestoreOptions(sensitivity=asked, protect=scratch))
    assert protected.suspected_from is None


@MODES
def test_nothing_is_suspected_where_nothing_looks_like_damage(mode: str):
    assert restore_photo(photo_of(dark_photo(300, 300)), Doubtful(), RestoreOptions(mode=mode)).suspected_from is None


def test_of_several_pages_the_likeliest_is_told_unless_one_was_repaired():
    class TwoDoubts(Doubtful):
        """Green scratches are damage, white ones may be."""

        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            green = (tiles[:, 1:2] > 0.99) & (tiles[:, :1] < 0.01)
            return torch.maximum(green.float(), super().detect(tiles))

    def pages(*each: np.ndarray) -> Photo:
        encoded = io.BytesIO()
        first, *further = map(Image.fromarray, each)
        first.save(encoded, "TIFF", save_all=True, append_images=further)
        return decode_photo(encoded.getvalue())

    (white, scratch), clean = scratched(), dark_photo(300, 300)
    green = white.copy()
    green[scratch] = (0, 255, 0)
    alone = restore_photo(photo_of(white), TwoDoubts()).suspected_from
    assert alone is not None
    assert restore_photo(pages(clean, white), TwoDoubts()).suspected_from == alone
    assert restore_photo(pages(white, clean), TwoDoubts()).suspected_from == alone
    assert restore_photo(pages(clean, clean), TwoDoubts()).suspected_from is None
    assert restore_photo(pages(white, green), TwoDoubts()).suspected_from is None


def test_a_photo_counts_while_it_is_restored():
    """So that its lone tiles get several cores only if it is the only one."""
    are_alone = []

    class Lone(WhiteIsDamage):
        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            with UNDER_WAY.more_tiles(1) as is_alone:
                are_alone.append(is_alone)
            return super().detect(tiles)

    photo = photo_of(dark_photo(200, 200))
    restore_photo(photo, Lone())
    with UNDER_WAY.one_more_photo():
        restore_photo(photo, Lone())
    restore_photo(photo, Lone())
    assert are_alone == [True, False, True]


def test_doubtful_damage_is_repaired_in_part():
    """What is wide, that is: what is thin gets a second look, and is then less doubtful."""

    class AllButCertain(WhiteIsDamage):
        required_evidence = 12.7  # a little less than 720 samples at 0.99 are
        num_context_planes, has_verifier = 0, False

        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            return super().detect(tiles) * 0.99

    samples = dark_photo(300, 300).copy()
    blot = np.zeros((300, 300), bool)
    blot[100:124, 50:80] = True
    samples[blot] = 255
    restoration = restore_photo(photo_of(samples), AllButCertain(), RestoreOptions(mode="tile"))
    assert np.array_equal(restoration.mask, blot)
    red, _, blue = restoration.samples[blot].T
    assert (blue == 255).all()
    assert (red == red[0]).all()
    assert 0 < red[0] < 255  # between the blot's white and the paint's blue
    assert np.array_equal(restoration.samples[~blot], samples[~blot])


def test_a_grey_photo_stays_grey():
    samples = dark_photo(300, 300, "L").copy()
    samples[100:103, 50:250] = 255
    restoration = restore_photo(photo_of(samples), WhiteIsDamage())
    assert restoration.samples.shape == (300, 300, 1)
    assert (restoration.samples[101, 60:240, 0] == 29).all()  # the luma of blue


def test_sixteen_bits_stay_sixteen_and_undamaged_samples_keep_them_all():
    deep = scratched(300, 300)[0].astype(np.uint16) * 256 + np.arange(300, dtype=np.uint16)[:, None]
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, deep, photometric="rgb")
    photo = decode_photo(encoded.getvalue())
    restoration = restore_photo(photo, WhiteIsDamage())
    assert restoration.samples.dtype == np.uint16
    assert restoration.mask.any()
    assert np.array_equal(restoration.samples[~restoration.mask], deep[~restoration.mask])
    assert (restoration.samples[restoration.mask][:, 2] == 65535).all()


class PaintsWhatItSees(WhiteIsDamage):
    """A sky where damage was: half of what it sees, and a ramp that is finer than a level of 8 bits."""

    conditions = ("see_through",)

    def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        return tiles * 0.5 + torch.linspace(0.0, 0.01, 256).view(1, 1, 256, 1)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_what_is_painted_into_sixteen_bits_has_sixteen(num_channels):
    deep = np.full((200, 256, num_channels), 65_531 - 254, np.uint16)  # white, to 8 bits, and no level of theirs
    deep[:, :100] = 20_000
    encoded = io.BytesIO()
    tifffile.imwrite(encoded, np.squeeze(deep), photometric="rgb" if num_channels == 3 else "minisblack")
    restoration = restore_photo(decode_photo(encoded.getvalue()), PaintsWhatItSees())
    painted = restoration.samples[:, 200, 0].astype(float)
    ramp = np.diff(painted)
    assert ramp.min() > 0
    assert ramp.max() < 4
    assert painted[0] % 257 != 0


def test_every_page_is_restored_and_pages_without_damage_stay():
    clean, damaged = dark_photo(300, 300), scratched(200, 280)[0]
    encoded = io.BytesIO()
    Image.fromarray(clean).save(encoded, "TIFF", save_all=True, append_images=[Image.fromarray(damaged)])
    photo = decode_photo(encoded.getvalue())
    restoration = restore_photo(photo, WhiteIsDamage())
    (second,) = restoration.further_pages
    assert restoration.samples is photo.samples
    assert second.mask.any()
    num_pixels = 300 * 300 + 200 * 280
    assert restoration.damage_ratio == pytest.approx(np.count_nonzero(second.mask) / num_pixels)
    again = decode_photo(restoration.encode(photo))
    assert np.array_equal(again.samples, clean)
    assert np.array_equal(again.further_pages[0].samples, second.samples)
    with pytest.raises(InvalidOption, match="2; send them one by one"):
        restore_photo(photo, WhiteIsDamage(), RestoreOptions(protect=np.zeros((300, 300), bool)))


@MODES
def test_alpha_is_never_written(mode):
    alpha = np.arange(300 * 300, dtype=np.uint8).reshape(300, 300, 1)
    samples = np.concatenate([scratched(300, 300)[0], alpha], axis=2)
    restoration = restore_photo(photo_of(samples), WhiteIsDamage(), RestoreOptions(mode=mode, sensitivity=0.9))
    assert restoration.mask.any()
    assert np.array_equal(restoration.samples[:, :, 3:], alpha)


@MODES
@pytest.mark.parametrize(("height_px", "width_px"), [(1, 1), (1, 300), (300, 1), (7, 400), (256, 256), (257, 255)])
def test_photos_of_any_size_are_restored(mode, height_px, width_px):
    samples = np.full((height_px, width_px, 3), 255, np.uint8)
    restoration = restore_photo(photo_of(samples), WhiteIsDamage(), RestoreOptions(mode=mode))
    assert (restoration.samples == 29).all()  # a white photo is grey, and its paint too: 29 is the luma of blue


def test_resize_sees_a_large_photo_in_one_tile():
    generator = WhiteIsDamage()
    samples = dark_photo(900, 700)
    samples[300:400, 200:300] = 255
    restoration = restore_photo(photo_of(samples), generator, RestoreOptions(mode="resize"))
    assert generator.num_detected == 1 + 4  # once, and again in as many orientations
    assert generator.num_filled == 1
    assert (restoration.samples[310:390, 210:290] == [0, 0, 255]).all()
    assert np.array_equal(restoration.samples[~restoration.mask], samples[~restoration.mask])


def test_resize_does_not_lose_a_hairline_that_the_user_marked():
    damage = np.zeros((1500, 1500), bool)
    damage[:, 777] = True
    restoration = restore_photo(
        photo_of(dark_photo(1500, 1500)), WhiteIsDamage(), RestoreOptions(mode="resize", damage=damage)
    )
    assert (restoration.samples[damage] == [0, 0, 255]).all()


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_batch_size_does_not_change_a_byte(precision):
    photo, options = photo_of(scratched(500, 700)[0]), RestoreOptions(sensitivity=1.0)
    results = [
        restore_photo(photo, DeviceGenerator(make_generator(), CPU, precision, batch_size=batch_size), options)
        for batch_size in (1, 3, 8)
    ]
    assert results[0].mask.any()
    for result in results[1:]:
        assert np.array_equal(result.samples, results[0].samples)
        assert np.array_equal(result.damage_map, results[0].damage_map)


def test_pix2pix_repaints_everything_on_the_same_path():
    torch.manual_seed(0)
    generator = DeviceGenerator(build_generator("pix2pix", {"channels": 4}), CPU, "float32")
    samples = dark_photo(280, 300)
    restoration = restore_photo(photo_of(samples), generator, RestoreOptions(sensitivity=0.0))
    assert restoration.damage_ratio == 1.0
    assert (restoration.damage_map == 255).all()
    assert (restoration.samples != samples).mean() > 0.9


def test_forced_damage_is_erased_before_the_generator_looks_and_found_damage_is_not():
    class TellsWhatItSees(WhiteIsDamage):
        conditions = ("see_through",)

        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            assert conditions is not None
            return conditions.expand_as(tiles)

    samples, scratch = scratched()
    forced = np.zeros_like(scratch)
    forced[400:420, 50:90] = True
    for mode in ("tile", "resize"):
        restoration = restore_photo(photo_of(samples), TellsWhatItSees(), RestoreOptions(mode=mode, damage=forced))
        assert restoration.mask[forced].all()
        assert restoration.samples[405:415, 60:80].max() == 0
    restoration = restore_photo(photo_of(samples), TellsWhatItSees(), RestoreOptions(damage=forced))
    assert restoration.samples[scratch].min() == 255


def test_tiles_that_disagree_leave_no_seam():
    """The worst painter there is, each tile in its own mean colour: the joints are ramps over the overlap."""

    class PaintsTheMean(WhiteIsDamage):
        def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
            return torch.ones_like(tiles[:, :1])

        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            return tiles.mean(dim=(2, 3), keepdim=True).expand_as(tiles)

    photo = photo_of(dark_photo(700, 700))
    for offset_px in (0, 96):
        painted = restore_photo(photo, PaintsTheMean(), offset_px=offset_px).samples.astype(int)
        largest_step = max(np.abs(np.diff(painted, axis=axis)).max() for axis in (0, 1))
        assert painted.max() - painted.min() > 30
        assert largest_step <= 3


def test_a_painter_that_sees_only_what_is_near_gives_the_same_picture_on_any_grid():
    class Blurs(WhiteIsDamage):
        def fill(self, tiles: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(tiles, 9, stride=1, padding=4, count_include_pad=False)

    photo = photo_of(scratched(700, 700)[0])
    one, other = (restore_photo(photo, Blurs(), offset_px=offset_px).samples for offset_px in (0, 96))
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 2


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("size", [(700, 700), (389, 517)], ids=str)
def test_the_damage_map_is_the_same_on_any_grid(precision, size):
    """Not nearly: a map that differs by a level may put a whole scratch on either side of a threshold."""
    one_pass = {
        offset_px: TilePass(
            DeviceGenerator(make_generator(detector_channels=(8, 12, 16)), CPU, precision), offset_px=offset_px
        )
        for offset_px in (0, 32, 64)
    }
    maps = [each.detect(dark_photo(*size)) for each in one_pass.values()]
    assert maps[0].std() > 1.0
    for other in maps[1:]:
        assert np.array_equal(maps[0], other)


@pytest.mark.parametrize("size", [(700, 700), (531, 777)], ids=str)
def test_with_what_coarser_copies_tell_the_map_is_still_the_same_on_any_grid(size):
    generator = make_generator(detector_channels=(8, 12, 16), detector_context=2, detector_shift=1.5)
    torch.nn.init.normal_(generator.detector.context_stem.weight, generator=torch.Generator().manual_seed(0))
    photo, protected = photo_of(dark_photo(*size)), np.ones(size, bool)
    maps = [
        restore_photo(
            photo, DeviceGenerator(generator, CPU, "bfloat16"), RestoreOptions(protect=protected), offset_px=offset_px
        ).damage_map
        for offset_px in (0, 32, 64)
    ]
    assert maps[0].std() > 1.0
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])


def test_seconds_are_told_by_stage():
    damaged = restore_photo(photo_of(scratched()[0]), WhiteIsDamage())
    assert set(damaged.seconds) == {"detect", "mask", "fill", "compose"}
    assert all(seconds >= 0.0 for seconds in damaged.seconds.values())
    assert set(restore_photo(photo_of(dark_photo(9, 9)), WhiteIsDamage()).seconds) == {"detect", "mask"}


def test_the_damage_map_is_encoded_as_a_grey_png():
    restoration = restore_photo(photo_of(scratched()[0]), WhiteIsDamage())
    with Image.open(io.BytesIO(restoration.encode_damage_map())) as picture:
        assert picture.mode == "L"
        assert np.array_equal(np.asarray(picture), restoration.damage_map)


@pytest.mark.parametrize("format", ["RGB", "L"])
def test_memory_stays_within_a_few_times_the_photo(format):
    samples = dark_photo(2000, 1500, format).copy()
    samples[100:110, :] = 255
    samples[:, 700:710] = 255
    photo = photo_of(samples)
    tracemalloc.start()
    try:
        restore_photo(photo, WhiteIsDamage())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    map_mask_and_labels_bytes = 8 * samples.shape[0] * samples.shape[1]
    band_bytes = 256 * 1500 * 3 * 4
    assert peak_bytes < 2 * samples.nbytes + map_mask_and_labels_bytes + 4 * band_bytes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "best"}, "mode is 'best'"),
        ({"sensitivity": 1.5}, "sensitivity is 1.5"),
        ({"sensitivity": float("nan")}, "sensitivity is nan"),
        ({"damage": np.zeros((5, 5), np.uint8)}, "damage is a 2-dimensional uint8"),
        ({"protect": np.zeros((5, 5, 1), bool)}, "protect is a 3-dimensional bool"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InvalidOption, match=message):
        RestoreOptions(**wrong)


@pytest.mark.parametrize("name", ["damage", "protect"])
def test_a_mask_of_another_size_than_the_photo_is_refused(name):
    options = RestoreOptions(**{name: np.zeros((40, 30), bool)})
    with pytest.raises(InvalidOption, match=f"{name} has 30 x 40 pixels, expected the photo's 40 x 30"):
        restore_photo(photo_of(dark_photo(30, 40)), WhiteIsDamage(), options)
