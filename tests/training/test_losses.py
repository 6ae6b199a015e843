"""Small cases, worked out by hand."""

import math

import pytest
import torch

from restoration.errors import DataError
from training.losses import (
    PerceptualLoss,
    adversarial_loss,
    detection_loss,
    discriminator_loss,
    feature_matching_loss,
    hard_alarms_loss,
    masked_mean,
    misses_loss,
    patches_of,
    share_left,
    tversky_loss,
)

LOG_2 = math.log(2.0)


def plane(*values: float) -> torch.Tensor:
    """(1, 1, 1, W)"""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_a_masked_mean_is_over_the_samples_under_the_mask():
    values = torch.tensor([[1.0, 2.0], [3.0, 5.0]]).view(1, 2, 1, 2)  # two channels, two pixels
    assert masked_mean(values, plane(1, 0)) == 2.0
    assert masked_mean(values, plane(1, 1)) == 2.75


def test_a_mean_over_nothing_is_0():
    assert masked_mean(plane(3, 4), plane(0, 0)) == 0.0


def test_what_is_left_of_the_damage_is_counted_by_sample_and_relative_to_it():
    mask = torch.ones(2, 1, 1, 4)
    damage = torch.cat([plane(*[0.48] * 4), plane(*[0.08] * 4)]).expand(-1, 3, -1, -1)
    half_left = share_left(damage / 2, damage, mask)
    assert half_left == pytest.approx(0.15 * (0.24 / 0.5 + 0.04 / 0.1) / 2)
    assert share_left(damage / 4, damage, mask) == pytest.approx(float(half_left) / 2)


def test_what_was_not_damaged_counts_when_it_is_not_given_back():
    nothing = torch.zeros(1, 3, 1, 4)
    assert share_left(nothing + 0.02, nothing, torch.ones(1, 1, 1, 4)) == pytest.approx(0.15)


def test_a_sample_without_a_mask_leaves_nothing():
    mask = torch.stack([torch.ones(1, 1, 4), torch.zeros(1, 1, 4)])
    damage = torch.full((2, 3, 1, 4), 0.1)
    assert share_left(damage, damage, mask) == share_left(damage[:1], damage[:1], mask[:1])
    assert share_left(damage, damage, torch.zeros_like(mask)) == 0.0


def test_a_perfect_map_has_no_tversky_loss():
    mask = plane(1, 1, 0, 0)
    assert tversky_loss(mask, mask, torch.ones(4)) == 0.0


def test_a_miss_costs_more_than_a_false_alarm():
    mask, everywhere = plane(1, 1, 0, 0), plane(1, 1, 1, 1)
    one_missed = tversky_loss(plane(1, 0, 0, 0), mask, everywhere)
    one_alarm = tversky_loss(plane(1, 1, 1, 0), mask, everywhere)
    assert one_missed == pytest.approx(1 - 2 / 2.7)
    assert one_alarm == pytest.approx(1 - 3 / 3.3)


def test_where_the_answer_does_not_count_it_costs_nothing():
    mask, counts = plane(1, 0, 0), plane(1, 1, 0)
    assert tversky_loss(plane(1, 0, 1), mask, counts) == 0.0
    sure = detection_loss(plane(30, -30, 30), mask, counts)
    assert sure["entropy"] < 1e-6
    assert sure["tversky"] < 1e-6


def test_over_the_batch_a_hole_outweighs_a_hairline_sample_by_sample_it_does_not():
    mask = torch.zeros(2, 1, 10, 10)
    mask[0] = 1.0
    mask[1, 0, 0] = 1.0
    found_hole = torch.stack([mask[0], torch.zeros_like(mask[1])])
    counts = torch.ones_like(mask)
    assert tversky_loss(found_hole, mask, counts) == pytest.approx(1 - 101 / 108)
    alike = tversky_loss(found_hole, mask, counts, samples_count_alike=True)
    assert alike == pytest.approx((0.0 + (1 - 20 / 27)) / 2)


def test_an_alarm_on_a_clean_sample_costs_something():
    clean, counts = torch.zeros(1, 1, 10, 10), torch.ones(1, 1, 10, 10)
    alarm = clean + 1.0
    assert tversky_loss(clean, clean, counts, samples_count_alike=True) == 0.0
    assert tversky_loss(alarm, clean, counts, samples_count_alike=True) == pytest.approx(1 - 20 / 50)


def test_the_worst_false_alarm_of_a_sample_costs_though_no_other_pixel_does():
    logits, mask = torch.full((2, 1, 16, 16), -20.0), torch.zeros(2, 1, 16, 16)
    logits[0, 0, 3, 3] = 5.0
    loss = hard_alarms_loss(logits, mask, torch.ones_like(mask))
    assert float(loss) == pytest.approx(math.log1p(math.exp(5.0)) / 2, rel=1e-4)


def test_an_alarm_on_damage_or_beside_it_or_where_nobody_can_tell_is_no_false_one():
    logits, mask, counts = torch.full((1, 1, 32, 32), -20.0), torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)
    mask[..., 8, 8] = 1.0
    counts[..., 24, 24] = 0.0
    for row, column in ((8, 8), (8, 12), (24, 24)):
        logits[..., row, column] = 9.0
    assert float(hard_alarms_loss(logits, mask, counts)) < 1e-6
    logits[..., 8, 13] = 9.0
    assert float(hard_alarms_loss(logits, mask, counts)) > 2.0


def test_a_sample_that_is_damaged_all_over_has_no_false_alarm():
    everywhere = torch.ones(1, 1, 16, 16)
    assert float(hard_alarms_loss(9.0 * everywhere, everywhere, everywhere)) == 0.0


def test_a_missed_hairline_costs_as_much_as_a_missed_hole_and_a_clean_sample_nothing():
    logits, mask = torch.full((3, 1, 32, 32), -6.0), torch.zeros(3, 1, 32, 32)
    mask[0, 0, 4] = 1.0
    mask[1, 0, 8:] = 1.0
    logits.requires_grad_()
    loss = misses_loss(logits, mask, torch.ones_like(mask))
    assert float(loss.detach()) == pytest.approx(math.log1p(math.exp(6.0)), rel=1e-4)
    loss.backward()
    assert [round(float(each), 3) for each in logits.grad.sum((1, 2, 3))] == [-0.499, -0.499, 0.0]


def test_few_damaged_pixels_count_as_if_they_were_more():
    logits, mask = torch.full((1, 1, 32, 32), -6.0), torch.zeros(1, 1, 32, 32)
    mask[..., 0, :2] = 1.0
    everywhere = torch.ones_like(mask)
    assert float(misses_loss(logits, mask, everywhere)) == pytest.approx(0.1 * math.log1p(math.exp(6.0)), rel=1e-4)
    assert float(misses_loss(logits, mask, everywhere - mask)) == 0.0


def test_an_undecided_detector_pays_the_logarithm_of_2():
    losses = detection_loss(plane(0, 0), plane(1, 0), plane(1, 1))
    assert losses["entropy"] == pytest.approx(LOG_2)
    assert losses["tversky"] == pytest.approx(1 - 1.5 / (0.5 + 0.35 + 0.15 + 1))


def test_the_discriminator_s_loss_is_the_mean_of_real_and_fake():
    assert discriminator_loss(plane(0, 0), plane(0, 0)) == pytest.approx(LOG_2)
    assert discriminator_loss(plane(30), plane(-30)) == pytest.approx(0.0, abs=1e-6)
    assert discriminator_loss(plane(30), plane(0)) == pytest.approx(LOG_2 / 2)


def test_a_patch_without_a_fake_sample_is_not_called_fake():
    real, fake = plane(30, 30), plane(-30, 30)
    assert discriminator_loss(real, fake, plane(1, 0)) == pytest.approx(0.0, abs=1e-6)
    assert discriminator_loss(real, fake, plane(1, 1)) == pytest.approx(30 / 4)
    assert adversarial_loss(fake, plane(0, 1)) == pytest.approx(0.0, abs=1e-6)


def test_a_generator_that_is_believed_has_no_adversarial_loss():
    assert adversarial_loss(plane(30, 30)) == pytest.approx(0.0, abs=1e-6)
    assert adversarial_loss(plane(0)) == pytest.approx(LOG_2)


def test_feature_matching_is_the_mean_distance_over_layers_and_moves_the_fake_alone():
    real = [plane(1, 1).requires_grad_(), plane(0).requires_grad_()]
    fake = [plane(0, 1).requires_grad_(), plane(3).requires_grad_()]
    loss = feature_matching_loss(real, fake)
    assert loss == (0.5 + 3.0) / 2
    loss.backward()
    assert all(features.grad is None for features in real)
    assert all(features.grad is not None for features in fake)


def test_a_patch_is_fake_where_it_holds_any_sample_of_the_mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 3, 60] = 1.0
    patches = patches_of(mask, torch.empty(1, 1, 4, 4))
    assert patches.sum() == 1.0
    assert patches[0, 0, 0, 3] == 1.0


# --- perceptual -------------------------------------------------------------------------------------------------------


def test_what_looks_alike_has_no_perceptual_loss_and_what_differs_more_has_more(vgg_weights):
    perceptual = PerceptualLoss(vgg_weights, torch.device("cpu"))
    clean = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:24, 8:24] = 1.0
    painted = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)).requires_grad_()
    a_little, a_lot = (perceptual(torch.lerp(clean, painted, mask * share), clean, mask) for share in (0.1, 1.0))
    assert perceptual(clean, clean, mask) == 0.0
    assert 0.0 < a_little < a_lot
    a_lot.backward()
    assert (painted.grad.abs().sum(1, keepdim=True) > 0).eq(mask > 0).all()


def test_the_weights_that_a_perceptual_loss_lacks_are_named(tmp_path):
    with pytest.raises(
        DataError, match=r"holds no vgg16_features_to_relu3_3_fp16\.safetensors; .* --perceptual-weights$"
    ):
        PerceptualLoss(tmp_path, torch.device("cpu"))
