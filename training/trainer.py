"""The trainer: steps through a recipe's phases, keeps checkpoints, curves and sample grids, stops cleanly."""

import dataclasses
import hashlib
import json
import math
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from operator import le
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from restoration.architectures import build_generator, config_of
from restoration.errors import CheckpointError, InvalidOption, LossNotFinite
from restoration.generator import CALIBRATED, DetectFill, Generator
from training.checkpoint import load_checkpoint, save_checkpoint
from training.damage import Pairs
from training.discriminator import PatchGAN
from training.losses import PerceptualLoss
from training.pairs import BatchShape, PairSource, batch_seed, iterate_batches, make_batch
from training.pictures import draw_sheet, save_sheet, tensors_to_rows
from training.ranks import ONE_PROCESS, Ranks
from training.recipes import PHASE_DEFAULTS, Phase, Recipe
from training.steps import StepLosses, condition_channels, run_step, trained_part


@dataclass(frozen=True)
class RunSettings:
    """Where and how a run trains; what it trains is the recipe's."""

    folder: Path
    device: torch.device
    precision: torch.dtype = torch.bfloat16
    num_workers: int = 0
    checkpoint_every_steps: int = 500
    sample_every_steps: int = 1000
    log_every_steps: int = 20
    max_seconds: float | None = None
    """Stop with a checkpoint after this long, to be resumed; None trains to the end."""
    ranks: Ranks = ONE_PROCESS
    compiles: bool = False
    """Whether our networks are compiled (not the original's): the first steps take minutes, the others less time."""
    perceptual_weights: Path | None = None
    """Folder of VGG16's weights, for a recipe with a perceptual loss; see `PerceptualLoss`."""


class Trainer:
    """Owns the networks, their optimisers, the moving average and the step."""

    def __init__(self, recipe: Recipe, source: PairSource, settings: RunSettings) -> None:
        self.recipe = recipe
        self.source = source
        self.settings = settings
        torch.manual_seed(recipe.seed)
        device = settings.device
        self.generator = placed(build_generator_for(recipe), device)
        self.average = deepcopy(self.generator).requires_grad_(False).eval()
        self.discriminator = placed(PatchGAN(condition_channels(self.generator), recipe.discriminator), device)
        is_cuda = device.type == "cuda"
        self.optimisers = {
            name: torch.optim.Adam(network.parameters(), betas=recipe.betas, fused=is_cuda)
            for name, network in self._networks()
        }
        self._perceptual = self._load_perceptual()
        if settings.compiles:
            compile_calls(self.generator, "detect_logits", "verify_logits", "fill_unclipped", "denoise")
            compile_calls(self._perceptual, "compare")
        self._finite_checks: deque[_FiniteCheck] = deque()
        self.step = 0
        self.trained_seconds = 0.0
        self.calibration: dict[str, float] = {}
        """What calibration found, of this run before it went on or of the release that it started from."""
        self._stop_requested = False

    def _load_perceptual(self) -> PerceptualLoss | None:
        """Raises InvalidOption if it is needed and cannot be had."""
        if not any(phase.perceptual for phase in self.recipe.phases):
            return None
        if self.settings.perceptual_weights is None:
            raise InvalidOption(
                f"the recipe {self.recipe.name} has a perceptual loss; name the folder of VGG16's weights with "
                "--perceptual-weights"
            )
        return PerceptualLoss(self.settings.perceptual_weights, self.settings.device)

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        for phase in self.recipe.phases:
            yield phase.trains, trained_part(self.generator, phase)
        yield "discriminator", self.discriminator

    # --- the run ------------------------------------------------------------------------------------------------------

    def train(self) -> bool:
        """Train until the recipe's end, the time limit or SIGTERM. Returns whether the recipe was finished."""
        started = time.monotonic()
        before = self.trained_seconds
        self.settings.folder.mkdir(parents=True, exist_ok=True)
        with (
            self._stop_on_signals(),
            self._open_curves() as writer,
            _progress(self.recipe.num_steps) as show,
            torch.backends.cudnn.flags(enabled=True, benchmark=self.settings.device.type == "cuda"),
        ):
            for phase, first, end in spans(self.recipe):
                if self.step >= end:
                    continue
                steps = range(max(first, self.step), end)
                shape = batch_shape(phase)
                workers = self.settings.num_workers
                for pairs in iterate_batches(self.source, steps, shape, self.settings.device, workers):
                    losses = self._train_step(self.settings.ranks.own_rows(pairs), phase, self.step - first)
                    self.step += 1
                    self.trained_seconds = before + time.monotonic() - started
                    self._report(losses, phase, writer, show)
                    if self._should_stop(time.monotonic() - started):
                        self.save()
                        return self.step == self.recipe.num_steps
        self.save()
        return True

    def _train_step(self, pairs: Pairs, phase: Phase, step_in_phase: int) -> StepLosses:
        generator_optimiser, judge_optimiser = self.optimisers[phase.trains], self.optimisers["discriminator"]
        rate = learning_rate(phase, step_in_phase)
        device = self.settings.device
        rng = torch.Generator(device).manual_seed(self._step_seed())
        self.generator.train()
        is_mixed = self.settings.precision != torch.float32
        with torch.autocast(device.type, dtype=self.settings.precision, enabled=is_mixed):
            losses = run_step(self.generator, self.discriminator, pairs, phase, self.recipe, rng, self._perceptual)
        self._expect_finite({**losses.shown, "the total loss": losses.generator})
        part = trained_part(self.generator, phase)
        self._update(generator_optimiser, losses.generator, part, rate)
        if losses.discriminator is not None:
            self._update(judge_optimiser, losses.discriminator, self.discriminator, rate)
        self._update_average(part, step_in_phase)
        return losses

    def _step_seed(self) -> int:
        """Another one for each process: the rows that it has are others."""
        ranks = self.settings.ranks
        return batch_seed(self.recipe.seed + 1, self.step * ranks.world_size + ranks.rank)

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor, network: nn.Module, rate: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.settings.ranks.average_gradients(network)
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.recipe.max_gradient_norm or math.inf)
        self._expect_finite({"the gradient": norm})
        optimiser.step()

    def _expect_finite(self, values: Mapping[str, Tensor]) -> None:
        """Raises LossNotFinite; on a GPU two steps late, so that nothing waits for the step under way."""
        self._finite_checks.append(_FiniteCheck(self.step, values))
        self._check_finite(self.step - 2 if self.settings.device.type == "cuda" else self.step)

    def _check_finite(self, last_step: int) -> None:
        """Of all steps up to this one."""
        while self._finite_checks and self._finite_checks[0].step <= last_step:
            check = self._finite_checks.popleft()
            if bad := check.not_finite():
                raise LossNotFinite(
                    f"step {check.step}: {', '.join(bad)} is not finite (batch seed "
                    f"{batch_seed(self.recipe.seed, check.step)}); the last checkpoint is whole: look at that batch, "
                    "or train anew with a lower learning rate"
                )

    @torch.no_grad()
    def _update_average(self, part: nn.Module, step_in_phase: int) -> None:
        """Exponential moving average; early in a phase it forgets faster (as torch_ema and timm do)."""
        decay = min(self.recipe.ema_decay, (1 + step_in_phase) / (10 + step_in_phase))
        trained = {id(tensor) for tensor in part.state_dict(keep_vars=True).values()}
        averages = self.average.state_dict(keep_vars=True)
        pairs = [
            (averages[name], tensor)
            for name, tensor in self.generator.state_dict(keep_vars=True).items()
            if id(tensor) in trained
        ]
        for average, tensor in pairs:
            if not average.is_floating_point():
                average.copy_(tensor)
        means, latest = zip(
            *((average, tensor) for average, tensor in pairs if average.is_floating_point()), strict=True
        )
        torch._foreach_lerp_(means, latest, 1.0 - decay)  # one call: hundreds would keep a GPU waiting

    # --- reports ------------------------------------------------------------------------------------------------------

    def _open_curves(self) -> AbstractContextManager[SummaryWriter | None]:
        if not self.settings.ranks.is_first:
            return nullcontext()
        return SummaryWriter(str(self.settings.folder / "curves"), purge_step=self.step + 1)

    def _report(self, losses: StepLosses, phase: Phase, writer: SummaryWriter | None, show: "_Show") -> None:
        settings = self.settings
        if self.step % settings.log_every_steps == 0:
            shown = settings.ranks.average(losses.shown)
            if writer is None:
                return
            for name, value in shown.items():
                writer.add_scalar(f"{phase.trains}/{name}", value, self.step)
            show(self.step, f"{phase.trains}: " + ", ".join(f"{name} {value:.4f}" for name, value in shown.items()))
        if settings.ranks.is_first and self.step % settings.sample_every_steps == 0:
            self.save_samples(phase)
        if self.step % settings.checkpoint_every_steps == 0:
            self.save()

    @torch.no_grad()
    def save_samples(self, phase: Phase) -> None:
        """A grid of pairs that are the same at every step, restored by the averaged weights."""
        crop_px = max(phase.crop_px, self.average.tile_multiple_px)
        shape = BatchShape(num_crops=8, crop_px=crop_px, noise=phase.noise)
        pairs = make_batch(self.source, -1 % 2**31, shape, self.settings.device)
        columns = _denoised(self.average, pairs) if phase.trains == "denoiser" else _restored(self.average, pairs)
        sheet = draw_sheet(tensors_to_rows(*columns.values()), list(columns))
        save_sheet(sheet, self.settings.folder / "samples" / f"step_{self.step:07d}.png")

    # --- stopping and going on ----------------------------------------------------------------------------------------

    def _should_stop(self, elapsed_seconds: float) -> bool:
        limit = self.settings.max_seconds
        wants_to = self._stop_requested or (limit is not None and elapsed_seconds >= limit)
        return self.settings.ranks.any(wants_to, self.settings.device)

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C stop after the step under way, with a checkpoint; a second one stops at once."""
        before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

        def request_stop(number: int, _frame: FrameType | None) -> None:
            self._stop_requested = True
            signal.signal(number, before[signal.Signals(number)])

        for each in before:
            signal.signal(each, request_stop)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def save(self) -> None:
        self._check_finite(self.step)
        if not self.settings.ranks.is_first:
            return
        state: dict[str, Any] = {
            "recipe": recipe_record(self.recipe),
            "step": self.step,
            "trained_seconds": self.trained_seconds,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "random_state": torch.get_rng_state(),
            "calibration": self.calibration,
        }
        if torch.cuda.is_available():
            state["cuda_random_state"] = torch.cuda.get_rng_state_all()
        save_checkpoint(self.settings.folder, state)

    def resume(self) -> None:
        """Go on from the folder's checkpoint. Raises CheckpointError if it belongs to another recipe."""
        state = load_checkpoint(self.settings.folder)
        default_config = dataclasses.asdict(type(self.recipe.generator)())
        recipe = {
            **state["recipe"],
            "generator": {**default_config, **state["recipe"]["generator"]},
            "phases": [{**PHASE_DEFAULTS, **phase} for phase in state["recipe"]["phases"]],
        }
        check_same_recipe(recipe, recipe_record(self.recipe), self.settings.folder)
        self.calibration = state.get("calibration", {})
        self.step = state["step"]
        self.trained_seconds = state["trained_seconds"]
        self.generator.load_state_dict(state["generator"])
        self.average.load_state_dict(state["average"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        torch.set_rng_state(state["random_state"])
        if torch.cuda.is_available() and "cuda_random_state" in state:
            torch.cuda.set_rng_state_all(state["cuda_random_state"])

    @torch.no_grad()
    def take_weights(self, generator: Generator) -> int:
        """Start from another generator's weights, as far as they fit by name and shape. Returns how many did.

        Raises CheckpointError if none fits.
        """
        given = generator.state_dict()
        own = self.generator.state_dict()
        fitting = {name: weight for name, weight in given.items() if name in own and own[name].shape == weight.shape}
        if not fitting:
            raise CheckpointError(
                f"no weight of the {generator.architecture} generator fits this recipe's "
                f"{self.generator.architecture}; start from another release, or from nothing"
            )
        for network in (self.generator, self.average):
            network.load_state_dict(fitting, strict=False)
            self._grow_verifier(network, generator)
        if isinstance(generator, DetectFill):
            self.calibration = {name: getattr(generator.config, name) for name in CALIBRATED}
            if self.generator.has_verifier and not generator.has_verifier:  # as sure as the detector that it is made of
                self.calibration["verifier_scale"] = self.calibration["detector_scale"]
                self.calibration["verifier_shift"] = self.calibration["detector_shift"]
        return len(fitting)

    @staticmethod
    def _grow_verifier(network: Generator, generator: Generator) -> None:
        """A verifier where there was none starts as the detector that is there."""
        if not isinstance(network, DetectFill) or not isinstance(generator, DetectFill) or generator.has_verifier:
            return
        if network.verifier is not None and fits_in(generator.detector, network.verifier):
            put_in_corner(generator.detector, network.verifier)


def fits_in(smaller: nn.Module, network: nn.Module) -> bool:
    """Whether the two have layers of the same names, none of them larger in the smaller one."""
    weights, others = smaller.state_dict(), network.state_dict()
    return weights.keys() == others.keys() and all(
        weight.dim() == others[name].dim() and all(map(le, weight.shape, others[name].shape))
        for name, weight in weights.items()
    )


@torch.no_grad()
def put_in_corner(smaller: nn.Module, network: nn.Module) -> None:
    """Make a network compute what a smaller one does, with channels to spare (Net2Net, Chen et al. 2016).

    Its first channels of each layer are the smaller one's. The others stay as they were initialised, and the first
    ones do not hear of them yet: unlike copies of channels, they have nothing to unlearn before they differ.
    """
    others = network.state_dict(keep_vars=True)
    for name, weight in smaller.state_dict().items():
        if weight.dim() > 1:
            others[name][: len(weight)] = 0.0
        others[name][tuple(map(slice, weight.shape))] = weight


def compile_calls(owner: object, *names: str) -> None:
    """These methods are compiled when they are first called, for each shape of their arguments anew; None has none.

    A convolution's bias, activation and sum then pass through memory once; launched one by one they are much of a
    step's time on a GPU.
    """
    for name in names:
        if hasattr(owner, name):
            setattr(owner, name, torch.compile(getattr(owner, name), dynamic=False))


def _restored(generator: Generator, pairs: Pairs) -> dict[str, Tensor]:
    """The columns of a grid of samples."""
    damage_map = (generator.verify if generator.has_verifier else generator.detect)(pairs.damaged)[:, :1]
    blind = (damage_map > 0.5).float()
    return {
        "damaged": pairs.damaged,
        "damage map": damage_map,
        "true mask": pairs.mask,
        "restored": torch.lerp(pairs.damaged, generator.fill(pairs.damaged, blind), blind),
        "with true mask": torch.lerp(pairs.damaged, generator.fill(pairs.damaged, pairs.mask), pairs.mask),
        "clean": pairs.clean,
    }


def _denoised(generator: Generator, pairs: Pairs) -> dict[str, Tensor]:
    denoised = pairs.damaged + generator.denoise(pairs.damaged)
    return {"noisy": pairs.damaged, "denoised": denoised, "clean": pairs.clean}


Network = TypeVar("Network", bound=nn.Module)


def placed(network: Network, device: torch.device) -> Network:
    """On the device, channels last: dense convolutions are fastest so, in bfloat16 above all."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def build_generator_for(recipe: Recipe) -> Generator:
    architecture = "detect-fill" if any(phase.trains != "pix2pix" for phase in recipe.phases) else "pix2pix"
    return build_generator(architecture, dataclasses.asdict(recipe.generator))


def generator_from_checkpoint(folder: Path) -> tuple[Generator, dict[str, Any]]:
    """The averaged generator of a run, calibrated if the run is, on the CPU and ready, and its checkpoint."""
    state = load_checkpoint(folder)
    is_pix2pix = state["recipe"]["name"] == "pix2pix"
    config = {**state["recipe"]["generator"], **state.get("calibration", {})}
    generator = build_generator("pix2pix" if is_pix2pix else "detect-fill", config)
    generator.load_state_dict(state["average"])
    return generator.requires_grad_(False).eval(), state


def weights_digest(generator: Generator) -> str:
    """SHA-256 over the config, and the names and values of the weights."""
    digest = hashlib.sha256(json.dumps(config_of(generator), sort_keys=True).encode())
    for name, weight in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON values."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return record


def check_same_recipe(found: dict[str, Any], expected: dict[str, Any], folder: Path) -> None:
    different = [key for key in expected if found.get(key) != expected[key]]
    if different:
        raise CheckpointError(
            f"the checkpoint in {folder} is of another recipe: {', '.join(different)} differ; "
            "start a new folder, or give the same options as the run was started with"
        )


def batch_shape(phase: Phase) -> BatchShape:
    return BatchShape(phase.num_crops, phase.crop_px, phase.damage, phase.noise, phase.num_uses)


def spans(recipe: Recipe) -> Iterator[tuple[Phase, int, int]]:
    """Each phase with its first step and the step after its last."""
    first = 0
    for phase in recipe.phases:
        yield phase, first, first + phase.num_steps
        first += phase.num_steps


def learning_rate(phase: Phase, step_in_phase: int) -> float:
    warm_up = min(1.0, (step_in_phase + 1) / (phase.warm_up_steps + 1))
    decay = 0.5 * (1.0 + math.cos(math.pi * step_in_phase / phase.num_steps)) if phase.decays else 1.0
    return phase.learning_rate * warm_up * decay


class _FiniteCheck:
    """Which of a step's values are finite, asked for at once and read once it is known."""

    def __init__(self, step: int, values: Mapping[str, Tensor]) -> None:
        self.step = step
        self._names = tuple(values)
        flags = torch.stack([value.detach().isfinite() for value in values.values()])
        self._is_known = torch.cuda.Event() if flags.is_cuda else None  # type: ignore[no-untyped-call]
        if self._is_known is not None:
            pinned = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
            flags = pinned.copy_(flags, non_blocking=True)
            self._is_known.record()
        self._flags = flags

    def not_finite(self) -> list[str]:
        if self._is_known is not None:
            self._is_known.synchronize()
        return [name for name, is_finite in zip(self._names, self._flags.tolist(), strict=True) if not is_finite]


class _Show:
    """The progress bar as a function of the step."""

    def __init__(self, progress: Progress, num_steps: int) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=num_steps, note="")

    def __call__(self, step: int, note: str) -> None:
        self._progress.update(self._task, completed=step, note=note)
        if not self._progress.console.is_terminal:
            self._progress.console.print(f"step {step} {note}", highlight=False, soft_wrap=True)


@contextmanager
def _progress(num_steps: int) -> Iterator[_Show]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        yield _Show(progress, num_steps)
