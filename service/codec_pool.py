"""Processes of their own for what decodes and encodes: a crash, a runaway or a glutton costs one call and one process.

Own code, because no library passes file descriptors along ([why](../docs/decisions/0019-codecs-in-processes.md)).
"""

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

import structlog

from restoration.errors import RestorationError
from service.parcels import NO_ROOM, BadParcel, large_bytes, receive_parcel, send_parcel
from service.settings import ENV_PREFIX

START_TIMEOUT_SECONDS = 60.0

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger(__name__)


class NoWorker(Exception):
    """The call was not made: no process could be started, or there is no memory to share with one."""


class NoRoom(Exception):
    """The call was not made, or not finished: a temporary file, in memory or not, could not grow. The worker lives."""


class WorkerLost(Exception):
    """The call took its worker along; another one has its place."""

    reason = "died"


class WorkerDied(WorkerLost):
    """The process ended in the middle of the call, or was taken over by it."""


class WorkerTooSlow(WorkerLost):
    """The call took more time than it was given."""

    reason = "time"


class WorkerOutOfMemory(WorkerLost):
    """The call took more memory than a worker has."""

    reason = "memory"


class _Worker:
    """One process, which answers one call at a time."""

    def __init__(self, memory_bytes: int) -> None:
        """Does not wait until it is ready. Raises OSError."""
        self._is_ready = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self.process = _start_process(theirs.fileno(), memory_bytes)
            except OSError:
                self._channel.close()
                raise

    def call(
        self, timeout_seconds: float, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> T:
        self._wait_until_ready()
        self._channel.settimeout(timeout_seconds)
        try:
            self._send((timeout_seconds, function, args, kwargs))
            outcome, *details = receive_parcel(self._channel, large_bytes(args))
            result: T = _open_outcome(outcome, details)
            return result
        except TimeoutError as error:
            raise WorkerTooSlow(f"it took more than {timeout_seconds:g} seconds") from error
        except (EOFError, ConnectionError) as error:
            self.process.kill()  # if it hung up and lives; else its own status stays
            raise WorkerDied(f"its process ended with status {self.process.wait()}") from error
        except BadParcel as error:
            raise WorkerDied(f"its process answered with something else: {error}") from error

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.wait()

    def _wait_until_ready(self) -> None:
        if self._is_ready:
            return
        self._channel.settimeout(START_TIMEOUT_SECONDS)
        try:
            receive_parcel(self._channel, shared=())
        except (TimeoutError, EOFError, ConnectionError, BadParcel) as error:
            raise NoWorker(f"a process for decoding and encoding did not start: {error}") from error
        self._is_ready = True

    def _send(self, question: tuple[Any, ...]) -> None:
        try:
            send_parcel(self._channel, question)
        except (TimeoutError, ConnectionError):
            raise
        except OSError as error:
            if error.errno in NO_ROOM:
                raise NoRoom(error.strerror) from error
            raise NoWorker(f"there is no memory to share with a process: {error.strerror}") from error


class CodecPool:
    """So many workers; callers, who are threads, wait for one that is free."""

    def __init__(self, num_workers: int, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        # The last one back is the first to go: a place that has no process yet gets one when it is needed.
        self._places: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(num_workers):
            self._places.put(None)

    def start(self) -> None:
        """Fill the places, so that the first calls need not wait for a process to start. Raises OSError."""
        workers = [self._places.get() for _ in range(self._places.qsize())]
        try:
            for index, worker in enumerate(workers):
                workers[index] = worker or self._start()
        finally:
            for worker in workers:
                self._places.put(worker)

    def call(self, timeout_seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function`, which can be imported without torch, makes of the arguments, in a worker.

        Arrays in the result are read-only. Raises the RestorationErrors that it raises, WorkerLost, NoWorker
        and NoRoom.
        """
        worker = self._places.get()
        try:
            if worker and worker.has_ended:
                self._end(worker)
                worker = None
            worker = worker or self._start()
            return worker.call(timeout_seconds, function, args, kwargs)
        except (WorkerLost, NoWorker) as error:
            log.warning("codec worker lost", function=function.__name__, reason=str(error))
            if worker:
                self._end(worker)
            worker = None
            with suppress(OSError):
                worker = self._start()
            raise
        except OSError as error:
            raise NoWorker(f"no process for decoding and encoding can be started: {error.strerror}") from error
        finally:
            self._places.put(worker)

    def process_ids(self) -> list[int]:
        """Of the workers that there are."""
        with self._lock:
            return [worker.process.pid for worker in self._workers]

    def close(self) -> None:
        """To be called when no call is waited for any more."""
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            self._end(worker)

    def _start(self) -> _Worker:
        worker = _Worker(self._memory_bytes)
        with self._lock:
            self._workers.add(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
        worker.kill()


def _start_process(descriptor: int, memory_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "service.codec_worker", str(descriptor), str(memory_bytes)],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env=_environment(),
    )


def _open_outcome(outcome: str, details: list[Any]) -> Any:
    match outcome, details:
        case "done", [result]:
            return result
        case "refused", [type() as kind, str(message), dict(members)] if issubclass(kind, RestorationError):
            raise _rebuild_error(kind, message, members)
        case "no room", [str(reason)]:
            raise NoRoom(reason)
        case "out of memory", []:
            raise WorkerOutOfMemory("it took more memory than it may")
        case "failed", [reason]:
            raise RuntimeError(f"a codec worker failed: {reason}")
    raise BadParcel("no outcome")


def _rebuild_error(kind: type[RestorationError], message: str, members: dict[str, Any]) -> RestorationError:
    """Without its constructor, which may want something else than the message."""
    error = kind.__new__(kind, message)
    vars(error).update(members)
    return error


def _environment() -> dict[str, str]:
    """Ours, less the settings, which may be secret, and with the mathematics libraries kept to one thread."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
