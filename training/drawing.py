"""Overlays by family, and many at once: `python -m training.drawing`, which `draw_in_processes` starts for each worker.

A worker is a program of its own, not a process of `multiprocessing`: that would import what its parent's main module
does, torch above all, and takes longer to begin than to draw. So nothing that is imported here imports torch.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from training.brushes import Planes, to_levels
from training.cracks import draw_creases
from training.marks import draw_captions, draw_dust, draw_fibres, draw_hairlines, draw_scratches, draw_strokes
from training.stains import draw_stains
from training.wear import draw_holes

FAMILIES = ("strokes", "hairlines", "scratches", "dust", "fibres", "creases", "stains", "holes")
INNOCENT = "captions"
"""What lies on a photo and is no damage: writing and printed dates. The bank holds it beside the families."""
IN_BANK = (*FAMILIES, INNOCENT)

Draw = Callable[[int, np.random.Generator], Planes]
DRAW: dict[str, Draw] = {
    "strokes": draw_strokes,
    "hairlines": draw_hairlines,
    "scratches": draw_scratches,
    "dust": draw_dust,
    "fibres": draw_fibres,
    "creases": draw_creases,
    "stains": draw_stains,
    "holes": draw_holes,
    INNOCENT: draw_captions,
}

Order = tuple[str, tuple[int, ...]]
"""An overlay to draw: its family, and the key of its random stream."""


def draw_overlay(family: str, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """(2, S, S) uint8, drawn by the family's procedure."""
    opacity, tone = DRAW[family](side_px, rng)
    return np.stack([to_levels(opacity), to_levels(tone)])


def draw_overlays(orders: Sequence[Order], side_px: int) -> np.ndarray:
    """(N, 2, S, S) uint8."""
    return np.stack([draw_overlay(family, side_px, np.random.default_rng(key)) for family, key in orders])


def draw_in_processes(orders: Sequence[Order], side_px: int, num_workers: int) -> np.ndarray:
    """What `draw_overlays` returns, by so many processes."""
    drawn = np.empty((len(orders), 2, side_px, side_px), np.uint8)

    def draw_share(worker: int) -> None:
        share = orders[worker::num_workers]  # families take unequal time: every worker gets some of each
        asked = json.dumps({"orders": share, "side_px": side_px}).encode()
        command = [sys.executable, "-m", "training.drawing"]
        root = Path(__file__).parent.parent
        answer = subprocess.run(command, input=asked, stdout=subprocess.PIPE, cwd=root, check=True).stdout
        drawn[worker::num_workers] = np.frombuffer(answer, np.uint8).reshape(len(share), *drawn.shape[1:])

    with ThreadPoolExecutor(num_workers) as threads:
        list(threads.map(draw_share, range(num_workers)))
    return drawn


def main() -> None:
    """One worker: orders as JSON on standard input, the overlays' bytes on standard output."""
    cv2.setNumThreads(1)
    asked = json.load(sys.stdin)
    sys.stdout.buffer.write(draw_overlays(asked["orders"], asked["side_px"]).tobytes())


if __name__ == "__main__":
    main()
