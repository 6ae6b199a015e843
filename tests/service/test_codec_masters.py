"""Photos as archives have them, restored through codec workers: byte for byte what this process alone makes of them."""

from collections.abc import Iterator

import numpy as np
import pytest

from restoration.photo import History, Photo, decode_photo, encode_photo
from service.codecs import Codec
from service.metrics import Metrics
from service.settings import Settings

from ..restoration.odd_photos import ODD_PHOTOS, OddPhoto

HISTORY = History("0001", 0.25)


@pytest.fixture(scope="module")
def codec() -> Iterator[Codec]:
    codec = Codec.open(Settings(codec_processes=1), Metrics())
    yield codec
    codec.pool.close()


def mended(photo: Photo) -> list[np.ndarray]:
    """The samples of every page, with a corner painted grey."""
    pages = []
    for page in photo.pages:
        mask = np.zeros(page.samples.shape[:2], np.bool_)
        mask[4:20, 4:20] = True
        pages.append(page.with_colour(np.full((*mask.shape, 3), 128, np.uint8), mask))
    return pages


@pytest.mark.parametrize("odd", ODD_PHOTOS, ids=lambda odd: odd.name)
def test_a_photo_goes_through_workers_as_through_this_process(codec: Codec, odd: OddPhoto) -> None:
    encoded = odd.make()
    here = decode_photo(encoded)
    there = codec.decode(encoded, codec.count_pixels(encoded))
    assert (there.colours, there.traits, there.metadata) == (here.colours, here.traits, here.metadata)
    first, *further = mended(here)
    expected = encode_photo(here, first, further_pages=further, history=HISTORY)
    first, *further = mended(there)
    assert codec.encode(there, first, further_pages=further, history=HISTORY) == expected


@pytest.mark.parametrize("odd", ODD_PHOTOS, ids=lambda odd: odd.name)
def test_a_photo_of_which_nothing_changed_is_its_own_file_again(codec: Codec, odd: OddPhoto) -> None:
    encoded = odd.make()
    photo = codec.decode(encoded, codec.count_pixels(encoded))
    further = [page.samples for page in photo.further_pages]
    assert codec.encode(photo, photo.samples, further_pages=further, history=HISTORY) == encoded


def test_a_photo_of_which_only_its_last_page_changed_is_written(codec: Codec) -> None:
    (encoded,) = (odd.make() for odd in ODD_PHOTOS if "three pages" in odd.name)
    photo = codec.decode(encoded, codec.count_pixels(encoded))
    last = mended(photo)[-1]
    written = codec.encode(photo, photo.samples, further_pages=[photo.further_pages[0].samples, last])
    assert np.array_equal(decode_photo(written).pages[-1].samples, last)
