import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restoration.errors import DataError
from restoration.tensors import to_samples
from training.photos import (
    CropConfig,
    ResidentPhotos,
    draw_places,
    load_largest_photos,
    load_photos,
    read_photo,
    sample_crop,
    sample_crops,
    turn,
)
from training.samples import crop_sample

from .conftest import names_for, write_photos


def test_each_split_reads_its_own_photographs(photo_folder):
    train, evaluation = (load_photos(photo_folder, split, held_out_share=0.05) for split in ("train", "evaluation"))
    assert train.names == sorted(names_for("train", 4))
    assert evaluation.names == names_for("evaluation", 1)
    assert len(train) == 4
    assert np.array_equal(train.photos[0], read_photo(photo_folder / train.names[0]))


def test_large_photographs_are_made_smaller_small_ones_stay(tmp_path):
    Image.fromarray(data.coffee()).save(tmp_path / "large.png")
    assert read_photo(tmp_path / "large.png", 100).shape == (100, 150, 3)
    assert read_photo(tmp_path / "large.png", 1000).shape == (400, 600, 3)


def test_photographs_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(data.coffee()).save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").shape == (600, 400, 3)


def test_grey_photographs_have_three_equal_channels(tmp_path):
    Image.fromarray(data.camera()).save(tmp_path / "grey.png")
    photo = read_photo(tmp_path / "grey.png")
    assert photo.shape == (512, 512, 3)
    assert (photo == photo[..., :1]).all()


def test_a_sample_of_a_large_folder_is_the_same_each_time(photo_folder):
    first, second = (load_photos(photo_folder, "train", held_out_share=0.05, most=2).names for _ in range(2))
    assert len(first) == 2
    assert first == second


def test_the_largest_photographs_come_first_and_as_large_as_they_are(tmp_path):
    names = names_for("evaluation", 3)
    for name, side_px in zip(names, (64, 128, 96), strict=True):
        write_photos(tmp_path, [name], side_px)
    largest = load_largest_photos(tmp_path, "evaluation", held_out_share=0.05, most=2)
    assert largest.names == names[1:]
    assert [min(photo.shape[:2]) for photo in largest.photos] == [128, 96]


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path):
    with pytest.raises(DataError, match="missing is not a folder"):
        load_photos(tmp_path / "missing", "train", held_out_share=0.05)
    with pytest.raises(DataError, match=f"{tmp_path} holds no photograph for train"):
        load_photos(tmp_path, "train", held_out_share=0.05)


def test_a_grey_scan_of_16_bits_keeps_its_brightness(tmp_path):
    levels = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(levels).save(tmp_path / "scan.png")
    assert np.array_equal(read_photo(tmp_path / "scan.png")[:, :, 1], (levels >> 8).astype(np.uint8))


@pytest.mark.parametrize("content", [b"these are words", b""])
def test_a_file_that_is_no_photograph_is_named(tmp_path, content):
    (tmp_path / names_for("train", 1)[0]).write_bytes(content)
    with pytest.raises(DataError, match=r"photo_\d+.png cannot be read"):
        load_photos(tmp_path, "train", held_out_share=0.05)


def test_a_truncated_photograph_is_named(tmp_path):
    write_photos(tmp_path, ["photo.jpg"])
    encoded = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "photo.jpg").write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(DataError, match=r"photo.jpg cannot be read"):
        read_photo(tmp_path / "photo.jpg")


def test_a_scan_of_floating_point_samples_is_refused_not_taken_for_black(tmp_path):
    Image.fromarray(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)).save(tmp_path / "scan.tif")
    with pytest.raises(DataError, match=r"scan.tif holds floating-point samples.* save it with 8 or 16 bits"):
        read_photo(tmp_path / "scan.tif")


def test_what_is_too_small_is_left_out_of_what_is_held_out_and_named(tmp_path, caplog):
    for split in ("train", "evaluation"):
        small, large = names_for(split, 2)
        write_photos(tmp_path, [small], side_px=31)
        write_photos(tmp_path, [large], side_px=32)
    train, evaluation = (load_photos(tmp_path, split, held_out_share=0.05) for split in ("train", "evaluation"))
    assert train.names == sorted(names_for("train", 2))
    small, large = names_for("evaluation", 2)
    assert evaluation.names == [large]
    assert load_largest_photos(tmp_path, "evaluation", held_out_share=0.05, most=2).names == [large]
    expected = f"1 held-out photographs have a short side below 32 px and are left out: {tmp_path / small}"
    assert caplog.messages == [expected]
    (tmp_path / large).unlink()
    with pytest.raises(DataError, match=r"no photograph for evaluation .*a short side of at least 32 px"):
        load_photos(tmp_path, "evaluation", held_out_share=0.05)


def test_equal_seeds_take_equal_crops():
    photos = [data.astronaut(), data.coffee()]
    first, second, other = (
        sample_crops(photos, 4, 32, CropConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.shape == (4, 3, 32, 32)
    assert 0.0 <= first.min() < first.max() <= 1.0
    assert first.equal(second)
    assert not first.equal(other)


def test_a_crop_at_its_own_scale_is_cut_from_the_photograph():
    photo = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50, 1)
    levels = np.concatenate([photo // 256, photo % 256, photo * 0], axis=2).astype(np.uint8)
    crop = sample_crop(levels, 16, CropConfig(zoom=(1.0, 1.0)), np.random.default_rng(3))
    places = crop[..., 0].astype(int) * 256 + crop[..., 1]
    assert len(np.unique(places)) == 16 * 16
    rows, columns = np.divmod(places, 50)
    assert np.ptp(rows) == np.ptp(columns) == 15


@pytest.mark.parametrize("size", [(5, 7, 3), (20, 300, 3), (64, 64, 3)])
def test_a_photograph_smaller_than_the_crop_is_enlarged(size):
    photo = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    assert sample_crop(photo, 64, CropConfig(), np.random.default_rng(0)).shape == (64, 64, 3)


def test_there_are_eight_orientations_and_crops_take_them_all():
    picture = np.arange(12).reshape(2, 2, 3)
    turned = {turn(picture, orientation).tobytes() for orientation in range(8)}
    assert len(turned) == 8
    photo = np.kron([[0, 60], [120, 250]], np.ones((8, 8))).astype(np.uint8)[..., None].repeat(3, axis=2)
    rng = np.random.default_rng(0)
    seen = {sample_crop(photo, 16, CropConfig(zoom=(1.0, 1.0)), rng).tobytes() for _ in range(100)}
    assert len(seen) == 8


def test_the_whole_photo_is_resized_where_the_recipe_says_so() -> None:
    """Left half black, right half white, twice as wide as high: every orientation of the square shows both halves."""
    photo = np.zeros((40, 80, 3), np.uint8)
    photo[:, 40:] = 255
    rng = np.random.default_rng(0)
    for _ in range(8):
        crop = sample_crop(photo, 32, CropConfig(is_whole=True), rng)
        assert crop.shape == (32, 32, 3)
        assert abs(crop.mean() - 127.5) < 8


# --- in a device's memory ---------------------------------------------------------------------------------------------

PHOTOS = [crop_sample("astronaut", 200)[:160], crop_sample("coffee", 120), crop_sample("chelsea", 300)[:, :140]]


def cut(place: list[float], zoom: tuple[float, float], crop_px: int = 64) -> np.ndarray:
    """place: which photo, how large a cut, from where, how held; see `draw_places`."""
    resident = ResidentPhotos.of(PHOTOS, torch.device("cpu"))
    crop = resident.cut(torch.tensor([place], dtype=torch.float64), crop_px, CropConfig(zoom=zoom))
    assert crop.shape == (1, 3, crop_px, crop_px)
    return to_samples(crop[0])


@pytest.mark.parametrize("index", range(3))
def test_a_cut_of_the_crop_s_own_size_is_the_photo_s_samples(index):
    height_px, width_px = PHOTOS[index].shape[:2]
    crop = cut([(index + 0.5) / 3, 0.0, 0.3, 0.8, 0.0], (1.0, 1.0))
    top, left = int(0.3 * (height_px - 63)), int(0.8 * (width_px - 63))
    assert np.array_equal(crop, PHOTOS[index][top : top + 64, left : left + 64])


def test_crops_are_held_in_eight_ways():
    upright = cut([0.1, 0.0, 0.5, 0.5, 0.0], (1.0, 1.0))
    held = [cut([0.1, 0.0, 0.5, 0.5, index / 8], (1.0, 1.0)) for index in range(8)]
    expected = [turn(upright, index) for index in range(8)]
    assert {each.tobytes() for each in held} == {np.ascontiguousarray(each).tobytes() for each in expected}


@pytest.mark.parametrize("zoom", [0.5, 1.2, 1.8])
def test_a_cut_of_another_size_is_resized(zoom):
    crop = cut([0.1, 0.0, 0.0, 0.0, 0.0], (zoom, zoom))
    side_px = int(64 * zoom)
    expected = Image.fromarray(PHOTOS[0][:side_px, :side_px]).resize((64, 64), Image.Resampling.BICUBIC)
    inner = slice(3, -3)
    difference = np.abs(crop.astype(int) - np.asarray(expected))[inner, inner]
    assert difference.mean() < 3.0


def test_a_photo_that_is_smaller_than_the_cut_is_taken_to_its_edges():
    crop = cut([0.5, 0.9, 0.0, 0.0, 0.0], (1.0, 4.0))  # 120 px
    expected = Image.fromarray(PHOTOS[1]).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(crop.astype(int) - np.asarray(expected)).mean() < 4.0


def test_places_are_drawn_anew_for_each_group():
    first, again, other = (draw_places(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (50, 5)
    assert 0.0 <= first.min() < 0.1 < 0.9 < first.max() < 1.0
