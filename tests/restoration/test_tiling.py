import numpy as np
import pytest
from skimage import data

from restoration.tiling import TilePlan, blend_tiles, cut_tiles, plan_tiles, plan_tiles_around, plan_tiles_over


def tops_of(plan: TilePlan) -> tuple[int, ...]:
    return tuple(row.rows.start for row in plan.tile_rows)


def lefts_of(plan: TilePlan) -> tuple[int, ...]:
    return tuple(column.start for column in plan.tile_rows[0].columns)


def blend_whole(plan: TilePlan, tiles, num_channels: int = 3) -> np.ndarray:
    return np.concatenate([band for _, band in blend_tiles(plan, tiles, num_channels=num_channels)])


def random_cases(num_cases: int):
    rng = np.random.default_rng(7)
    for _ in range(num_cases):
        tile_px = int(rng.integers(1, 40))
        yield {
            "height_px": int(rng.integers(1, 150)),
            "width_px": int(rng.integers(1, 150)),
            "tile_px": tile_px,
            "overlap_px": int(rng.integers(0, tile_px)),
            "offset_px": int(rng.integers(0, 50)),
        }


@pytest.mark.parametrize("case", list(random_cases(60)), ids=str)
def test_blending_the_cut_tiles_gives_the_photo_back(case):
    plan = plan_tiles(**case)
    samples = np.random.default_rng(1).random((case["height_px"], case["width_px"], 3), np.float32)
    np.testing.assert_allclose(blend_whole(plan, cut_tiles(samples, plan)), samples, atol=1e-5)


@pytest.mark.parametrize("case", list(random_cases(60)), ids=str)
def test_bands_cover_every_row_exactly_once(case):
    plan = plan_tiles(**case)
    tile = np.zeros((plan.tile_px, plan.tile_px, 1), np.float32)
    next_row = 0
    for (rows, columns), band in blend_tiles(plan, (tile for _ in range(len(plan))), num_channels=1):
        assert (rows, columns) == (slice(next_row, next_row + len(band)), slice(0, plan.width_px))
        assert 1 <= len(band) <= plan.tile_px
        assert band.shape[1:] == (plan.width_px, 1)
        next_row += len(band)
    assert next_row == plan.height_px


def test_a_real_photo_survives_in_uint8_levels():
    photo = data.astronaut()[:400, :300]
    plan = plan_tiles(400, 300)
    restored = blend_whole(plan, (tile.astype(np.float32) for tile in cut_tiles(photo, plan)))
    assert np.array_equal(np.rint(restored).astype(np.uint8), photo)


def test_tiles_reach_the_far_edges_and_overlap_by_at_least_what_was_asked():
    plan = plan_tiles(1000, 700, tile_px=256, overlap_px=64)
    assert tops_of(plan) == (0, 192, 384, 576, 744)
    assert lefts_of(plan) == (0, 192, 384, 444)
    assert len(plan) == 20


def test_the_offset_moves_the_inner_grid_and_keeps_the_edges():
    plan = plan_tiles(1000, 700, tile_px=256, overlap_px=64, offset_px=96)
    assert tops_of(plan) == (0, 96, 288, 480, 672, 744)
    assert lefts_of(plan) == (0, 96, 288, 444)


def test_a_photo_of_exactly_one_tile_is_cut_once():
    assert len(plan_tiles(256, 256)) == 1


@pytest.mark.parametrize(("height_px", "width_px"), [(1, 1), (1, 500), (500, 1), (2, 3), (100, 300)])
def test_photos_smaller_than_a_tile_are_mirrored_and_cropped(height_px, width_px):
    samples = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), np.uint8)
    plan = plan_tiles(height_px, width_px)
    tiles = list(cut_tiles(samples, plan))
    assert {tile.shape for tile in tiles} == {(256, 256, 3)}
    assert np.array_equal(np.rint(blend_whole(plan, tiles)).astype(np.uint8), samples)


def test_the_mirror_does_not_repeat_the_edge():
    samples = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
    (tile,) = cut_tiles(samples, plan_tiles(1, 4, tile_px=6, overlap_px=2))
    assert tile[0, :, 0].tolist() == [0, 1, 2, 3, 2, 1]


def test_tiles_of_a_large_photo_are_views():
    samples = np.zeros((300, 300, 3), np.uint8)
    assert all(np.shares_memory(tile, samples) for tile in cut_tiles(samples, plan_tiles(300, 300)))


def test_one_tile_more_or_less_bright_leaves_no_step():
    """Two neighbours that disagree by 1 are joined by a ramp: no two pixels differ by more than its steepest part."""
    plan = plan_tiles(256, 448, tile_px=256, overlap_px=64)
    dark, bright = np.zeros((256, 256, 1), np.float32), np.ones((256, 256, 1), np.float32)
    row = blend_whole(plan, [dark, bright], num_channels=1)[0, :, 0]
    assert row[0] == 0.0
    assert row[-1] == 1.0
    assert np.abs(np.diff(row)).max() < np.pi / 2 / 64 + 1e-3
    assert (np.diff(row) >= 0).all()


def test_tiles_are_taken_only_when_their_band_is_due():
    plan = plan_tiles(2000, 300)
    taken = []

    def tiles():
        for corner in plan.corners():
            taken.append(corner)
            yield np.zeros((256, 256, 3), np.float32)

    bands = blend_tiles(plan, tiles())
    next(bands)
    assert len(taken) == len(lefts_of(plan))


def test_tiles_start_at_whole_cells_and_the_last_reaches_at_most_a_cell_beyond_the_photo():
    plan = plan_tiles(1000, 700, tile_px=256, overlap_px=128, cell_px=32, offset_px=64)
    assert tops_of(plan) == (0, 64, 192, 320, 448, 576, 704, 768)
    assert lefts_of(plan) == (0, 64, 192, 320, 448)
    assert 0 <= tops_of(plan)[-1] + 256 - 1000 < 32


def test_what_reaches_beyond_the_photo_is_mirrored_and_not_given_back():
    samples = np.random.default_rng(0).random((300, 256, 3), np.float32)
    plan = plan_tiles(300, 256, overlap_px=128, cell_px=32)
    assert tops_of(plan) == (0, 64)
    _, last = cut_tiles(samples, plan)
    assert np.array_equal(last[236:], samples[298:278:-1])
    np.testing.assert_allclose(blend_whole(plan, cut_tiles(samples, plan)), samples, atol=1e-6)


def test_nothing_of_a_tile_s_margin_is_used_but_at_the_photo_s_own_edges():
    plan = plan_tiles(512, 512, tile_px=256, overlap_px=128, margin_px=64)
    marked = []
    for top, left in plan.corners():
        tile = np.ones((256, 256, 1), np.float32)
        for is_edge, margin in (
            (top == 0, np.s_[:64]),
            (top == 256, np.s_[192:]),
            (left == 0, np.s_[:, :64]),
            (left == 256, np.s_[:, 192:]),
        ):
            if not is_edge:
                tile[margin] = 1e9
        marked.append(tile)
    assert (blend_whole(plan, marked, num_channels=1) == 1.0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"height_px": 0},
        {"width_px": -1},
        {"tile_px": 0},
        {"overlap_px": 256},
        {"overlap_px": -1},
        {"margin_px": 33},
        {"margin_px": -1},
        {"cell_px": 0},
        {"cell_px": 24},
        {"cell_px": 32, "offset_px": 40},
    ],
    ids=str,
)
def test_sizes_that_make_no_grid_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected at|at least 1|not multiples"):
        plan_tiles(**({"height_px": 100, "width_px": 100} | wrong))


def test_a_halved_plan_cuts_the_same_places_of_a_copy():
    plan = plan_tiles(301, 517, tile_px=64, overlap_px=32, cell_px=32)
    rows, columns = np.mgrid[:301, :517]
    places = np.stack([rows, columns], axis=2)
    tiles = list(cut_tiles(places, plan))
    halved = list(cut_tiles(places[::2, ::2], plan.halved()))
    assert len(tiles) == len(halved) == len(plan) > 20
    for tile, of_copy in zip(tiles, halved, strict=True):
        inside = (tile[::2, ::2] == tile[0, 0] + np.mgrid[:64:2, :64:2].transpose(1, 2, 0)).all(axis=2)  # not mirrored
        assert inside[0, 0]
        assert np.array_equal(of_copy[inside], tile[::2, ::2][inside])


def test_a_plan_between_two_samples_of_a_copy_cannot_be_halved():
    with pytest.raises(ValueError, match="even"):
        plan_tiles(100, 100, tile_px=33, overlap_px=12).halved()


def test_only_the_tiles_that_count_for_a_mask_are_kept():
    plan = plan_tiles(1000, 1000, tile_px=256, overlap_px=128, margin_px=64)
    mask = np.zeros((1000, 1000), bool)
    mask[500, 330] = True
    assert list(plan.touching(mask).corners()) == [(384, 256)]
    mask[500, 320:450] = True
    assert list(plan.touching(mask).corners()) == [(384, 256), (384, 384)]
    assert list(plan.touching(np.ones((1000, 1000), bool)).corners()) == list(plan.corners())
    assert len(plan.touching(np.zeros((1000, 1000), bool))) == 0


# --- as few tiles as cover a mask -------------------------------------------------------------------------------------


def counting_of(plan: TilePlan) -> np.ndarray:
    """How many tiles count at each pixel, (H, W)."""
    counted = np.zeros((plan.height_px, plan.width_px), int)
    for row in plan.tile_rows:
        for column in row.columns:
            counted[row.rows.counting(), column.counting()] += 1
    return counted


@pytest.mark.parametrize("offset_px", [0, 96])
def test_few_tiles_cover_all_of_a_mask_and_none_of_it_twice(offset_px):
    for mask in random_masks(40):
        plan = plan_tiles_over(mask, offset_px=offset_px)
        counted = counting_of(plan)
        assert counted.max() == 1
        assert counted[mask].all()
        grid = plan_tiles(*mask.shape, tile_px=256, overlap_px=128, margin_px=64, cell_px=32).touching(mask)
        if not offset_px:
            assert len(plan) <= len(grid)


@pytest.mark.parametrize("offset_px", [0, 64])
def test_covering_tiles_are_as_those_of_a_grid_where_they_count(offset_px):
    """They start at cells, lie in the photo, and nothing of their margins is used but at the photo's own edges."""
    for mask in random_masks(40):
        plan = plan_tiles_over(mask, offset_px=offset_px)
        spans = [(row.rows, mask.shape[0]) for row in plan.tile_rows]
        spans += [(column, mask.shape[1]) for row in plan.tile_rows for column in row.columns]
        for span, length_px in spans:
            assert span.start % 32 == 0
            assert span.start == 0 or span.start - 31 <= length_px - 256
            used = span.counting()
            assert span.start == 0 or used.start >= span.start + 64
            assert span.start + 256 >= length_px or used.stop <= span.start + 256 - 64


def test_what_fits_into_one_tile_is_given_one():
    mask = np.zeros((1000, 1000), bool)
    mask[500:590, 300:390] = True
    grid = plan_tiles(1000, 1000, tile_px=256, overlap_px=128, margin_px=64, cell_px=32).touching(mask)
    assert (len(plan_tiles_over(mask)), len(grid)) == (1, 4)
    mask[:] = False
    assert len(plan_tiles_over(mask)) == 0


@pytest.mark.parametrize("wrong", [{"margin_px": 128}, {"margin_px": 48}, {"cell_px": 48}, {"offset_px": 16}], ids=str)
def test_sizes_that_cover_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected at|at least 1|not multiples"):
        plan_tiles_over(np.ones((300, 300), bool), **wrong)


# --- tiles around a mask ----------------------------------------------------------------------------------------------


def random_masks(num_masks: int):
    rng = np.random.default_rng(11)
    for _ in range(num_masks):
        mask = np.zeros(rng.integers(1, 1400, 2), bool)
        for _ in range(rng.integers(1, 12)):
            top, left = (int(rng.integers(0, extent)) for extent in mask.shape)
            height_px, width_px = (int(np.exp(rng.uniform(0, 6.5))) for _ in range(2))
            mask[top : top + height_px, left : left + width_px] = True
        yield mask


def blend_around(mask: np.ndarray, tiles=None, **sizes) -> np.ndarray:
    """What `blend_tiles` writes, 0 elsewhere; of tiles of ones, where none are given."""
    plan = plan_tiles_around(mask, **sizes)
    ones = (np.ones((plan.tile_px, plan.tile_px, 1), np.float32) for _ in range(len(plan)))
    blended = np.zeros((*mask.shape, 1), np.float32)
    for box, band in blend_tiles(plan, ones if tiles is None else tiles, num_channels=1):
        blended[box] = band
    return blended[:, :, 0]


def test_bands_are_as_wide_as_there_are_tiles():
    mask = np.zeros((1000, 1000), bool)
    mask[100:110, 300:320] = mask[900:910, 700:720] = mask[905, 100] = True
    plan = plan_tiles_around(mask)
    ones = (np.ones((plan.tile_px, plan.tile_px, 1), np.float32) for _ in range(len(plan)))
    boxes = [box for box, _ in blend_tiles(plan, ones, num_channels=1)]
    assert boxes == [(slice(100, 110), slice(300, 320)), (slice(900, 910), slice(100, 720))]


def test_what_has_no_weight_is_not_looked_at():
    plan = plan_tiles(512, 512, tile_px=256, overlap_px=128, margin_px=64)
    tile = np.full((256, 256, 1), np.nan, np.float32)
    tile[:192, :192] = 1.0  # of the first tile; of the others the margins at the top and on the left, too
    first, *_ = blend_tiles(plan, (tile for _ in range(len(plan))), num_channels=1)
    _, band = first
    assert (band[:, :192] == 1.0).all()


@pytest.mark.parametrize("mask", list(random_masks(40)), ids=lambda mask: str(mask.shape))
def test_weights_of_tiles_around_a_mask_sum_to_one_under_it(mask):
    np.testing.assert_allclose(blend_around(mask)[mask], 1.0, atol=1e-6)


@pytest.mark.parametrize("mask", list(random_masks(40)), ids=lambda mask: str(mask.shape))
def test_tiles_around_a_mask_lie_inside_the_photo_unless_it_is_smaller(mask):
    for top, left in plan_tiles_around(mask).corners():
        assert 0 <= top <= max(0, mask.shape[0] - 256)
        assert 0 <= left <= max(0, mask.shape[1] - 256)


def test_an_area_that_fits_into_a_tile_lies_in_the_middle_of_one():
    mask = np.zeros((1000, 1000), bool)
    mask[400:500, 310:490] = True
    assert list(plan_tiles_around(mask).corners()) == [(322, 272)]


def test_an_area_at_the_photo_s_edge_needs_no_margin_there():
    mask = np.zeros((1000, 1000), bool)
    mask[:224, 776:] = True
    assert list(plan_tiles_around(mask).corners()) == [(0, 744)]


def test_areas_that_fit_into_one_tile_share_it_and_others_are_not_divided():
    mask = np.zeros((300, 1000), bool)
    mask[100, [100, 250, 340]] = True
    mask[100, 340:420] = True
    plan = plan_tiles_around(mask)
    assert list(plan.corners()) == [(0, 47), (0, 252)]
    near, far = plan.tile_rows[0].columns
    assert near.weights[53] == near.weights[203] == far.weights[88] == 1.0
    assert near.weights.sum() == 151  # from the first to the last that it owns


def test_a_long_area_is_divided_between_tiles_that_are_blended():
    mask = np.zeros((300, 1000), bool)
    mask[100, 50:950] = True
    plan = plan_tiles_around(mask)
    lefts = lefts_of(plan)
    assert lefts[0] == 50 - 32
    assert lefts[-1] + 256 == 950 + 32
    assert max(np.diff(lefts)) <= 128
    tiles = [np.full((256, 256, 1), float(index), np.float32) for index in range(len(plan))]
    row = blend_around(mask, tiles)[100, 50:950]
    assert (np.diff(row) >= -1e-5).all()
    assert np.diff(row).max() < np.pi / 2 / 64 + 1e-3


def test_where_the_tiles_lie_moves_with_the_mask():
    mask = np.zeros((2000, 2000), bool)
    mask[300:700, 500:540], mask[600:620, 400:1100] = True, True
    moved = np.roll(mask, (37, 61), (0, 1))
    assert [(top + 37, left + 61) for top, left in plan_tiles_around(mask).corners()] == list(
        plan_tiles_around(moved).corners()
    )


def test_an_empty_mask_needs_no_tiles():
    assert len(plan_tiles_around(np.zeros((500, 500), bool))) == 0
    assert not blend_around(np.zeros((500, 500), bool)).any()


@pytest.mark.parametrize("wrong", [{"overlap_px": 256}, {"margin_px": 65}, {"margin_px": -1}], ids=str)
def test_sizes_that_make_no_plan_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected at|at least 1|not multiples"):
        plan_tiles_around(np.ones((300, 300), bool), **wrong)


def test_samples_of_another_size_than_the_plan_are_refused():
    with pytest.raises(ValueError, match="do not fit the plan"):
        next(cut_tiles(np.zeros((10, 11, 3), np.uint8), plan_tiles(11, 10)))
