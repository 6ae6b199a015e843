"""How much a CPU has to do, so that a tile that is alone may have several cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UnderWay:
    """What this process has under way, of whichever release and network: cores are all the same to them."""

    def __init__(self) -> None:
        self._num_photos = self._num_tiles = 0
        self._changing = threading.Lock()

    @contextmanager
    def one_more_photo(self) -> Iterator[None]:
        """Counts it meanwhile: its other work, too, needs cores."""
        with self._changing:
            self._num_photos += 1
        try:
            yield
        finally:
            with self._changing:
                self._num_photos -= 1

    @contextmanager
    def more_tiles(self, num_tiles: int) -> Iterator[bool]:
        """Counts them meanwhile. Yields whether they are one, with no other, and for the only photo."""
        with self._changing:
            self._num_tiles += num_tiles
            is_alone = self._num_tiles == 1 and self._num_photos <= 1
        try:
            yield is_alone
        finally:
            with self._changing:
                self._num_tiles -= num_tiles


UNDER_WAY = UnderWay()
