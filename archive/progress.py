"""How a run gets on: a bar where somebody looks, a line a minute where it goes to a file."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from archive.run import Run, Tally, photos_of
from archive.trees import Selection, Tree

LOOK_SECONDS = 0.5
LINE_SECONDS = 60.0
RATE_OVER_SECONDS = 60.0


class Rates:
    """Photos and megapixels a second, over the last minute."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, int, int]] = []

    def look(self, tally: Tally, now_seconds: float) -> tuple[float, float]:
        self._looks.append((now_seconds, tally.num_restored, tally.num_pixels))
        while len(self._looks) > 2 and now_seconds - self._looks[0][0] > RATE_OVER_SECONDS:
            del self._looks[0]
        seconds = max(now_seconds - self._looks[0][0], 1e-9)
        (_, photos, pixels), (_, photos_now, pixels_now) = self._looks[0], self._looks[-1]
        return (photos_now - photos) / seconds, (pixels_now - pixels) / 1e6 / seconds


class Count:
    """How many photos the source has, listed once more in a thread, so that the run need not wait to know."""

    def __init__(self, source: Tree, selection: Selection, limit: int | None) -> None:
        self.total: int | None = None
        self._is_wanted = True
        self._limit = limit
        self._photos = photos_of(source, selection, lambda _folder, _error: None)
        threading.Thread(target=self._count, name="count", daemon=True).start()

    def give_up(self) -> None:
        self._is_wanted = False

    def _count(self) -> None:
        num_photos = 0
        for _ in self._photos:
            if not self._is_wanted:
                return
            num_photos += 1
        self.total = num_photos

    def left_to_do(self, tally: Tally) -> int | None:
        """Restored, failed and still to be; None while it is being counted."""
        if self.total is None:
            return None
        total = max(self.total - tally.num_skipped, tally.num_restored + tally.num_failed)
        return total if self._limit is None else min(total, self._limit)


@contextmanager
def shown_progress(run: Run, count: Count, console: Console) -> Iterator[None]:
    """While the run goes on in this thread, another shows how it gets on."""
    is_over = threading.Event()
    show = _show_bar if console.is_terminal else _print_lines
    shower = threading.Thread(target=show, args=(run.tally, count, console, is_over), name="progress")
    shower.start()
    try:
        yield
    finally:
        count.give_up()
        is_over.set()
        shower.join()


def _show_bar(tally: Tally, count: Count, console: Console, is_over: threading.Event) -> None:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[notes]}"),
    )
    rates = Rates()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None, rates="", notes="")
        while True:
            over = is_over.wait(LOOK_SECONDS)
            progress.update(
                task,
                completed=tally.num_restored + tally.num_failed,
                total=count.left_to_do(tally),
                rates=_in_words(*rates.look(tally, time.monotonic())),
                notes=f"{tally.num_failed:,} failed, {tally.num_skipped:,} done before",
            )
            if over:
                return


def _print_lines(tally: Tally, count: Count, console: Console, is_over: threading.Event) -> None:
    rates = Rates()
    rates.look(tally, time.monotonic())
    while not is_over.wait(LINE_SECONDS):
        photos_per_second, megapixels_per_second = rates.look(tally, time.monotonic())
        total = count.left_to_do(tally)
        done = tally.num_restored + tally.num_failed
        is_known = total is not None and photos_per_second > 0
        remaining = f"{(total - done) / photos_per_second / 3600:.1f}" if total and is_known else "?"
        console.print(
            f"{done:,} of {'?' if total is None else f'{total:,}'} photos, "
            f"{_in_words(photos_per_second, megapixels_per_second)}, {remaining} hours left, "
            f"{tally.num_failed:,} failed, {tally.num_skipped:,} done before",
            highlight=False,
            soft_wrap=True,
        )


def _in_words(photos_per_second: float, megapixels_per_second: float) -> str:
    return f"{photos_per_second:.1f} photos/s, {megapixels_per_second:.1f} MP/s"
