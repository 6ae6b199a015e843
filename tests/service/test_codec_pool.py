"""Processes that decode and encode, and every way to lose one: it costs the call that did it, and nothing else."""

import ctypes
import errno
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from restoration.errors import PhotoTooLarge, UnsupportedFormat
from restoration.photo import PhotoLimits, decode_photo, measure_photo
from service.codec_pool import CodecPool, NoWorker, WorkerDied, WorkerLost, WorkerOutOfMemory, WorkerTooSlow

from .serving import encode, grey_photo

REPOSITORY = Path(__file__).parents[2]
MEMORY_BYTES = 1 << 30
EVIL = "type('Evil', (), {'__reduce__': lambda self: (__import__('os').system, ('touch owned',))})()"


@pytest.fixture(scope="module")
def pool() -> Iterator[CodecPool]:
    pool = CodecPool(2, MEMORY_BYTES)
    yield pool
    pool.close()


def test_workers_know_neither_torch_nor_settings(pool: CodecPool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pool.call(60, eval, "'torch' in __import__('sys').modules")
    monkeypatch.setenv("RESTORE_SECRET", "key")
    own_pool = CodecPool(1, MEMORY_BYTES)
    assert own_pool.call(60, os.getenv, "RESTORE_SECRET") is None
    own_pool.close()


def test_a_photo_is_decoded_as_it_is_in_this_process(pool: CodecPool) -> None:
    encoded = encode(grey_photo())
    photo = pool.call(60, decode_photo, encoded, PhotoLimits())
    assert np.array_equal(photo.samples, grey_photo())
    assert photo.encoded == encoded


def test_errors_of_the_domain_come_back_as_they_were(pool: CodecPool) -> None:
    with pytest.raises(PhotoTooLarge, match="128 x 96") as raised:
        pool.call(60, measure_photo, encode(grey_photo()), PhotoLimits(max_pixels=1000))
    assert (raised.value.height_px, raised.value.width_px) == (96, 128)
    with pytest.raises(UnsupportedFormat, match="a GIF"):
        pool.call(60, measure_photo, b"GIF89a", PhotoLimits())


def test_any_other_error_is_told_and_keeps_the_worker(pool: CodecPool) -> None:
    before = pool.process_ids()
    with pytest.raises(RuntimeError, match="ValueError: invalid literal"):
        pool.call(60, int, "x")
    with pytest.raises(RuntimeError, match="5,000 arrays"):
        pool.call(60, eval, "[__import__('numpy').ones(1) for _ in range(5000)]")
    assert pool.process_ids() == before


@pytest.mark.parametrize(
    ("error", "function", "arguments"),
    [
        (WorkerDied, os.abort, ()),
        (WorkerDied, ctypes.string_at, (0,)),
        (WorkerDied, os._exit, (0,)),
        (WorkerDied, signal.raise_signal, (signal.SIGKILL,)),
        (WorkerDied, eval, (EVIL,)),
        (WorkerDied, os.closerange, (3, 100)),
        (WorkerTooSlow, time.sleep, (1000,)),
        (WorkerTooSlow, eval, ("list(iter(int, 1))[:0] if 0 else [None for _ in iter(int, 1)]",)),
        (WorkerOutOfMemory, bytearray, (MEMORY_BYTES,)),
        (WorkerOutOfMemory, np.ones, ((1 << 20, 1 << 12),)),
    ],
    ids=["abort", "segfault", "exit", "SIGKILL", "taken over", "hung up", "asleep", "busy", "glutton", "array"],
)
def test_a_lost_worker_is_replaced_and_the_others_know_nothing_of_it(
    pool: CodecPool, error: type[WorkerLost], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    pool.call(60, abs, -1)
    with pytest.raises(error):
        pool.call(0.3, function, *arguments)
    assert pool.call(60, abs, -1) == 1
    assert shared_mappings() == 0


def shared_mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("/memfd:parcel")


def test_a_worker_killed_in_mid_call_leaves_no_memory_and_no_process(pool: CodecPool) -> None:
    with ThreadPoolExecutor(1) as caller:
        victim = pool.call(60, os.getpid)
        asleep = caller.submit(pool.call, 60, time.sleep, 60)
        while is_idle(victim):
            threading.Event().wait(0.01)
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(WorkerDied, match="status -9"):
            asleep.result()
    assert not Path(f"/proc/{victim}").exists()
    assert shared_mappings() == 0


def is_idle(pid: int) -> bool:
    """Whether it waits for a question."""
    return "recvmsg" in syscall_of(pid)


def syscall_of(pid: int) -> str:
    number = Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()[0]
    return {"47": "recvmsg", "212": "recvmsg"}.get(number, number)


def test_workers_killed_while_they_have_nothing_to_do_cost_no_call(pool: CodecPool) -> None:
    pool.start()
    for pid in pool.process_ids():
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with ThreadPoolExecutor(2) as callers:
        assert list(callers.map(lambda text: pool.call(60, int, text), ["7", "8"])) == [7, 8]


def test_a_started_pool_has_as_many_processes_as_places_and_calls_start_no_more() -> None:
    pool = CodecPool(3, MEMORY_BYTES)
    pool.start()
    started = set(pool.process_ids())
    with ThreadPoolExecutor(3) as callers:
        called = set(callers.map(lambda _: pool.call(60, os.getpid), range(12)))
    assert len(started) == 3
    assert called <= started
    assert set(pool.process_ids()) == started
    pool.close()


def test_callers_beyond_the_workers_wait_for_their_turn(pool: CodecPool) -> None:
    with ThreadPoolExecutor(8) as callers:
        process_ids = set(callers.map(lambda _: pool.call(60, os.getpid), range(40)))
    assert process_ids <= set(pool.process_ids())
    assert len(pool.process_ids()) <= 2


def test_no_memory_to_share_refuses_the_call_and_the_next_one_is_made(
    pool: CodecPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        with pytest.raises(NoWorker, match="Cannot allocate"):
            pool.call(60, abs, -1)
    assert pool.call(60, abs, -1) == 1


def test_a_process_that_cannot_start_refuses_the_call_and_the_next_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = CodecPool(1, MEMORY_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.raises(NoWorker, match="No such file"):
            pool.call(60, abs, -1)
        patch.setattr("sys.executable", "/bin/true")
        with pytest.raises(NoWorker, match="did not start"):
            pool.call(60, abs, -1)
        with pytest.raises(NoWorker, match="did not start"):
            pool.call(60, abs, -1)
    (started_in_its_place,) = pool.process_ids()
    os.waitid(os.P_PID, started_in_its_place, os.WEXITED | os.WNOWAIT)
    assert pool.call(60, abs, -1) == 1
    pool.close()


def test_workers_of_a_service_with_less_memory_than_the_setting_have_what_it_has() -> None:
    code = "import os; from service.codec_pool import CodecPool; print(CodecPool(1, 8 << 30).call(60, os.getcwd))"
    command = f"ulimit -v {4 << 20}; {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    answer = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert answer.stdout == f"{REPOSITORY}\n", answer.stderr


def test_processes_that_cannot_be_started_in_advance_are_started_when_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = CodecPool(2, MEMORY_BYTES)
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.raises(OSError, match="No such file"):
            pool.start()
    assert pool.call(60, abs, -1) == 1
    pool.close()


def test_signals_to_the_whole_group_do_not_end_a_worker(pool: CodecPool) -> None:
    worker = pool.call(60, os.getpid)
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGINT)
    assert pool.call(60, os.getpid) == worker
