"""Noise is taken out of the whole photo if that is asked for, in its own depth; and only then."""

import io
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from skimage import data

from restoration.device import DeviceGenerator
from restoration.errors import DenoiserMissing, InvalidOption
from restoration.photo import Photo, decode_photo, encode_photo
from restoration.restorer import RestoreOptions, restore_photo

from .odd_photos import ALPHA, BLACK_AND_WHITE, DEEP_GREY, DEEP_RGB, GREY, INKS, RGB, deep_png, picture_of, save
from .small_generator import add_to_every_sample, encode, make_generator
from .test_restorer import MODES, WhiteIsDamage, dark_photo, photo_of, scratched

CPU = torch.device("cpu")
FULL = RestoreOptions(denoise=1.0)


class PaintsAndAdds(WhiteIsDamage):
    """Its denoiser adds the same to every sample of a channel."""

    has_denoiser = True

    def __init__(self, *correction: float) -> None:
        super().__init__()
        self.correction = torch.tensor(correction).view(1, -1, 1, 1)

    def denoise(self, tiles: torch.Tensor) -> torch.Tensor:
        return self.correction.expand(len(tiles), 3, *tiles.shape[2:])


class Adds(PaintsAndAdds):
    """And finds no damage."""

    def detect(self, tiles: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros_like(tiles[:, :1])


def denoised(photo: Photo, *correction: float, denoise: float = 1.0, **options) -> np.ndarray:
    return restore_photo(photo, Adds(*correction), RestoreOptions(denoise=denoise, **options)).samples


@MODES
def test_what_is_not_to_be_denoised_comes_back_byte_for_byte(mode):
    photo = photo_of(dark_photo(300, 400), "JPEG")
    restoration = restore_photo(photo, Adds(0.1), RestoreOptions(mode=mode))
    assert restoration.samples is photo.samples
    assert restoration.encode(photo) == photo.encoded


@MODES
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_as_much_is_added_as_was_asked_for_in_every_mode(mode, share):
    samples = dark_photo(300, 400)
    after = denoised(photo_of(samples), 0.1, 0.2, 0.4, denoise=share, mode=mode)
    expected = np.rint(samples + np.float32(255 * share) * np.array([0.1, 0.2, 0.4], np.float32))
    assert np.abs(after - expected).max() <= 1
    assert (after == expected).mean() > 0.999  # tiles are blended in float32


@MODES
def test_what_was_repaired_is_denoised_too_and_the_ratio_is_that_of_the_damage(mode):
    samples, scratch = scratched()
    photo, options = photo_of(samples), RestoreOptions(mode=mode, sensitivity=0.9)
    repaired = restore_photo(photo, PaintsAndAdds(0.2), options)
    both = restore_photo(photo, PaintsAndAdds(0.2), replace(options, denoise=1.0))
    assert np.array_equal(both.samples[scratch], np.minimum(255, repaired.samples[scratch].astype(int) + 51))
    assert np.array_equal(both.mask, repaired.mask)
    assert 0.0 < both.damage_ratio == repaired.damage_ratio < 0.1
    assert set(both.seconds) == set(repaired.seconds) | {"denoise"}


def test_sixteen_bits_are_corrected_by_less_than_one_level_of_eight():
    photo = decode_photo(deep_png(DEEP_RGB))
    assert photo.samples.dtype == np.uint16
    after = denoised(photo, 10 / 65535, 20 / 65535, -30 / 65535)
    assert np.array_equal(after.astype(int) - photo.samples, np.broadcast_to([10, 20, -30], after.shape))
    grey = decode_photo(deep_png(DEEP_GREY))
    assert (denoised(grey, *[100 / 65535] * 3).astype(int) - grey.samples == 100).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_grey_stays_grey(mode):
    after = denoised(photo_of(np.asarray(picture_of(GREY // 2).convert(mode))), 0.3, 0.0, 0.0)
    assert (after == after[:, :, :1]).all()
    assert (after.astype(int)[:, :, 0] - GREY // 2 == round(0.3 * 0.299 * 255)).all()


@pytest.mark.parametrize("colours", [RGB, GREY[:, :, None]], ids=["RGB", "grey"])
def test_alpha_stays(colours):
    samples = np.concatenate([colours // 2, ALPHA[:, :, None]], axis=2)
    after = denoised(photo_of(samples), 0.2)
    assert np.array_equal(after[:, :, -1], ALPHA)
    assert (after[:, :, :-1].astype(int) - samples[:, :, :-1] == 51).all()


def test_what_is_protected_stays():
    samples, protect = dark_photo(300, 300), np.zeros((300, 300), bool)
    protect[100:200, 50:250] = True
    after = denoised(photo_of(samples), 0.2, protect=protect)
    assert np.array_equal(after[protect], samples[protect])
    assert (after[~protect].astype(int) - samples[~protect] == 51).all()


def test_samples_end_at_their_scale():
    after = denoised(photo_of(data.astronaut()[:64, :64]), 0.5, 0.5, -1.0)
    assert after[:, :, 0].max() == 255
    assert not after[:, :, 2].any()


def test_inks_change_by_as_much_as_their_colours():
    photo = decode_photo(save(picture_of(INKS, "CMYK"), "TIFF", compression="tiff_lzw"))
    assert np.array_equal(denoised(photo, 0.0), photo.samples)
    lighter = denoised(photo, 0.1)
    assert photo.colours.see(lighter).mean() > photo.colour().mean() + 15


def test_a_palette_and_black_and_white_take_the_nearest_that_they_have():
    for picture in (picture_of(RGB).quantize(16), picture_of(BLACK_AND_WHITE)):
        photo = decode_photo(save(picture, "PNG"))
        assert np.array_equal(denoised(photo, 0.01), photo.samples)
        assert photo.colours.see(denoised(photo, 0.6)).mean() > photo.colour().mean() + 20


def test_white_is_zero_is_no_negative():
    file = io.BytesIO()
    tifffile.imwrite(file, GREY // 2, photometric="miniswhite")
    photo = decode_photo(file.getvalue())
    after = photo.colours.see(denoised(photo, 0.2)).astype(int)
    assert (after - photo.colour() == np.minimum(51, 255 - photo.colour())).all()


def test_every_page_is_denoised():
    pages = [dark_photo(90, 120), dark_photo(200, 64)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="rgb")
    photo = decode_photo(file.getvalue())
    restoration = restore_photo(photo, Adds(0.2), FULL)
    written = decode_photo(restoration.encode(photo, history=restoration.history("0042")))
    for page, before in zip(written.pages, pages, strict=True):
        assert (page.samples.astype(int) - before == 51).all()
    assert b"; denoised by 1<" in written.encoded


def test_a_generator_that_cannot_is_not_asked():
    class Cannot(WhiteIsDamage):
        has_denoiser = False

    generator = Cannot()
    with pytest.raises(DenoiserMissing, match="has no denoiser"):
        restore_photo(photo_of(scratched()[0]), generator, FULL)
    assert generator.num_detected == 0
    assert restore_photo(photo_of(scratched()[0]), generator).damage_ratio > 0.0


@pytest.mark.parametrize("denoise", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(denoise):
    with pytest.raises(InvalidOption, match="denoise is"):
        RestoreOptions(denoise=denoise)


# --- JPEG -------------------------------------------------------------------------------------------------------------


def distance(photo: bytes, samples: np.ndarray) -> float:
    return float(np.abs(decode_photo(photo).samples.astype(int) - samples).mean())


def test_artifacts_that_were_taken_out_of_a_jpeg_do_not_come_back():
    """A JPEG's own tables round a smoothed picture to the coefficients that it had."""
    clean = data.astronaut()[:256, 100:356]
    coarse = decode_photo(encode(clean, "JPEG", quality=10))
    written = encode_photo(coarse, clean, is_denoised=True)
    own_tables = encode_photo(coarse, clean)
    assert distance(written, clean) < 0.5 * distance(own_tables, clean)


def test_a_jpeg_that_is_finer_keeps_its_tables():
    fine = photo_of(dark_photo(120, 160), "JPEG", quality=98)
    restoration = restore_photo(fine, Adds(0.2), FULL)
    with Image.open(io.BytesIO(fine.encoded)) as before, Image.open(io.BytesIO(restoration.encode(fine))) as after:
        assert after.quantization == before.quantization
    assert distance(restoration.encode(fine), restoration.samples) < 1.0


def test_a_quality_that_is_asked_for_is_kept():
    coarse = photo_of(dark_photo(120, 160), "JPEG", quality=10)
    with Image.open(io.BytesIO(encode_photo(coarse, coarse.samples // 2, quality=30, is_denoised=True))) as written:
        found = written.quantization
    with Image.open(io.BytesIO(encode(dark_photo(16, 16), "JPEG", quality=30))) as expected:
        assert found == expected.quantization


# --- the network ------------------------------------------------------------------------------------------------------


def noisy_generator():
    """A small one whose denoiser does something, at random."""
    generator = make_generator(denoiser_channels=(8, 12, 16))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.nn.init.normal_(generator.denoiser.head.weight, std=0.01)
    return generator


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_tiles_leave_no_trace(precision):
    generator = DeviceGenerator(noisy_generator(), CPU, precision)
    photo = photo_of(dark_photo(300, 421))
    options = RestoreOptions(mode="tile", denoise=1.0)
    one, *others = (restore_photo(photo, generator, options, offset_px=offset_px).samples for offset_px in (0, 32, 64))
    assert np.abs(one.astype(int) - photo.samples).mean() > 1.0
    for other in others:
        assert np.array_equal(one, other)


def test_a_denoiser_that_takes_nothing_for_noise_changes_nothing():
    network = make_generator(damage_logit=-20.0, denoiser_channels=(8, 12, 16))
    add_to_every_sample(network.denoiser, 0.0)
    generator = DeviceGenerator(network, CPU, "float32")
    photo = photo_of(dark_photo(100, 100), "JPEG")
    assert restore_photo(photo, generator, FULL).encode(photo) == photo.encoded
