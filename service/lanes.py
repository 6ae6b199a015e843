"""Bounds on the photos in the works: so many at a time, so many pixels decoded."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.codecs import Codec


class Room:
    """So many pixels may be decoded at once; who waits is served in order."""

    def __init__(self, num_pixels: int) -> None:
        self._num_free = num_pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, num_pixels: int) -> AsyncIterator[None]:
        """`num_pixels` must not be more than there are in all."""
        if self._waiting or num_pixels > self._num_free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((num_pixels, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():  # else it had come up already
                    self._wake()
                else:
                    self._give_back(num_pixels)
                raise
        else:
            self._num_free -= num_pixels
        try:
            yield
        finally:
            self._give_back(num_pixels)

    def _give_back(self, num_pixels: int) -> None:
        self._num_free += num_pixels
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            num_pixels, turn = self._waiting[0]
            if not turn.cancelled():
                if num_pixels > self._num_free:
                    return
                self._num_free -= num_pixels
                turn.set_result(None)
            self._waiting.popleft()


@dataclass(frozen=True)
class Lane:
    """So many photos in the works at a time, a thread for each, processes, and room for what is decoded."""

    threads: ThreadPoolExecutor
    codec: Codec
    places: asyncio.Semaphore
    room: Room

    @classmethod
    def open(cls, name: str, codec: Codec, num_photos: int, num_pixels: int) -> "Lane":
        return cls(ThreadPoolExecutor(num_photos, name), codec, asyncio.Semaphore(num_photos), Room(num_pixels))
