"""`python -m service.codec_worker FD MEMORY_BYTES`: calls photo functions for the service, and may die of it.

Started by `codec_pool.py`, with one end of a socket pair. It knows nothing of torch, settings or HTTP. Its memory is
bounded from the start, its computing time by each call, so that it ends even if the service is gone and cannot end it.
"""

import math
import os
import resource
import signal
import socket
import sys
from typing import Any

from restoration.errors import RestorationError
from service import codec_calls  # noqa: F401  imported before the first call, so that none waits for it
from service.parcels import NO_ROOM, TooManyArrays, large_bytes, receive_parcel, send_parcel


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    memory_bytes = int(sys.argv[2])
    for stop in (signal.SIGINT, signal.SIGTERM):  # sent to a whole process group; the service says when it is time
        signal.signal(stop, signal.SIG_IGN)
    limit_memory(memory_bytes)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold photos
    silence_decoders()
    send_parcel(channel, "ready")
    while True:
        try:
            answer_one(channel)
        except (EOFError, ConnectionError):
            os._exit(0)


def limit_memory(memory_bytes: int) -> None:
    """The service may have been given less itself, as by `ulimit -v`: that cannot be raised."""
    _, hard_bytes = resource.getrlimit(resource.RLIMIT_AS)
    if hard_bytes != resource.RLIM_INFINITY:
        memory_bytes = min(memory_bytes, hard_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def silence_decoders() -> None:
    """Some print what they find in a photo, which would make a client's words lines of the service's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def answer_one(channel: socket.socket) -> None:
    shared: list[bytes] = []
    try:
        cpu_seconds, function, args, kwargs = receive_parcel(channel)
        limit_cpu(cpu_seconds)
        shared = large_bytes(args)
        answer: tuple[Any, ...] = ("done", function(*args, **kwargs))
    except (EOFError, ConnectionError):
        raise
    except RestorationError as error:
        answer = ("refused", type(error), str(error), vars(error))
    except MemoryError:
        answer = ("out of memory",)
    except OSError as error:
        answer = _no_room(error) if error.errno in NO_ROOM else ("failed", f"{type(error).__name__}: {error}")
    except Exception as error:
        answer = ("failed", f"{type(error).__name__}: {error}")
    try:
        send_parcel(channel, answer, shared)
    except TooManyArrays as error:
        send_parcel(channel, ("failed", str(error)))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        send_parcel(channel, _no_room(error))


def _no_room(error: OSError) -> tuple[str, str]:
    return "no room", error.strerror or "there is none"


def limit_cpu(seconds: float) -> None:
    """From now on; the kernel ends a process that takes more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds) + 1, hard))


if __name__ == "__main__":
    main()
