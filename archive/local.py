"""On this machine's device, without a server. The only module of the package that needs torch; imported when asked for.

Photos are decoded, cut, composed and encoded in threads; what the network computes, it computes in threads of its own,
as many as the device works for at a time: two, or one on a CPU whose networks are not compiled.
"""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar, Unpack

import torch
from torch import Tensor

from archive.answers import Restored
from archive.errors import CollectionError, PhotoFailed, RunStopped
from archive.ways import Options
from restoration.device import PrecisionChoice
from restoration.errors import DenoiserMissing, InvalidOption, PhotoError, RestorationError
from restoration.photo import count_pixels, decode_photo
from restoration.restorer import LoadSettings, RestoreOptions, Restorer, expect_denoiser, restore_photo
from restoration.stores import address_of, open_store
from restoration.tile_generator import InFrontOf, TileGenerator

P = ParamSpec("P")
T = TypeVar("T")

COPIES = Path("~/.cache/photo-restoration")
NUM_COPIES = 3


class OnThisDevice:
    """A release on a device of this machine."""

    def __init__(
        self,
        store: str,
        options: Options,
        *,
        release: str | None = None,
        device: str = "auto",
        precision: PrecisionChoice = "auto",
        batch_size: int = 0,
        num_at_once: int = 4,
        max_decoded_pixels: int = 240_000_000,
    ) -> None:
        """store: a folder, or an fsspec URL, of which verified copies are kept in `COPIES`; release: None for the
        newest that works. batch_size: of tiles; 0 for the device's own. max_decoded_pixels: in photos that are in the
        works together, up to 30 bytes each, 45 where channels have 16 bits; a larger photo has them all to itself.

        Raises CollectionError if no release can be loaded, or if it cannot denoise and should.
        """
        restorer = _load(store, release, device=device, precision=precision, batch_size=batch_size)
        try:
            expect_denoiser(restorer.generator, options.denoise)
        except DenoiserMissing as error:
            raise CollectionError(str(error)) from error
        self.loaded = restorer.release
        self.release = self.loaded.version
        self.num_at_once = num_at_once
        self._wants_map = options.damage_maps
        self._options = RestoreOptions(mode=options.mode, sensitivity=options.sensitivity, denoise=options.denoise)
        self._generator = OwnThreadsGenerator(restorer.generator)
        self._room = Room(max_decoded_pixels)

    def restore(self, photo: bytes) -> Restored:
        try:
            with self._room.hold(count_pixels(photo)):
                return self._restore(photo)
        except (PhotoError, InvalidOption) as error:
            raise PhotoFailed(reason_of(error), str(error)) from error
        except torch.AcceleratorError as error:  # from now on whatever this process asks of the device fails
            raise RunStopped(f"the device failed: {str(error).splitlines()[0]}; run it again") from error

    def _restore(self, encoded: bytes) -> Restored:
        photo = decode_photo(encoded)
        restoration = restore_photo(photo, self._generator, self._options)
        return Restored(
            content=restoration.encode(photo, history=restoration.history(self.release)),
            damage_ratio=restoration.damage_ratio,
            model_version=self.release,
            damage_map=restoration.encode_damage_map() if self._wants_map else None,
            suspected_from=restoration.suspected_from,
        )

    def close(self) -> None:
        self._generator.close()


class OwnThreadsGenerator(InFrontOf):
    """A `TileGenerator` for any number of threads: `calls_at_once` of its own have the device, the others wait."""

    def __init__(self, generator: TileGenerator) -> None:
        self.generator = generator
        self._threads = ThreadPoolExecutor(generator.calls_at_once, "device")

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.detect`."""
        return self._call(self.generator.detect, tiles, context)

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.verify`."""
        return self._call(self.generator.verify, tiles, context)

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """See `TileGenerator.fill`."""
        return self._call(self.generator.fill, tiles, mask, conditions)

    def denoise(self, tiles: Tensor) -> Tensor:
        """See `TileGenerator.denoise`."""
        return self._call(self.generator.denoise, tiles)

    def close(self) -> None:
        self._threads.shutdown()

    def _call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return self._threads.submit(function, *arguments, **named).result()


class Room:
    """Pixels that may be held decoded at a time, whichever photos they are of."""

    def __init__(self, num_pixels: int) -> None:
        self._num_pixels = num_pixels
        self._num_free = num_pixels
        self._given_back = threading.Condition()

    @contextmanager
    def hold(self, num_pixels: int) -> Iterator[None]:
        """Waits until there is room; more than there ever is waits for all of it."""
        held = min(num_pixels, self._num_pixels)
        with self._given_back:
            self._given_back.wait_for(lambda: self._num_free >= held)
            self._num_free -= held
        try:
            yield
        finally:
            with self._given_back:
                self._num_free += held
                self._given_back.notify_all()


def reason_of(error: RestorationError) -> str:
    """`photo-undecodable` for PhotoUndecodable: as the service names its problems."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()


def _load(address: str, version: str | None, **settings: Unpack[LoadSettings]) -> Restorer:
    try:
        store = open_store(address_of(address), copies=COPIES, num_copies=NUM_COPIES)
        restorer, _ = Restorer.load_newest(store, version, **settings)
    except RestorationError as error:
        raise CollectionError(str(error)) from error
    return restorer
