"""Recipes: what is trained, in which order, with which figures. The original's, and ours."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Literal

from restoration.generator import DetectFillConfig
from restoration.pix2pix import Pix2PixConfig
from training.damage import DamageConfig
from training.discriminator import PatchGANConfig
from training.noise import NoiseConfig
from training.photos import CropConfig

PhaseName = Literal["detector", "verifier", "filler", "denoiser", "pix2pix"]
RecipeName = Literal["detect-fill", "fine-tune", "fine-tune-gpu", "denoise", "pix2pix"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one network to improve."""

    trains: PhaseName
    num_steps: int
    num_crops: int
    """Pairs a step."""
    crop_px: int
    learning_rate: float
    adversarial: float = 0.0
    """Weight of the adversarial loss; 0 leaves the discriminator out."""
    feature_matching: float = 0.0
    perceptual: float = 0.0
    """Weight of the perceptual loss; 0 leaves VGG16 out."""
    num_uses: int = 1
    """How often each pair is trained on, in other orientations: it saves time where pairs are made ahead on a GPU."""
    warm_up_steps: int = 0
    decays: bool = False
    """Cosine decay of the learning rate to 0 over the phase."""
    damage: DamageConfig | None = None
    """This phase's damage, where it differs from the recipe's."""
    noise: NoiseConfig | None = None
    """What the denoiser is trained to take away, in place of damage."""
    see_through_share: float = 0.5
    """Share of samples in which the filler may look at the damage that it fills; in the others it is erased."""
    wrong_mask_share: float = 0.3
    """Share of samples whose mask covers undamaged parts too, which the filler must then give back."""
    num_scales: int = 1
    """Copies of the crops, each of half the side of the one before, through which the detector goes, coarse to fine."""
    untold_share: float = 0.15
    """Share of samples in which a copy is not told what the coarser one saw."""
    hard_alarms: float = 0.0
    """Weight of the loss on the worst false alarms, beside a cross entropy of weight 1."""
    misses: float = 0.0
    """Weight of the loss on damaged pixels alone, of which each sample's count as much, however few there are."""
    samples_count_alike: bool = False
    """Losses are taken for each sample, not over the batch: a hairline, or a photo that must stay clean, then weighs as
    much as a large hole, and to the filler a faint stain as much as an opaque stroke."""


PHASE_DEFAULTS = {each.name: each.default for each in fields(Phase) if each.default is not MISSING}
"""What a phase of an earlier version was that did not know one of these."""


@dataclass(frozen=True)
class Recipe:
    name: str
    generator: DetectFillConfig | Pix2PixConfig
    phases: tuple[Phase, ...]
    discriminator: PatchGANConfig = field(default_factory=PatchGANConfig)
    l1: float = 10.0
    """Weight of the L1 loss, beside an adversarial loss of weight 1 in the original."""
    betas: tuple[float, float] = (0.5, 0.999)
    ema_decay: float = 0.0
    """Share that the moving average of the weights keeps a step; 0 publishes the weights themselves."""
    max_gradient_norm: float | None = None
    damage: DamageConfig = field(default_factory=DamageConfig)
    crops: CropConfig = field(default_factory=CropConfig)
    held_out_share: float = 0.05
    short_side_px: int = 320
    """Photographs with a longer short side are made smaller when they are read."""
    seed: int = 0

    @property
    def num_steps(self) -> int:
        return sum(phase.num_steps for phase in self.phases)


def pix2pix_recipe(num_photos: int) -> Recipe:
    """The original notebook's: Adam 0.0002, betas (0.5, 0.999), BCE + 10 x L1, batches of 8, 50 epochs, 256 px."""
    steps_per_epoch = max(1, num_photos // 8)
    return Recipe(
        name="pix2pix",
        generator=Pix2PixConfig(),
        phases=(Phase("pix2pix", 50 * steps_per_epoch, num_crops=8, crop_px=256, learning_rate=2e-4, adversarial=1.0),),
        crops=CropConfig(is_whole=True),
    )


def detect_fill_recipe(num_photos: int) -> Recipe:
    """Ours: detector and filler, small crops first, 256 px last; the discriminator joins when the filler can fill.

    Lengths are fixed in steps, not epochs: damage is drawn anew for every crop, so no crop is ever seen twice. The late
    phases of the detector see more and more clean photos and fewer soft stains, and count every sample alike: before
    them, bright collars and half-lit faces were taken for holes.
    """
    small = Phase("detector", 13_000, num_crops=16, crop_px=128, learning_rate=1e-3, warm_up_steps=300, decays=True)
    large = Phase("detector", 3_000, num_crops=8, crop_px=256, learning_rate=2e-4, warm_up_steps=100, decays=True)
    strict = replace(
        large,
        num_steps=8_500,
        learning_rate=5e-4,
        damage=DamageConfig(family_weights=LATE_WEIGHTS, num_layers_shares=(0.3, 0.4, 0.2, 0.1)),
        samples_count_alike=True,
    )
    sober = replace(
        strict,
        num_steps=3_000,
        learning_rate=2e-4,
        damage=DamageConfig(family_weights=LATE_WEIGHTS, num_layers_shares=(0.45, 0.35, 0.15, 0.05)),
    )
    # Long, in large steps and batches: what the detector still lacked was time
    decisive = replace(
        strict,
        num_steps=6_500,
        num_crops=16,
        learning_rate=8e-4,
        warm_up_steps=200,
        num_scales=3,
        hard_alarms=0.05,
    )
    calm = replace(decisive, num_steps=1_600, learning_rate=1.6e-4, warm_up_steps=0, damage=sober.damage)
    fill = Phase("filler", 4_200, num_crops=16, crop_px=128, learning_rate=6e-4, warm_up_steps=300, decays=True)
    judged = Phase(
        "filler",
        800,
        num_crops=8,
        crop_px=256,
        learning_rate=2e-4,
        adversarial=0.1,
        feature_matching=2.0,
        warm_up_steps=100,
        decays=True,
    )
    # Longer holes, more that shows through, more false alarms to give back as they were; then judged again
    fill_large = replace(
        judged,
        num_steps=1_400,
        learning_rate=5e-4,
        adversarial=0.0,
        feature_matching=0.0,
        see_through_share=0.75,
        wrong_mask_share=0.5,
    )
    judged_large = replace(judged, num_steps=700, see_through_share=0.75, wrong_mask_share=0.5)
    return Recipe(
        name="detect-fill",
        generator=DETECT_FILL,
        phases=(small, large, fill, judged, strict, fill_large, judged_large, sober, decisive, calm, *DENOISING),
        discriminator=PatchGANConfig(channels=(32, 64, 128, 256), norm="spectral"),
        betas=(0.9, 0.99),
        ema_decay=0.999,
        max_gradient_norm=1.0,
        short_side_px=512,
    )


def fine_tune_recipe(num_photos: int) -> Recipe:
    """For `--start-from` a release: large crops from the start, as many clean photos as the late phases have.

    The detector learns what to tell of smaller copies; its rate stays up for as long as there is time, and then falls:
    most of what is gained shows in the fall. The filler, which the release's discriminator has judged, is fine-tuned
    without one, and learns what half-covered samples still tell. A denoiser that the release has stays as it is.
    """
    steady = Phase(
        "detector",
        3_500,
        num_crops=8,
        crop_px=256,
        learning_rate=6e-4,
        warm_up_steps=300,
        damage=LATE_DAMAGE,
        num_scales=3,
        hard_alarms=0.05,
        samples_count_alike=True,
    )
    falling = replace(steady, num_steps=5_500, warm_up_steps=0, decays=True)
    fill = Phase(
        "filler",
        4_000,
        num_crops=8,
        crop_px=256,
        learning_rate=6e-4,
        warm_up_steps=100,
        decays=True,
        damage=DamageConfig(family_weights={**LATE_WEIGHTS, "stains": 2.5}, num_layers_shares=(0.1, 0.5, 0.3, 0.1)),
        see_through_share=0.85,
        wrong_mask_share=0.5,
        samples_count_alike=True,
    )
    return replace(
        detect_fill_recipe(num_photos),
        name="fine-tune",
        generator=replace(DETECT_FILL, denoiser_channels=()),
        phases=(steady, falling, fill),
    )


def fine_tune_gpu_recipe(num_photos: int) -> Recipe:
    """For `--start-from` a release, on a GPU: large batches, and a verifier, which starts as the release's detector.

    The filler's distance from the truth is perceptual, too (`--perceptual-weights`); at the end it is judged.
    """
    look = Phase(
        "detector",
        800,
        num_crops=256,
        crop_px=256,
        learning_rate=8e-4,
        num_uses=4,
        warm_up_steps=150,
        decays=True,
        damage=LATE_DAMAGE,
        num_scales=3,
        hard_alarms=0.05,
        samples_count_alike=True,
    )
    verify = replace(
        look,
        trains="verifier",
        num_steps=5_500,
        num_crops=192,
        learning_rate=1e-3,
        num_uses=8,
        warm_up_steps=200,
        hard_alarms=0.1,
        misses=0.1,
    )
    fill = Phase(
        "filler",
        2_400,
        num_crops=64,
        crop_px=256,
        learning_rate=8e-4,
        perceptual=1.0,
        num_uses=4,
        warm_up_steps=150,
        decays=True,
        damage=DamageConfig(family_weights={**LATE_WEIGHTS, "stains": 2.5}, num_layers_shares=(0.1, 0.45, 0.3, 0.15)),
        see_through_share=0.6,
        wrong_mask_share=0.4,
        samples_count_alike=True,
    )
    judged = replace(fill, num_steps=450, learning_rate=2e-4, adversarial=0.1, feature_matching=2.0)
    denoise = replace(DENOISE, num_steps=2_000, num_crops=256, crop_px=128, learning_rate=2e-3, decays=True)
    return replace(
        detect_fill_recipe(num_photos),
        name="fine-tune-gpu",
        generator=replace(DETECT_FILL, filler_prefills=True, verifier_channels=(64, 96, 192), verifier_turns=2),
        phases=(verify, fill, judged, look, denoise),
    )


def denoise_recipe(num_photos: int) -> Recipe:
    """For `--start-from` a release: its denoiser alone is trained, detector and filler stay what they are.

    Crops are made smaller more often than larger: noise that photos come with would be learnt as a part of them.
    """
    return replace(detect_fill_recipe(num_photos), name="denoise", phases=DENOISING, crops=CropConfig(zoom=(0.7, 2.5)))


DETECT_FILL = DetectFillConfig(
    detector_shift=3.0,
    filler_keeps=True,
    detector_context=4,
    denoiser_channels=(48, 64, 96),
)
DENOISE = Phase("denoiser", 5_000, num_crops=8, crop_px=96, learning_rate=2e-3, warm_up_steps=50, noise=NoiseConfig())
DENOISE_FALLING = replace(DENOISE, num_steps=12_500, decays=True)
DENOISING = (DENOISE, DENOISE_FALLING)

LATE_WEIGHTS = {
    "strokes": 2.0,
    "hairlines": 2.5,
    "scratches": 1.5,
    "dust": 2.0,
    "creases": 1.5,
    "stains": 1.5,
    "holes": 0.7,
}

LATE_DAMAGE = DamageConfig(family_weights=LATE_WEIGHTS, num_layers_shares=(0.35, 0.4, 0.18, 0.07))
"""A third of the crops clean: what a detector that goes on from a release sees."""

RECIPES: dict[RecipeName, Callable[[int], Recipe]] = {
    "detect-fill": detect_fill_recipe,
    "fine-tune": fine_tune_recipe,
    "fine-tune-gpu": fine_tune_gpu_recipe,
    "denoise": denoise_recipe,
    "pix2pix": pix2pix_recipe,
}


def scale_steps(recipe: Recipe, factor: float) -> Recipe:
    """The same recipe, longer or shorter."""
    phases = tuple(replace(phase, num_steps=max(1, round(phase.num_steps * factor))) for phase in recipe.phases)
    return replace(recipe, phases=phases)
