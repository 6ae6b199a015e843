"""`python -m benchmarks.litserve_server`: LitServe with our generator, as well as can be with what LitServe has.

`POST /restore` takes the multipart field `image`, as our service does, and answers with the same photo. Photos that
LitServe puts into one batch are restored in step: their tiles share the network's batches.
"""

import argparse
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fastapi import Request, Response
from litserve import LitAPI, LitServer
from torch import Tensor

from restoration.photo import MEDIA_TYPES, Photo, decode_photo
from restoration.restorer import Restoration, Restorer, restore_photo
from restoration.stores import FolderStore
from restoration.tile_generator import InFrontOf, TileGenerator

STORE = Path(__file__).resolve().parent.parent / "model_store"
BATCH_TIMEOUT_SECONDS = 0.02


@dataclass(frozen=True, eq=False)
class Call:
    """Tiles of one photo, and where their answers go."""

    stage: str
    inputs: tuple[Tensor, ...]
    answer: Future[Tensor] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[str, int]:
        """Calls of one kind can be computed together."""
        return self.stage, len(self.inputs)


class InStep(InFrontOf):
    """A generator for several photos at once: when each of them waits for tiles, those of one kind are computed."""

    calls_at_once = 1  # of each photo, or nobody could tell when all of them wait

    def __init__(self, generator: TileGenerator, num_photos: int) -> None:
        self.generator = generator
        self._num_photos = num_photos
        self._calls: list[Call] = []
        self._changed = threading.Condition()

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return self._ask("detect", (tiles,) if context is None else (tiles, context))

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return self._ask("verify", (tiles,) if context is None else (tiles, context))

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self._ask("fill", (tiles, mask) if conditions is None else (tiles, mask, conditions))

    def denoise(self, tiles: Tensor) -> Tensor:
        return self._ask("denoise", (tiles,))

    def leave(self, _: Future[Restoration]) -> None:
        """One of the photos is done."""
        with self._changed:
            self._num_photos -= 1
            self._changed.notify()

    def compute(self) -> None:
        """Until all photos are done."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._calls) == self._num_photos)
                calls, self._calls = self._calls, []
            if not calls:
                return
            for kind in sorted({call.kind for call in calls}):
                compute_together(self.generator, [call for call in calls if call.kind == kind])

    def _ask(self, stage: str, inputs: tuple[Tensor, ...]) -> Tensor:
        call = Call(stage, inputs)
        with self._changed:
            self._calls.append(call)
            self._changed.notify()
        return call.answer.result()


def compute_together(generator: TileGenerator, calls: Sequence[Call]) -> None:
    """calls: of one kind."""
    inputs = [torch.cat(tiles) for tiles in zip(*(call.inputs for call in calls), strict=True)]
    answers = getattr(generator, calls[0].stage)(*inputs)
    sizes = [len(call.inputs[0]) for call in calls]
    for call, answer in zip(calls, torch.split(answers, sizes), strict=True):
        call.answer.set_result(answer)


class PhotoAPI(LitAPI):  # type: ignore[misc]
    """What LitServe asks for but for the computing: how to load, decode, encode."""

    restorer: Restorer

    def setup(self, device: str) -> None:
        restorer = Restorer.load_newest(FolderStore(STORE), device=device)[0]
        assert restorer is not None
        self.restorer = restorer

    def decode_request(self, request: Request) -> Photo:
        """LitServe passes a form's fields, whatever it is told to pass."""
        return decode_photo(request["image"].file.read())

    def encode_response(self, output: tuple[Photo, Restoration]) -> Response:
        photo, restoration = output
        history = restoration.history(self.restorer.release.version)
        return Response(restoration.encode(photo, history=history), media_type=MEDIA_TYPES[photo.format])


class BatchAPI(PhotoAPI):
    """Several photos at a time."""

    def predict(self, photos: list[Photo]) -> list[tuple[Photo, Restoration]]:
        in_step = InStep(self.restorer.generator, len(photos))
        with ThreadPoolExecutor(len(photos)) as threads:
            restoring = [threads.submit(restore_photo, photo, in_step) for photo in photos]
            for each in restoring:
                each.add_done_callback(in_step.leave)
            in_step.compute()
        return [(photo, each.result()) for photo, each in zip(photos, restoring, strict=True)]


class OneByOneAPI(PhotoAPI):
    """LitServe makes no batches of one."""

    def predict(self, photo: Photo) -> tuple[Photo, Restoration]:
        return photo, self.restorer.restore(photo)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--workers", type=int, default=1, help="processes that decode, compute and encode")
    arguments.add_argument("--batch", type=int, default=8, help="photos restored together")
    asked = arguments.parse_args()
    if asked.batch == 1:
        api: PhotoAPI = OneByOneAPI(api_path="/restore")
    else:
        api = BatchAPI(max_batch_size=asked.batch, batch_timeout=BATCH_TIMEOUT_SECONDS, api_path="/restore")
    server = LitServer(api, accelerator="auto", workers_per_device=asked.workers, timeout=False)
    server.run(host="127.0.0.1", port=asked.port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
