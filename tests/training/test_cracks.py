import cv2
import numpy as np

from training.cracks import _craze, _fold, _grow_net, draw_creases


def net(seed: int, side_px: int = 256) -> np.ndarray:
    lines = np.zeros((side_px, side_px), np.uint8)
    _grow_net(lines, lines, np.random.default_rng(seed))
    return lines


def num_edges_met(lines: np.ndarray) -> int:
    return sum(bool(edge.any()) for edge in (lines[:3], lines[-3:], lines[:, :3], lines[:, -3:]))


def test_a_net_comes_in_from_the_edges_and_hangs_together():
    """Most of its cracks branch off others or end at them: there are far fewer pieces than cracks."""
    num_pieces = []
    for seed in range(12):
        lines = net(seed)
        assert np.concatenate(
            [lines[:3].ravel(), lines[-3:].ravel(), lines[:, :3].ravel(), lines[:, -3:].ravel()]
        ).any()
        pieces, _ = cv2.connectedComponents(cv2.dilate(lines, np.ones((7, 7), np.uint8)))
        num_pieces.append(pieces - 1)
    assert np.median(num_pieces) <= 5


def test_a_fold_is_straight_from_edge_to_edge():
    lines = np.zeros((256, 256), np.uint8)
    _fold(lines, np.random.default_rng(3))
    assert num_edges_met(lines) >= 2


def test_craquelure_closes_cells():
    lines = np.zeros((256, 256), np.uint8)
    _craze(lines, np.random.default_rng(0))
    num_cells, _ = cv2.connectedComponents((lines == 0).astype(np.uint8), connectivity=4)
    assert num_cells > 15


def test_a_crack_is_light_inside_and_its_shade_is_dark():
    rng = np.random.default_rng(5)
    tones_of_core, tones_of_shade = [], []
    for _ in range(10):
        opacity, tone = draw_creases(128, rng)
        tones_of_core.append(tone[opacity > 0.7])
        tones_of_shade.append(tone[(opacity > 0.1) & (opacity < 0.3)])
    assert np.concatenate(tones_of_core).mean() > 0.7
    assert np.concatenate(tones_of_shade).mean() < 0.5
