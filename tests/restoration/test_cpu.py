import gc
import itertools
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import get_args

import numpy as np
import openvino
import pytest
import torch
from torch import Tensor

from restoration import cpu, device
from restoration.cpu import CORE, CompiledConvolutions
from restoration.device import DTYPES, DeviceGenerator, Precision
from restoration.openvino_models import Extent, mean_extent
from restoration.release import Release
from restoration.restorer import Restorer
from restoration.under_way import UNDER_WAY
from restoration.unets import Denoiser, KeepingUNet, PrefilledUNet, TellingUNet, UNet

from .small_generator import make_generator

CPU = torch.device("cpu")
CHANNELS, DILATIONS = (8, 12, 16), (1, 2)


def random_planes(num_tiles: int, num_channels: int, side_px: int = 64, *, seed: int = 0) -> Tensor:
    return torch.rand(num_tiles, num_channels, side_px, side_px, generator=torch.Generator().manual_seed(seed)) - 0.5


def with_random_weights(network: UNet) -> UNet:
    """Heads and stems that training begins at zero would hide what is wrong with them."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network.eval().requires_grad_(False)


def telling() -> TellingUNet:
    network = with_random_weights(TellingUNet(4, CHANNELS, DILATIONS))
    assert isinstance(network, TellingUNet)
    return network


Ask = Callable[[UNet], tuple[Tensor, ...]]
NETWORKS: dict[str, tuple[Callable[[], UNet], Ask]] = {
    "plain": (lambda: UNet(3, 2, CHANNELS, DILATIONS), lambda net: (net(random_planes(2, 3)),)),
    "one level more": (lambda: UNet(3, 1, (*CHANNELS, 20), DILATIONS), lambda net: (net(random_planes(2, 3)),)),
    "keeps": (lambda: KeepingUNet(5, 3, CHANNELS, DILATIONS), lambda net: (net(random_planes(2, 5)),)),
    "is shown a smooth fill": (
        lambda: PrefilledUNet(5, 3, CHANNELS, DILATIONS),
        lambda net: (net.fill(random_planes(2, 5), random_planes(2, 3, seed=1)),),
    ),
    "tells": (
        lambda: TellingUNet(4, CHANNELS, DILATIONS),
        lambda net: net.look(random_planes(2, 3), random_planes(2, 4, 32, seed=1)),
    ),
    "tells, was told nothing": (
        lambda: TellingUNet(4, CHANNELS, DILATIONS),
        lambda net: net.look(random_planes(2, 3), None),
    ),
    "denoises": (lambda: Denoiser(CHANNELS, DILATIONS, 2), lambda net: (net(random_planes(2, 3) + 0.5),)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_compiled_answers_as_torch_does(name: str) -> None:
    make, ask = NETWORKS[name]
    network = with_random_weights(make())
    expected = ask(network)
    network.compiled = CompiledConvolutions(torch.float32, 1)
    answers = ask(network)
    assert len(answers) == len(expected)
    for answer, wanted in zip(answers, expected, strict=True):
        assert wanted.std() > 0.01
        torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-4)


def compiled_for(network: UNet, precision: Precision, num_threads: int) -> CompiledConvolutions:
    """int8 with what it sees of some tiles."""
    compiled = network.compiled = CompiledConvolutions(DTYPES[precision], num_threads)
    if precision == "int8":
        compiled.watch()
        network.answer(random_planes(3, 3, seed=2))
        compiled.quantise()
    return compiled


@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_tile_gets_the_same_bits_in_any_call_from_any_thread_and_with_any_number_of_threads(
    precision: Precision,
) -> None:
    network, tiles, told = telling(), random_planes(7, 3), random_planes(7, 4, 32)
    compiled_for(network, precision, 1)
    expected = network.answer(tiles, told)
    for num_threads in (1, 2, 3):
        compiled_for(network, precision, num_threads)
        some = [slice(first, first + count) for count in (1, 2, 3, 7) for first in range(8 - count)]
        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(lambda part: network.answer(tiles[part], told[part]), some))
        for part, answer in zip(some, answers, strict=True):
            assert all(torch.equal(of_part, of_all[part]) for of_part, of_all in zip(answer, expected, strict=True))


def count_computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In which way each tile is computed from now on."""
    ways: list[str] = []
    choose = cpu._Ways.choose

    def note(self: cpu._Ways, is_alone: bool) -> cpu._Compiled:
        compiled = choose(self, is_alone)
        ways.append("several cores" if compiled is not self._with_one_core else "one")
        return compiled

    monkeypatch.setattr(cpu._Ways, "choose", note)
    return ways


def test_a_tile_that_is_alone_is_computed_by_several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    ways, network, other = count_computed(monkeypatch), telling(), telling()
    network.compiled, other.compiled = CompiledConvolutions(torch.float32, 2), CompiledConvolutions(torch.float32, 2)
    tiles = random_planes(2, 3)
    (of_two, _), (of_one, _) = network.answer(tiles), network.answer(tiles[:1])
    assert ways == ["one", "several cores"]
    assert torch.equal(of_one, of_two[:1])
    with UNDER_WAY.more_tiles(1):  # another network's
        other.answer(tiles[:1])
    with UNDER_WAY.one_more_photo():
        other.answer(tiles[:1])
        with UNDER_WAY.one_more_photo():
            other.answer(tiles[:1])
    other.answer(tiles[:1])
    assert ways[2:] == ["one", "several cores", "one", "several cores"]


def test_a_tile_that_failed_is_not_under_way_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    ways, network, tile = count_computed(monkeypatch), telling(), random_planes(1, 3)
    network.compiled = CompiledConvolutions(torch.float32, 2)
    network.answer(tile)
    with monkeypatch.context() as patched:
        patched.setattr(openvino.InferRequest, "start_async", fail)
        with pytest.raises(RuntimeError, match="no more memory"):
            network.answer(tile)
    network.answer(tile)
    assert ways == ["several cores"] * 3


def fail(request: openvino.InferRequest) -> None:
    raise RuntimeError("no more memory")


def test_several_cores_that_give_other_bits_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, asked = cpu._answers_to_noise, itertools.count()
    monkeypatch.setattr(cpu, "_answers_to_noise", lambda *of: answer(*of) + bytes([next(asked)]))
    ways, network = count_computed(monkeypatch), telling()
    network.compiled = CompiledConvolutions(torch.float32, 2)
    network.answer(random_planes(1, 3))
    assert ways == ["one"]


# --- quantised ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_quantised_is_near_to_what_is_not(name: str) -> None:
    make, ask = NETWORKS[name]
    network = with_random_weights(make())
    compiled = network.compiled = CompiledConvolutions(torch.float32, 1)
    expected = ask(network)
    compiled.watch()
    for seen, wanted in zip(ask(network), expected, strict=True):
        torch.testing.assert_close(seen, wanted, rtol=1e-5, atol=1e-5)
    compiled.quantise()
    answers = ask(network)
    assert any(not torch.equal(answer, wanted) for answer, wanted in zip(answers, expected, strict=True))
    for answer, wanted in zip(answers, expected, strict=True):
        assert (answer - wanted).std() < 0.03 * wanted.std()


def test_what_is_watched_is_what_reaches_the_convolutions_on_the_way_up() -> None:
    network, tiles = telling(), random_planes(2, 3)
    reached: list[Tensor] = []
    on_the_way_up = [*(block.conv for block in network.context), network.ups[1], network.decoders[1].conv]
    on_the_way_up += [network.ups[0], network.decoders[0].conv, network.head]
    for conv in on_the_way_up:
        conv.register_forward_pre_hook(lambda module, inputs: reached.append(inputs[0]))
    network.convolve(tiles)
    compiled = network.compiled = CompiledConvolutions(torch.float32, 2)
    compiled.watch()
    network.answer(tiles)
    compiled.quantise()
    assert len(compiled.extents) == len(reached)
    for extent, planes in zip(compiled.extents, reached, strict=True):
        for found, expected in ((extent.low, planes.amin((2, 3))), (extent.high, planes.amax((2, 3)))):
            torch.testing.assert_close(torch.from_numpy(found), expected.mean(0), rtol=1e-4, atol=1e-4)


def test_in_which_order_tiles_are_watched_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    extents = [Extent(*rng.normal(size=(2, 16)).astype(np.float32)) for _ in range(50)]
    there, back = mean_extent(extents), mean_extent(extents[::-1])
    assert np.array_equal(there.low, back.low)
    assert np.array_equal(there.high, back.high)


def test_a_network_that_was_asked_nothing_is_not_quantised() -> None:
    network, tiles = telling(), random_planes(1, 3)
    compiled = network.compiled = CompiledConvolutions(torch.float32, 1)
    (expected, _) = network.answer(tiles)
    compiled.watch()
    compiled.quantise()
    assert torch.equal(network.answer(tiles)[0], expected)


def test_channels_in_which_nothing_is_are_quantised_to_nothing() -> None:
    """A head that training has not yet touched, a picture that is black."""
    network, black = telling(), torch.zeros(1, 3, 64, 64)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or name.startswith("head"):
            parameter.data.zero_()
    compiled = network.compiled = CompiledConvolutions(torch.float32, 1)
    compiled.watch()
    network.answer(black)
    compiled.quantise()
    assert all((answer == 0.0).all() for answer in network.answer(black))


def test_a_release_in_int8_answers_about_as_it_does_in_float32(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_cpu_multiplies_int8", lambda: True)  # where it does not it is slow, not wrong
    tiles = random_planes(2, 3, 256) + 0.5
    exact, quantised = (Restorer.load(release, device="cpu", precision=each) for each in ("float32", "int8"))
    assert (quantised.precision, quantised.generator.arithmetic) == ("int8", "cpu int8")
    expected, found = (each.generator.detect(tiles) for each in (exact, quantised))
    assert not torch.equal(found, expected)
    assert (found - expected).abs().mean() < 0.01
    again = Restorer.load(release, device="cpu", precision="int8", num_threads=1)
    assert torch.equal(again.generator.detect(tiles), found)


# --- and whatever the precision --------------------------------------------------------------------------------------


def test_each_size_of_tiles_is_compiled_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    class Counting(openvino.Core):
        def compile_model(self, *args: object) -> openvino.CompiledModel:
            compiled.append(args)
            return CORE.compile_model(*args)

    monkeypatch.setattr(cpu, "CORE", Counting())
    network = telling()
    network.compiled = CompiledConvolutions(torch.float32, 2)
    with ThreadPoolExecutor(4) as callers:
        list(callers.map(lambda side_px: network.look(random_planes(2, 3, side_px), None), [64, 96] * 8))
    assert len(compiled) == 2 * 2  # for a core a tile, and for several


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("copy", [deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_compiles_its_own(copy: Callable[[UNet], UNet], precision: Precision) -> None:
    network, tiles = telling(), random_planes(1, 3)
    compiled_for(network, precision, 1)
    (logits, _), other = network.answer(tiles), copy(network)
    assert torch.equal(other.answer(tiles)[0], logits)
    other.head.weight.data.zero_()  # whose weights they are shows where nothing is compiled yet
    assert not torch.equal(copy(other).answer(tiles)[0], logits)


def test_what_is_compiled_goes_with_its_generator() -> None:
    """Not when the garbage collector next looks for cycles: a release that is replaced would be held until then."""
    generator = DeviceGenerator(make_generator(), CPU, "float32")
    generator.detect(random_planes(1, 3, 256) + 0.5)
    compiled = weakref.ref(generator._generator.detector.compiled)
    assert isinstance(compiled(), CompiledConvolutions)
    gc.disable()
    try:
        del generator
        assert compiled() is None
    finally:
        gc.enable()


def test_no_tile_is_held_on_to() -> None:
    network = telling()
    network.compiled = CompiledConvolutions(torch.float32, 2)
    tiles = random_planes(3, 3)
    answers = network.answer(tiles)
    kept = [weakref.ref(each.untyped_storage()) for each in (tiles, answers[0])]
    del tiles, answers
    assert [storage() for storage in kept] == [None, None]


def test_a_tile_that_fails_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network, tiles = telling(), random_planes(4, 3)
    network.compiled = CompiledConvolutions(torch.float32, 2)
    expected = network.answer(tiles)
    started, start = [], openvino.InferRequest.start_async

    def fail_at_second(request: openvino.InferRequest) -> None:
        started.append(request)
        if len(started) == 2:
            raise RuntimeError("no more memory")
        start(request)

    with monkeypatch.context() as patched:
        patched.setattr(openvino.InferRequest, "start_async", fail_at_second)
        with pytest.raises(RuntimeError, match="no more memory"):
            network.answer(tiles)
    assert all(torch.equal(*pair) for pair in zip(network.answer(tiles), expected, strict=True))


def test_a_generator_computes_on_a_cpu_by_what_is_compiled_unless_asked_not_to() -> None:
    tiles = random_planes(2, 3, 256) + 0.5
    compiled = DeviceGenerator(make_generator(), CPU, "float32")
    by_torch = DeviceGenerator(make_generator(), CPU, "float32", compiles=False)
    assert compiled._generator.detector.compiled is not None
    assert by_torch._generator.detector.compiled is None
    torch.testing.assert_close(compiled.detect(tiles), by_torch.detect(tiles), rtol=1e-4, atol=1e-4)


def test_a_generator_that_was_compiled_can_be_taken_over_by_torch() -> None:
    generator = make_generator()
    DeviceGenerator(generator, CPU, "bfloat16")
    DeviceGenerator(generator, CPU, "float32", compiles=False)
    assert generator.detector.compiled is None


def test_without_hardware_for_bfloat16_torch_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: False)
    assert DeviceGenerator(make_generator(), CPU, "bfloat16")._generator.detector.compiled is None
    assert DeviceGenerator(make_generator(), CPU, "float32")._generator.detector.compiled is not None


def test_warming_up_compiles_what_a_photo_asks_for() -> None:
    generator = DeviceGenerator(make_generator(), CPU, "float32")
    generator.warm_up(256)
    for network in (generator._generator.detector, generator._generator.filler):
        assert isinstance(network.compiled, CompiledConvolutions)
        assert len(network.compiled._compiled) == 1


def test_calls_one_after_the_other_share_their_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    make = openvino.CompiledModel.create_infer_request
    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request", lambda model: made.append(model) or make(model))
    network = telling()
    network.compiled = CompiledConvolutions(torch.float32, 2)
    for num_tiles in (1, 3, 5):
        thread = threading.Thread(target=network.answer, args=(random_planes(num_tiles, 3),))
        thread.start()
        thread.join()
    assert len(made) == 2 + 1  # the one for a tile that is alone


def test_memory_that_was_given_back_is_had_again() -> None:
    network, tiles = telling(), random_planes(3, 3)
    network.compiled = CompiledConvolutions(torch.bfloat16, 2)
    network.compiled.give_back()  # nothing is compiled yet
    expected = network.answer(tiles)
    (ways,) = network.compiled._compiled.values()
    several, one_core = (ways.choose(is_alone) for is_alone in (True, False))
    assert (len(several._idle), len(one_core._idle)) == (1, 2)
    network.compiled.give_back()
    assert several._idle == one_core._idle == []
    assert all(torch.equal(*pair) for pair in zip(network.answer(tiles), expected, strict=True))


CONTACTS = """
import sys

def refuse(event, args):
    if event.startswith("socket.") and event != "socket.__new__":
        print("CONTACT", event, args)

sys.addaudithook(refuse)
import torch
from restoration.cpu import CompiledConvolutions
from restoration.unets import UNet

network = UNet(3, 1, (8, 12), (1,)).requires_grad_(False)
network.compiled = CompiledConvolutions(torch.float32, 1)
network(torch.zeros(1, 3, 64, 64))
import threading, time
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join(5)
print("computed", "openvino_telemetry.main" in sys.modules)
"""


def test_nobody_is_told_that_it_is_used(tmp_path: Path) -> None:
    """OpenVINO brings a package that tells its makers."""
    pytest.importorskip("openvino.tools.ovc")
    ran = subprocess.run(
        [sys.executable, "-c", CONTACTS],
        env={"HOME": str(tmp_path), "PATH": ""},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stdout.splitlines() == ["computed False"]
    assert list(tmp_path.iterdir()) == []


SIGNALLED = """
import signal, subprocess, sys, threading
import torch
from restoration.cpu import CompiledConvolutions
from restoration.unets import UNet

signal.signal(signal.SIGCHLD, lambda *_: print("a child is gone", flush=True))
held = []
for _ in range(3):
    network = UNet(3, 1, (8, 12), (1,)).requires_grad_(False)
    network.compiled = CompiledConvolutions(torch.float32, 1)
    network(torch.zeros(1, 3, 64, 64))
    held.append(network)
    del network
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


def test_signals_are_still_heard_once_what_was_compiled_is_gone() -> None:
    """OpenVINO gives a thread that calls it a stack for signals, and takes it back wherever it is destroyed."""
    ran = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stdout.splitlines()) == (0, ["a child is gone"] * 3), ran.stderr
