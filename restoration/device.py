"""A generator on a device: where it runs, in which precision, in which batch shapes."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from restoration import cuda
from restoration.cpu import CompiledConvolutions
from restoration.errors import InvalidOption
from restoration.freed_memory import keep_freed_memory
from restoration.generator import Generator
from restoration.unets import UNet

Precision = Literal["bfloat16", "float32", "int8"]
"""int8: float32, of which what is safely quantised is once it is known how far it reaches, see
`DeviceGenerator.quantise`."""
PrecisionChoice = Literal["auto", "bfloat16", "float32", "int8"]

DTYPES: dict[Precision, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.float32,
}

CPU_BATCH_SIZE = 8

_HALVING = threading.Lock()
"""Of all generators: one of its own could not be sent to another process."""


class DeviceGenerator:
    """A `Generator` made ready to restore: moved, cast, in inference mode, in batch shapes that give the same bits.

    Takes and returns CPU tensors. It takes the generator over: its convolutions are cast or compiled in place. A tile's
    result must not depend on its neighbours in the batch, but a convolution may be computed by another algorithm at
    another batch size. On CUDA every batch therefore has `batch_size` tiles (`restoration/cuda.py`). On a CPU our
    U-Nets are compiled, and convolve each tile by itself (`restoration/cpu.py`); what torch computes there is padded to
    the next power of two: batches of 1, 2, 4 and 8 agree bit for bit in bfloat16, and from 2 on in float32.

    When the device's memory does not hold a batch, `batch_size` is halved, and the batch tried again: on CUDA a tile's
    result may then differ in its last bits from what it was before. Batches stay so until `use_full_batches`.
    """

    def __init__(
        self,
        generator: Generator,
        device: torch.device,
        precision: Precision,
        *,
        batch_size: int = CPU_BATCH_SIZE,
        num_threads: int = 0,
        compiles: bool = True,
        uses_graphs: bool = True,
    ) -> None:
        """num_threads: of a CPU, each for a tile; 0 for as many as torch has. compiles: on a CPU, whether U-Nets are
        compiled; uses_graphs: on CUDA, whether batches are recorded once and replayed."""
        if batch_size < 1:
            raise InvalidOption(f"batch_size is {batch_size}, expected at least 1")
        self.device = device
        self.precision: Precision = precision
        self.batch_size = batch_size
        self._full_batch_size = batch_size
        self.num_size_changes = 0
        """How often batches became smaller, or full again. What is computed while it stays, `arithmetic` describes."""
        unets = [module for module in generator.modules() if isinstance(module, UNet)]
        is_compiled = compiles and _can_compile(device, precision)
        self._compiled: list[CompiledConvolutions] = []
        for unet in unets:
            unet.compiled = None
            if is_compiled:
                unet.compiled = CompiledConvolutions(DTYPES[precision], num_threads)
                self._compiled.append(unet.compiled)
        self._generator = _prepare(generator, device, "float32" if self._compiled else precision)
        self._cuda = cuda.CudaBatches(device, uses_graphs=uses_graphs) if device.type == "cuda" else None
        keep_freed_memory()

    @property
    def calls_at_once(self) -> int:
        """See `TileGenerator.calls_at_once`. A CPU's threads compute one after the other; of what is compiled a second
        call keeps them busy while the first one's tiles are prepared and made use of by torch."""
        if self._cuda:
            return cuda.NUM_AT_ONCE
        return 2 if self._compiled else 1

    @property
    def arithmetic(self) -> str:
        """What beside weights and tiles decides the bits of a result, in words."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)} {self.precision}, batches of {self.batch_size}"
        return f"{self.device.type} {self.precision}"

    def warm_up(self, tile_px: int) -> None:
        """Compute all that a photo may ask for, so that none waits for kernels, graphs and networks to be compiled."""
        tiles, mask = torch.zeros(1, 3, tile_px, tile_px), torch.zeros(1, 1, tile_px, tile_px)
        context = torch.zeros(1, self.num_context_planes, tile_px // 2, tile_px // 2)
        conditions = mask.expand(1, len(self.conditions), -1, -1) if self.conditions else None
        asked = [partial(self.detect, tiles), partial(self.fill, tiles, mask, conditions)]
        if self.num_context_planes:
            asked.append(partial(self.detect, tiles, context))
        if self.has_verifier:
            asked += [partial(self.verify, tiles), partial(self.verify, tiles, context)]
        if self.has_denoiser:
            asked.append(partial(self.denoise, tiles))
        for ask in asked:
            for _ in range(cuda.NUM_AT_ONCE if self._cuda else 1):  # on each stream in its turn
                ask()

    def quantise(self, exercise: Callable[[], object]) -> None:
        """Make the precision int8 what it says. exercise: has this restore something; networks that it does not ask
        stay in float32. To be called before anybody else asks."""
        for compiled in self._compiled:
            compiled.watch()
        exercise()
        for compiled in self._compiled:
            compiled.quantise()

    def give_back_memory(self) -> None:
        """To be called after `warm_up` and a self-test, before anybody asks: what a network needs to compute it has
        again once it is asked, and the denoiser seldom is."""
        for compiled in self._compiled:
            compiled.give_back()

    def use_full_batches(self) -> None:
        """To be called when there may be more memory than when a batch was halved."""
        if self.batch_size != self._full_batch_size:
            self.batch_size = self._full_batch_size
            self.num_size_changes += 1

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.detect`."""
        return self._compute(self._generator.detect, tiles, context)

    @property
    def has_verifier(self) -> bool:
        return self._generator.has_verifier

    @property
    def verifier_turns(self) -> int:
        return self._generator.verifier_turns

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.verify`."""
        return self._compute(self._generator.verify, tiles, context)

    @property
    def num_context_planes(self) -> int:
        return self._generator.num_context_planes

    @property
    def detector_radius_px(self) -> int:
        return self._generator.detector_radius_px

    @property
    def required_evidence(self) -> float:
        return self._generator.required_evidence

    @property
    def conditions(self) -> tuple[str, ...]:
        return self._generator.conditions

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """See `TileGenerator.fill`."""
        return self._compute(self._generator.fill, tiles, mask, conditions)

    @property
    def has_denoiser(self) -> bool:
        return self._generator.has_denoiser

    def denoise(self, tiles: Tensor) -> Tensor:
        """See `TileGenerator.denoise`."""
        return self._compute(self._generator.denoise, tiles)

    @torch.inference_mode()
    def _compute(self, network: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """inputs: None for the last ones that are not given."""
        given = [tiles for tiles in inputs if tiles is not None]
        while True:
            batch_size = self.batch_size
            batches = zip(*(torch.split(tiles, batch_size) for tiles in given), strict=True)
            try:
                results = [self._compute_batch(network, batch_size, batch) for batch in batches]
                return torch.cat(results) if len(results) > 1 else results[0]
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                self._use_smaller_batches(batch_size // 2)

    def _use_smaller_batches(self, batch_size: int) -> None:
        """Unless another thread, whose batch did not fit either, has seen to it."""
        with _HALVING:
            if batch_size < self.batch_size:
                self.batch_size = batch_size
                self.num_size_changes += 1
        if self._cuda:
            self._cuda.clear()

    def _compute_batch(self, network: Callable[..., Tensor], batch_size: int, inputs: tuple[Tensor, ...]) -> Tensor:
        if self._compiled:
            return network(*(tiles.contiguous() for tiles in inputs))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            if self._cuda:
                return self._cuda.compute(network, batch_size, inputs)
            num_tiles = len(inputs[0])
            padded = [_pad_batch(tiles, self._padded_size(num_tiles)) for tiles in inputs]
            laid_out = [tiles.contiguous(memory_format=torch.channels_last) for tiles in padded]
            return network(*laid_out)[:num_tiles].float()

    def _padded_size(self, num_tiles: int) -> int:
        smallest = 1 if self.precision == "bfloat16" else 2
        return max(smallest, 1 << (num_tiles - 1).bit_length())


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA where there is one, else the CPU. Raises InvalidOption for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InvalidOption(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidOption(f"device {name} is not here ({torch.cuda.device_count()} CUDA devices); use auto or cpu")
    return device


def choose_batch_size(device: torch.device) -> int:
    """Tiles in a batch unless somebody says otherwise: a GPU is not filled by as few as a CPU."""
    return cuda.BATCH_SIZE if device.type == "cuda" else CPU_BATCH_SIZE


def choose_precision(device: torch.device, precision: PrecisionChoice = "auto") -> Precision:
    """`auto`: bfloat16 wherever the hardware multiplies it natively, because emulated it is slower than float32; else
    int8 where it multiplies that. Raises InvalidOption for what is not known, or for int8 where it would not be."""
    if precision not in get_args(PrecisionChoice):
        raise InvalidOption(f"precision is {precision!r}, expected one of {', '.join(get_args(PrecisionChoice))}")
    multiplies_int8 = device.type == "cpu" and _cpu_multiplies_int8()
    if precision == "int8" and not multiplies_int8:
        raise InvalidOption(
            "precision is int8, but this device has no instructions for it; use auto, bfloat16 or float32"
        )
    if precision != "auto":
        return precision
    native = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else _cpu_has_bfloat16()
    if native:
        return "bfloat16"
    return "int8" if multiplies_int8 else "float32"


def _can_compile(device: torch.device, precision: Precision) -> bool:
    """Without hardware for it OpenVINO would compute bfloat16 in float32."""
    return device.type == "cpu" and (precision != "bfloat16" or _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _cpu_multiplies_int8() -> bool:
    """VNNI: four products of integers for one of floats."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))


def _prepare(generator: Generator, device: torch.device, precision: Precision) -> Generator:
    """Convolutions in the precision, everything else (BatchNorm) in float32; autocast casts what flows between."""
    generator = generator.eval().requires_grad_(False).to(device)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(DTYPES[precision])
            module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
    return generator


def _pad_batch(tiles: Tensor, size: int) -> Tensor:
    """Repeat the last tile until the batch holds `size`."""
    missing = size - len(tiles)
    return tiles if missing == 0 else torch.cat([tiles, tiles[-1:].expand(missing, -1, -1, -1)])
