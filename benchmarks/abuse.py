"""`python -m benchmarks.abuse`: what a photo takes while others misuse the service, over what it takes in peace.

Each kind of abuse comes in turn with peace, so that whatever else the machine does falls on both:

- 200 senders that announce a photo and let two kilobytes a second of it drip in;
- bodies of which half is sent: half of these connections are held open, half are closed;
- clients killed with SIGKILL, from among their upload to while their photo waits or is restored.

Prints medians and 95th percentiles in peace and under abuse, as ratios, and the most memory that the service held.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import numpy as np

from benchmarks.photos import make_photo
from benchmarks.process_tree import MemoryWatch
from benchmarks.running import ANSWER_SECONDS, request_head, restore, running_service

NUM_SLOW = 200
DRIP_BYTES = 2048
ANNOUNCED_BYTES = 2_000_000
NUM_HALF_SENT_PER_SECOND = 20
NUM_KILLED_PER_SECOND = 2
SENDER = """\
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
connection.recv(1)
"""

Stop = threading.Event
Abuse = Callable[[int, bytes, Stop], None]


def send_slowly(port: int, photo: bytes, stop: Stop) -> None:
    """All senders in one thread: each is given its drops once a second, and begins anew when it is turned away."""
    senders: list[socket.socket | None] = [None] * NUM_SLOW
    while not stop.wait(1.0):
        for index, sender in enumerate(senders):
            try:
                if sender is None:
                    sender = senders[index] = socket.create_connection(("127.0.0.1", port))
                    sender.sendall(request_head(ANNOUNCED_BYTES) + photo[:DRIP_BYTES])
                else:
                    sender.sendall(bytes(DRIP_BYTES))
            except OSError:
                senders[index] = None
    for sender in filter(None, senders):
        sender.close()


def send_half(port: int, photo: bytes, stop: Stop) -> None:
    held: list[socket.socket] = []
    while not stop.wait(1.0 / NUM_HALF_SENT_PER_SECOND):
        sender = socket.create_connection(("127.0.0.1", port))
        sender.sendall(request_head(len(photo)) + photo[: len(photo) // 2])
        if len(held) % 2:
            sender.close()
        held.append(sender)
    for sender in held:
        sender.close()


def send_and_be_killed(port: int, photo: bytes, stop: Stop) -> None:
    """Killed up to a third of a second after the connection, wherever its photo is by then."""
    rng = np.random.default_rng(0)
    while not stop.wait(1.0 / NUM_KILLED_PER_SECOND):
        client = subprocess.Popen([sys.executable, "-ISc", SENDER, str(port)], stdin=subprocess.PIPE)
        assert client.stdin is not None
        with suppress(OSError):
            client.stdin.write(request_head(len(photo)) + photo)
            client.stdin.close()
        time.sleep(float(rng.uniform(0.0, 0.33)))
        client.kill()
        client.wait()


ABUSES: dict[str, Abuse] = {
    f"{NUM_SLOW} slow senders": send_slowly,
    f"{NUM_HALF_SENT_PER_SECOND} half-sent bodies a second": send_half,
    f"{NUM_KILLED_PER_SECOND} killed clients a second": send_and_be_killed,
}


@contextmanager
def going_on(abuse: Abuse, port: int, photo: bytes) -> Iterator[None]:
    stop = Stop()
    thread = threading.Thread(target=abuse, args=(port, photo, stop))
    thread.start()
    try:
        time.sleep(3.0)  # until it is in full swing
        yield
    finally:
        stop.set()
        thread.join()


def measure(address: str, photos: list[bytes]) -> list[float]:
    with httpx.Client(timeout=ANSWER_SECONDS) as client:
        return [restore(client, address, photo) for photo in photos]


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1]


def row(name: str, peace: list[float], during: list[float]) -> str:
    medians = statistics.median(peace), statistics.median(during)
    return (
        f"| {name} | {medians[0] * 1000:.0f} ms | {medians[1] / medians[0]:.2f} x "
        f"| {p95(peace) * 1000:.0f} ms | {p95(during) / p95(peace):.2f} x |"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--photos", type=int, default=30, help="of 256 x 256, each time")
    asked = arguments.parse_args()
    photos = [make_photo(index, 256, 256) for index in range(asked.photos)]
    in_peace: dict[str, list[float]] = {name: [] for name in ABUSES}
    abused: dict[str, list[float]] = {name: [] for name in ABUSES}
    with running_service() as (address, pid), MemoryWatch.over(pid) as memory:
        port = int(address.rpartition(":")[2])
        measure(address, photos)
        for _ in range(asked.rounds):
            for name, abuse in ABUSES.items():
                in_peace[name] += measure(address, photos)
                with going_on(abuse, port, photos[0]):
                    abused[name] += measure(address, photos)
    print(
        "| abuse | median in peace | under abuse | 95th percentile in peace | under abuse |\n|---|---:|---:|---:|---:|"
    )
    for name in ABUSES:
        print(row(name, in_peace[name], abused[name]))
    print(f"\npeak memory {memory.peak_mib:,.0f} MiB")


if __name__ == "__main__":
    main()
