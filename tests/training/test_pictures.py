import numpy as np
import torch
from PIL import Image
from skimage import data

from restoration.tensors import to_model_range
from training.pictures import draw_sheet, save_sheet, tensors_to_rows


def test_pictures_stand_in_rows_and_columns_unchanged():
    tiles = [[data.astronaut()[:40, :50], data.coffee()[:40, :50]], [data.chelsea()[:40, :50]]]
    sheet = np.asarray(draw_sheet(tiles, gap_px=4))
    assert sheet.shape == (88, 108, 3)
    assert np.array_equal(sheet[:40, :50], tiles[0][0])
    assert np.array_equal(sheet[:40, 54:104], tiles[0][1])
    assert np.array_equal(sheet[44:84, :50], tiles[1][0])
    assert (sheet[44:, 54:] == 255).all()


def test_labels_have_room_of_their_own():
    tile = data.astronaut()[:40, :50]
    sheet = np.asarray(draw_sheet([[tile]], ["damaged"], ["strokes"]))
    assert (sheet[:16] < 128).any()
    assert (sheet[16:, :90] < 128).any()
    assert np.array_equal(sheet[16:56, 90:140], tile)


def test_batches_become_columns_and_maps_become_grey():
    pictures = torch.stack([to_model_range(data.astronaut()[:8, :8])] * 2)
    rows = tensors_to_rows(pictures, torch.ones(2, 1, 8, 8))
    assert [len(row) for row in rows] == [2, 2]
    assert np.array_equal(rows[1][0], data.astronaut()[:8, :8])
    assert (rows[0][1] == 255).all()


def test_a_sheet_is_written_into_a_new_folder(tmp_path):
    save_sheet(Image.new("RGB", (20, 10)), tmp_path / "a" / "b" / "sheet.png")
    with Image.open(tmp_path / "a" / "b" / "sheet.png") as sheet:
        assert sheet.size == (20, 10)
