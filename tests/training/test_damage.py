import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as F

from restoration.tensors import stack_tiles, to_model_range, to_samples
from restoration.unets import soften
from training import damage
from training.damage import (
    INVISIBLE,
    LOOKS,
    VISIBLE,
    DamageConfig,
    add_captions,
    add_damage,
    add_layer,
    age_photos,
    compress_jpeg,
    damage_mask,
    make_pairs,
    sharpen,
    warp_overlays,
)
from training.drawing import FAMILIES
from training.overlays import build_bank

ONE_LAYER = (0.0, 1.0)


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    """(6, 3, 64, 64) in [0, 1], crops of three photographs."""
    crops = [
        photo[at : at + 64, 150:214] for photo in (data.astronaut(), data.coffee(), data.chelsea()) for at in (0, 100)
    ]
    return stack_tiles(crops)


@pytest.fixture(scope="module")
def full_bank(overlay_folder):
    """Every family, those that come from files included."""
    return build_bank("train", overlay_folder=overlay_folder, side_px=96, num_per_family=6)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planes(pairs) -> list[torch.Tensor]:
    return list(vars(pairs).values())


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_equal_seeds_make_equal_pairs_others_do_not(photos, bank):
    first, second, other = (make_pairs(photos, bank, DamageConfig(), seeded(seed)) for seed in (7, 7, 8))
    assert all(a.equal(b) for a, b in zip(planes(first), planes(second), strict=True))
    assert not first.damaged.equal(other.damaged)


def test_pairs_have_the_shapes_and_ranges_that_they_state(photos, bank):
    pairs = make_pairs(photos, bank, DamageConfig(), seeded(0))
    assert pairs.damaged.shape == pairs.clean.shape == photos.shape
    assert pairs.mask.shape == pairs.counts.shape == (6, 1, 64, 64)
    assert {plane.dtype for plane in planes(pairs)} == {torch.float32}
    assert all(plane.min() >= 0.0 and plane.max() <= 1.0 for plane in planes(pairs))
    assert set(pairs.mask.unique().tolist()) | set(pairs.counts.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("ageing", [False, True])
def test_no_layers_of_damage_leave_both_pictures_equal(photos, bank, ageing):
    """Age and the scanner's noise are in both: whoever restores must not remove them."""
    pairs = make_pairs(photos, bank, DamageConfig(num_layers_shares=(1.0,), ageing=ageing), seeded(1))
    assert pairs.damaged.equal(pairs.clean)
    assert pairs.mask.sum() == 0
    assert pairs.counts.min() == 1


def test_without_ageing_the_target_is_the_photo_itself(photos, bank):
    before = photos.clone()
    pairs = make_pairs(photos, bank, DamageConfig(ageing=False), seeded(2))
    assert pairs.clean.equal(before)
    assert photos.equal(before)


def test_what_no_overlay_covers_keeps_its_value(photos, full_bank):
    for family in FAMILIES:
        overlays = full_bank.overlays[family]
        opacity = warp_overlays(overlays, len(photos), (64, 64), LOOKS[family], seeded(3))[:, :1]
        damaged = add_layer(photos, overlays, LOOKS[family], seeded(3))
        uncovered = (opacity == 0).expand_as(photos)
        assert uncovered.any()
        assert torch.equal(damaged[uncovered], photos[uncovered])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_leaves_a_visible_mark(photos, full_bank, family):
    config = DamageConfig(families=(family,), num_layers_shares=ONE_LAYER, ageing=False)
    marked = [make_pairs(photos, full_bank, config, seeded(seed)).mask.mean(dim=(1, 2, 3)) for seed in range(4)]
    share = torch.cat(marked)
    assert (share > 0).float().mean() > 0.2
    assert 0.002 < share.mean() < 0.7


def test_a_family_that_the_bank_does_not_hold_is_left_out(photos):
    bank = build_bank("train", families=("strokes",), side_px=48, num_per_family=3)
    damaged = add_damage(photos, bank, DamageConfig(num_layers_shares=ONE_LAYER), seeded(0))
    assert not damaged.equal(photos)


def test_more_layers_are_more_damage(photos, bank):
    few, many = (
        make_pairs(photos, bank, DamageConfig(num_layers_shares=shares, ageing=False), seeded(5)).mask.mean()
        for shares in (ONE_LAYER, (0.0,) * 6 + (1.0,))
    )
    assert many > few


# --- mask and counts --------------------------------------------------------------------------------------------------


def test_a_visible_change_is_damage_an_invisible_one_is_none_and_between_them_nothing_counts():
    clean = torch.full((1, 3, 1, 4), 0.5)
    damaged = clean.clone()
    damaged[0, 1, 0] += torch.tensor([0.0, INVISIBLE * 0.9, (INVISIBLE + VISIBLE) / 2, VISIBLE * 1.01])
    mask, counts = damage_mask(damaged, clean)
    assert mask.flatten().tolist() == [0.0, 0.0, 0.0, 1.0]
    assert counts.flatten().tolist() == [1.0, 1.0, 0.0, 1.0]


def test_darker_is_damage_as_much_as_lighter():
    clean = torch.full((1, 3, 1, 2), 0.5)
    damaged = clean + torch.tensor([-0.2, 0.2])
    assert damage_mask(damaged, clean)[0].min() == 1.0


def test_grain_hides_a_faint_speck_but_neither_a_strong_one_nor_a_faint_stain():
    clean = (0.5 + 0.1 * torch.randn(1, 1, 64, 64, generator=seeded(0))).repeat(1, 3, 1, 1)
    for change, side_px, is_seen in ((0.05, 2, False), (0.4, 2, True), (0.05, 24, True)):
        damaged = clean.clone()
        damaged[:, :, 20 : 20 + side_px, 20 : 20 + side_px] += change
        mask, counts = damage_mask(damaged, clean)
        at = (0, 0, 20 + side_px // 2, 20 + side_px // 2)
        assert mask[at] == counts[at] == float(is_seen)


def test_the_mean_of_nine_neighbours():
    pictures = torch.rand(2, 3, 7, 5, generator=seeded(0))
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(soften(pictures), F.avg_pool2d(padded, 3, stride=1))


# --- what is to stay --------------------------------------------------------------------------------------------------


def test_sharpening_leaves_plain_areas_and_gives_edges_a_rim():
    edge = torch.full((1, 3, 8, 16), 0.3)
    edge[..., 8:] = 0.6
    sharp = sharpen(edge, torch.Generator().manual_seed(0))
    assert torch.allclose(sharp[..., [0, 15]], edge[..., [0, 15]])
    assert (sharp[..., 7] < 0.3).all()
    assert (sharp[..., 8] > 0.6).all()


def test_captions_borders_and_innocent_objects_are_in_both_pictures_of_a_pair(photos, bank, monkeypatch):
    num_drawn_on = {}

    def count(name: str, draw, before: torch.Tensor, *how) -> torch.Tensor:
        drawn = draw(before, *how)
        num_drawn_on[name] = int((drawn != before).flatten(1).any(dim=1).sum())
        return drawn

    names = ("add_objects", "add_captions", "add_margins")
    for name in names:
        monkeypatch.setattr(damage, name, partial(count, name, getattr(damage, name)))
    pairs = make_pairs(photos.repeat(20, 1, 1, 1), bank, DamageConfig(num_layers_shares=(1.0,)), seeded(3))
    assert all(num_drawn_on.get(name, 0) > 0 for name in names)
    assert pairs.damaged.equal(pairs.clean)
    assert not pairs.mask.any()


def test_captions_write_on_a_few_photos(photos, bank):
    many = photos.repeat(30, 1, 1, 1)
    written = (add_captions(many, bank, seeded(2)) != many).flatten(1).any(dim=1)
    assert 0.0 < written.float().mean() < 0.3


# --- age --------------------------------------------------------------------------------------------------------------


def test_age_changes_some_photos_and_leaves_others(photos):
    aged = age_photos(photos.repeat(6, 1, 1, 1), seeded(0))
    same = (aged == photos.repeat(6, 1, 1, 1)).flatten(1).all(dim=1)
    assert 0 < same.sum() < len(same)
    grey = (aged.std(dim=1).amax(dim=(1, 2)) < 1e-3).float().mean()
    assert 0.02 < grey < 0.6


# --- JPEG -------------------------------------------------------------------------------------------------------------


def by_pillow(samples: np.ndarray, quality: int) -> np.ndarray:
    encoded = io.BytesIO()
    Image.fromarray(samples).save(encoded, "JPEG", quality=quality, subsampling=0)
    return np.asarray(Image.open(encoded).convert("RGB"))


def by_us(samples: np.ndarray, quality: int) -> np.ndarray:
    return to_samples(compress_jpeg(to_model_range(samples)[None], torch.tensor(float(quality)).view(1, 1, 1, 1))[0])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_loss_of_a_grey_photo_is_pillow_s(quality):
    samples = data.camera()[100:196, 100:220, None].repeat(3, axis=2)
    assert distance(by_us(samples, quality), by_pillow(samples, quality)) < 1.2


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_jpeg_loss_of_a_colour_photo_is_nearer_to_pillow_s_than_to_none(quality):
    samples = data.astronaut()[:96, 150:270]
    ours, theirs = by_us(samples, quality), by_pillow(samples, quality)
    assert distance(ours, theirs) < 0.75 * distance(theirs, samples)
    assert distance(ours, samples) == pytest.approx(distance(theirs, samples), rel=0.35)


def test_jpeg_loss_takes_any_size_and_a_quality_for_each_picture():
    pictures = to_model_range(data.astronaut()[:45, 150:203])[None].repeat(2, 1, 1, 1)
    compressed = compress_jpeg(pictures, torch.tensor([20.0, 95.0]).view(2, 1, 1, 1))
    assert compressed.shape == pictures.shape
    loss = (compressed - pictures).abs().mean(dim=(1, 2, 3))
    assert loss[0] > 2 * loss[1] > 0
    assert compress_jpeg(pictures[:0], torch.ones(0, 1, 1, 1)).shape == (0, 3, 45, 53)
