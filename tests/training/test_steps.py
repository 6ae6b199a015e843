"""What a step of each phase sees, and which weights it moves."""

import dataclasses

import pytest
import torch

from training.damage import Pairs, pairs_from
from training.discriminator import PatchGAN
from training.losses import PerceptualLoss
from training.pairs import BatchShape, make_batch
from training.steps import condition_channels, draw_fill_mask, most_masked_quarters, run_step, trained_part
from training.trainer import build_generator_for

from .small_recipes import CPU, DENOISE, DETECT_FILL, PIX2PIX, make_source

FILLER = DETECT_FILL.phases[1]
ALL_WRONG = dataclasses.replace(FILLER, wrong_mask_share=1.0)


def networks_of(recipe):
    torch.manual_seed(0)
    generator = build_generator_for(recipe)
    return generator, PatchGAN(condition_channels(generator), recipe.discriminator)


def pairs_for(recipe, phase, bank) -> Pairs:
    return make_batch(make_source(recipe, bank), 1, BatchShape(phase.num_crops, phase.crop_px), CPU)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(network: torch.nn.Module) -> bool:
    """Whether every weight of the network has a gradient."""
    return all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def untouched(network: torch.nn.Module) -> bool:
    return all(parameter.grad is None for parameter in network.parameters())


def test_the_detector_phase_moves_the_detector_alone(bank):
    generator, judge = networks_of(DETECT_FILL)
    phase = DETECT_FILL.phases[0]
    losses = run_step(generator, judge, pairs_for(DETECT_FILL, phase, bank), phase, DETECT_FILL, seeded())
    losses.generator.backward()
    assert trained_part(generator, phase) is generator.detector
    assert losses.discriminator is None
    assert {"entropy", "tversky", "recall", "precision"} == losses.shown.keys()
    assert moved(generator.detector)
    assert untouched(generator.filler)
    assert untouched(judge)


def test_over_several_scales_the_detector_learns_what_to_tell(bank):
    """What is told of a copy is judged by what the finer one makes of it: gradients go through all scales."""
    recipe = dataclasses.replace(DETECT_FILL, generator=dataclasses.replace(DETECT_FILL.generator, detector_context=2))
    phase = dataclasses.replace(recipe.phases[0], num_scales=2, untold_share=0.0, hard_alarms=0.1)
    generator, judge = networks_of(recipe)
    torch.nn.init.normal_(generator.detector.context_stem.weight, std=0.1)
    losses = run_step(generator, judge, pairs_for(recipe, phase, bank), phase, recipe, seeded())
    losses.generator.backward()
    assert moved(generator.detector)
    assert losses.shown["hard_alarms"] > 0


def test_a_detector_that_is_never_told_does_not_learn_what_to_tell(bank):
    recipe = dataclasses.replace(DETECT_FILL, generator=dataclasses.replace(DETECT_FILL.generator, detector_context=2))
    phase = dataclasses.replace(recipe.phases[0], num_scales=2, untold_share=1.0)
    generator, judge = networks_of(recipe)
    run_step(generator, judge, pairs_for(recipe, phase, bank), phase, recipe, seeded()).generator.backward()
    assert generator.detector.context_head.weight.grad.abs().sum() == 0
    assert moved(generator.detector.head)


def test_the_denoiser_phase_moves_the_denoiser_alone(bank):
    generator, judge = networks_of(DENOISE)
    torch.nn.init.normal_(generator.denoiser.head.weight, std=0.1)  # it starts at 0, and lets no gradient through
    (phase,) = DENOISE.phases
    shape = BatchShape(phase.num_crops, phase.crop_px, noise=phase.noise)
    pairs = make_batch(make_source(DENOISE, bank), 1, shape, CPU)
    losses = run_step(generator, judge, pairs, phase, DENOISE, seeded())
    losses.generator.backward()
    assert trained_part(generator, phase) is generator.denoiser
    assert {"noise_db", "noise_before_db"} == losses.shown.keys()
    assert moved(generator.denoiser)
    assert untouched(generator.detector)
    assert untouched(generator.filler)
    assert untouched(judge)


def test_the_filler_phase_moves_the_filler_alone(bank):
    generator, judge = networks_of(DETECT_FILL)
    phase = DETECT_FILL.phases[1]
    losses = run_step(generator, judge, pairs_for(DETECT_FILL, phase, bank), phase, DETECT_FILL, seeded())
    losses.generator.backward()
    assert trained_part(generator, phase) is generator.filler
    assert losses.discriminator is None
    assert moved(generator.filler)
    assert untouched(generator.detector)
    assert untouched(judge)


def test_the_perceptual_loss_moves_the_filler_alone_and_further(bank, vgg_weights):
    perceptual = PerceptualLoss(vgg_weights, CPU)
    totals = {}
    for weight in (0.0, 0.5):
        generator, judge = networks_of(DETECT_FILL)
        phase = dataclasses.replace(FILLER, perceptual=weight)
        pairs = pairs_for(DETECT_FILL, phase, bank)
        losses = run_step(generator, judge, pairs, phase, DETECT_FILL, seeded(), perceptual)
        losses.generator.backward()
        totals[weight] = losses.generator.item()
        assert moved(generator.filler)
        assert untouched(generator.detector)
        assert untouched(judge)
    assert losses.shown["perceptual"] > 0
    assert totals[0.5] == pytest.approx(totals[0.0] + 0.5 * losses.shown["perceptual"].item())


@pytest.mark.parametrize(("recipe", "index"), [(DETECT_FILL, 2), (PIX2PIX, 0)], ids=["detect-fill", "pix2pix"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_the_two_opponents_move_by_their_own_losses(bank, recipe, index, precision):
    generator, judge = networks_of(recipe)
    phase = recipe.phases[index]
    pairs = pairs_for(recipe, phase, bank)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        losses = run_step(generator, judge, pairs, phase, recipe, seeded())
    losses.generator.backward()
    assert untouched(judge)
    part = trained_part(generator, phase)
    assert all(parameter.grad is not None for parameter in part.parameters())
    before = [parameter.grad.clone() for parameter in part.parameters()]
    losses.discriminator.backward()
    assert all(parameter.grad is not None for parameter in judge.parameters())
    assert all(torch.equal(old, parameter.grad) for old, parameter in zip(before, part.parameters(), strict=True))


@pytest.mark.parametrize("weight", ["adversarial", "feature_matching"])
def test_the_discriminator_s_opinion_reaches_the_filler_in_bfloat16(bank, weight):
    """Autocast keeps cast weights: kept from a forward pass without gradients, they would cut this off silently."""
    generator, judge = networks_of(DETECT_FILL)
    phase = dataclasses.replace(DETECT_FILL.phases[2], adversarial=1e-9, feature_matching=0.0)
    phase = dataclasses.replace(phase, **{weight: 1.0})
    recipe = dataclasses.replace(DETECT_FILL, l1=0.0)
    pairs = pairs_for(recipe, phase, bank)
    with torch.autocast("cpu", torch.bfloat16):
        losses = run_step(generator, judge, pairs, phase, recipe, seeded())
    losses.generator.backward()
    assert generator.filler.head.weight.grad.abs().max() > 1e-7


def test_the_original_s_loss_is_adversarial_plus_10_times_l1(bank):
    generator, judge = networks_of(PIX2PIX)
    (phase,) = PIX2PIX.phases
    losses = run_step(generator, judge, pairs_for(PIX2PIX, phase, bank), phase, PIX2PIX, seeded())
    expected = losses.shown["adversarial"] + 10.0 * losses.shown["l1"]
    torch.testing.assert_close(losses.generator, expected)


def test_the_discriminator_judges_nothing_where_the_picture_is_the_damaged_one(bank):
    """Outside the mask both candidates show the same samples, so that only the fill can give the fake away."""
    generator, _ = networks_of(DETECT_FILL)
    phase = DETECT_FILL.phases[2]
    seen = []

    class Watching(PatchGAN):
        def forward(self, condition, candidate):
            seen.append((condition.detach(), candidate.detach()))
            return super().forward(condition, candidate)

    pairs = pairs_for(DETECT_FILL, phase, bank)
    run_step(generator, Watching(4, DETECT_FILL.discriminator), pairs, phase, DETECT_FILL, seeded())
    mask = seen[0][0][:, 3:]
    assert mask.any()
    outside = (mask == 0).expand(-1, 3, -1, -1)
    for _, candidate in seen:
        assert torch.equal(candidate[outside], pairs.damaged[outside])
    for condition, _ in seen:
        assert (condition[:, :3][(mask > 0).expand(-1, 3, -1, -1)] == 0.5).all()


def test_a_false_alarm_is_to_be_filled_with_what_was_there(bank):
    """A sample that the mask covers wrongly has itself as its target: damaged and clean are equal there."""
    pairs = pairs_for(DETECT_FILL, dataclasses.replace(FILLER, num_crops=8), bank)
    mask, _ = draw_fill_mask(pairs, ALL_WRONG, seeded(3))
    wrong = (mask > 0) & (pairs.mask == 0) & (pairs.counts > 0)
    assert wrong.any()
    assert (pairs.damaged - pairs.clean).abs()[wrong.expand(-1, 3, -1, -1)].max() < 8 / 255


def test_where_samples_count_alike_a_faint_one_weighs_as_much_as_an_opaque_one(bank):
    """The same share of the damage is left in both; of the levels that are left, most are the opaque one's."""
    generator, judge = networks_of(DETECT_FILL)
    clean = torch.full((2, 3, 64, 64), 0.5)
    damaged = clean.clone()
    damaged[0, :, 16:48, 16:48] += 0.04
    damaged[1, :, 16:48, 16:48] += 0.4
    pairs = pairs_from(damaged, clean)
    phase = dataclasses.replace(FILLER, see_through_share=1.0, wrong_mask_share=0.0, adversarial=0.0)
    losses = [
        run_step(generator, judge, part, dataclasses.replace(phase, samples_count_alike=alike), DETECT_FILL, seeded())
        for alike in (False, True)
        for part in (only(pairs, 0), only(pairs, 1))
    ]
    faint, opaque, faint_alike, opaque_alike = (float(each.generator.detach()) for each in losses)
    assert faint_alike / opaque_alike > 2.0 * faint / opaque


def only(pairs: Pairs, index: int) -> Pairs:
    return Pairs(*(plane[index : index + 1] for plane in vars(pairs).values()))


# --- the filler's mask ------------------------------------------------------------------------------------------------


@pytest.fixture
def dotted() -> Pairs:
    """64 samples with one damaged pixel each, at (16, 16)."""
    clean = torch.full((64, 3, 33, 33), 0.5)
    damaged = clean.clone()
    damaged[:, :, 16, 16] = 1.0
    return pairs_from(damaged, clean)


def test_the_filler_s_mask_covers_the_true_one_and_is_up_to_3_px_wider(dotted):
    mask, _ = draw_fill_mask(dotted, FILLER, seeded())
    assert (mask >= dotted.mask).all()
    sizes = sorted(set(mask.sum(dim=(1, 2, 3)).tolist()))
    assert sizes == [1.0, 9.0, 25.0, 49.0]


def test_some_masks_are_wrong_and_half_of_the_samples_are_erased(dotted):
    only_first = dataclasses.replace(dotted, mask=dotted.mask * (torch.arange(64) % 2).view(-1, 1, 1, 1))
    mask, see_through = draw_fill_mask(only_first, FILLER, seeded())
    wrong = mask[::2].amax(dim=(1, 2, 3))
    assert 2 <= wrong.sum() <= 20
    assert see_through.shape == mask.shape
    erased = 1.0 - see_through.amin(dim=(1, 2, 3))
    assert 20 <= erased.sum() <= 44
    assert all(a.unique().numel() == 1 for a in see_through)


def test_a_phase_sets_both_shares(dotted):
    only_first = dataclasses.replace(dotted, mask=dotted.mask * (torch.arange(64) % 2).view(-1, 1, 1, 1))
    all_wrong, _ = draw_fill_mask(only_first, ALL_WRONG, seeded())
    assert all_wrong[::2].amax(dim=(1, 2, 3)).all()
    never = dataclasses.replace(FILLER, wrong_mask_share=0.0, see_through_share=0.0)
    never_wrong, see_through = draw_fill_mask(only_first, never, seeded())
    assert never_wrong[::2].sum() == 0
    assert see_through.sum() == 0


def test_equal_seeds_draw_equal_masks(dotted):
    masks = [draw_fill_mask(dotted, FILLER, seeded(seed))[0] for seed in (1, 1, 2)]
    assert masks[0].equal(masks[1])
    assert not masks[0].equal(masks[2])


def test_the_perceptual_loss_is_of_the_quarter_that_is_masked_most():
    mask = torch.zeros(3, 1, 4, 6)
    mask[0, 0, 3, 0] = 1.0  # bottom left
    mask[1, 0, 0, 1:5] = 1.0
    mask[1, 0, 1, 5] = 1.0  # top right
    plane = torch.arange(24.0).view(1, 1, 4, 6).expand(3, 2, 4, 6)
    quarters, masks = most_masked_quarters(mask, plane, mask)
    assert quarters.shape == (3, 2, 2, 3)
    assert quarters[0, 1].tolist() == [[12.0, 13.0, 14.0], [18.0, 19.0, 20.0]]
    assert quarters[1, 0].tolist() == [[3.0, 4.0, 5.0], [9.0, 10.0, 11.0]]
    assert masks.sum((1, 2, 3)).tolist() == [1.0, 3.0, 0.0]
