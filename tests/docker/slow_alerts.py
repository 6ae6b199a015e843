"""Cause the faults that take longer than a test may: slow answers, full memory, photos damaged unlike those before.

    python -m tests.docker.slow_alerts

A real Prometheus with the repository's rules scrapes real services; an alert must be silent before its fault, and fire
after it. Takes minutes, and needs root: a service is shown the memory limit of a small container. Windows of an hour
and a week are shortened, and nobody waits before an alert fires; the rest is as it is. test_monitoring.py causes the
other faults.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from ..service.serving import encode, grey_photo, publish, scratched_photo
from .processes import free_port, running, running_service, status_of, wait_for
from .test_monitoring import any_firing, running_prometheus, send, values_of

UPLOAD_SECONDS = 63
"""Longer than the minute of RestorationSlow."""
WINDOWS = {"1h": "1m", "7d": "1h"}
HOUR_SECONDS = 60
NUM_BEFORE, NUM_SINCE = 520, 300
"""Photos of the week, a few more than the rule asks for; and of the hour, at most."""
SHARE_AT_REST = 0.8
"""Of its memory, taken by the small container's service before anybody sends a photo."""
IN_SMALL_CONTAINER = 'mount -t tmpfs tmpfs /sys/fs/cgroup; echo "$0" >/sys/fs/cgroup/memory.max; exec "$@"'


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "store"
        publish(store)
        with (
            running_service(store) as (_, url),
            running_in_small_container(store, rested_bytes(url)) as small_url,
            running_prometheus(folder, [url[7:], small_url[7:]], WINDOWS) as prometheus,
        ):
            wait_until_ready(small_url)
            send(url, encode(grey_photo()))
            wait_for(lambda: len(values_of(prometheus, "restore_ready == 1")) == 2 or None, "two services scraped")
            fill_memory(prometheus, small_url)
            answer_slowly(prometheus, url)
            change_what_comes(prometheus, small_url)


def fill_memory(prometheus: httpx.Client, url: str) -> None:
    expect_silence(prometheus, "RestorationDeviceMemory")
    send(url, encode(scratched_photo(4000, 6000), "JPEG"))
    say("sent 24 megapixels to a service in a small container")
    expect(prometheus, "RestorationDeviceMemory")


def answer_slowly(prometheus: httpx.Client, url: str) -> None:
    expect_silence(prometheus, "RestorationSlow")
    with ThreadPoolExecutor() as senders:
        statuses = list(senders.map(send_slowly, [url] * 3))
    say(f"sent 3 photos over {UPLOAD_SECONDS} s each: {statuses}")
    expect(prometheus, "RestorationSlow")


def change_what_comes(prometheus: httpx.Client, url: str) -> None:
    """A week of photos of which little is damaged, then an hour of others."""
    send_many(url, encode(scratched_photo()), NUM_BEFORE)
    say(f"sent {NUM_BEFORE} photos that are hardly damaged")
    wait_for(lambda: values_of(prometheus, "restoration:damage_ratio:mean1h") or None, "the hour's mean")
    expect_silence(prometheus, "RestorationDamageDrift")
    time.sleep(HOUR_SECONDS)
    ruined = grey_photo()
    ruined[:, 40:] = 255
    num_sent = send_many(url, encode(ruined), NUM_SINCE, lambda: "RestorationDamageDrift" in any_firing(prometheus))
    say(f"sent {num_sent} photos that are mostly damage")
    expect(prometheus, "RestorationDamageDrift")


def send_many(url: str, photo: bytes, num_photos: int, is_enough: Callable[[], bool] = lambda: False) -> int:
    """Returns how many it took."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for num_sent in range(num_photos):
            if is_enough():
                return num_sent
            client.post("/restore", content=photo).raise_for_status()
    return num_photos


def send_slowly(url: str) -> int:
    """Returns the answer's status."""
    noise = np.random.default_rng(0).integers(0, 128, (400, 600, 3), dtype=np.uint8)
    photo = encode(noise)

    def parts() -> Iterator[bytes]:
        part_bytes = -(-len(photo) // UPLOAD_SECONDS)
        for start in range(0, len(photo), part_bytes):
            time.sleep(1)
            yield photo[start : start + part_bytes]

    return httpx.post(f"{url}/restore", content=parts(), timeout=120).status_code


def rested_bytes(url: str) -> int:
    """Memory that a service takes which is ready, and has restored nothing."""
    wait_until_ready(url)
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith("restore_device_memory_used_bytes "))
    return int(float(line.split()[1]))


@contextmanager
def running_in_small_container(store: Path, needed_bytes: int) -> Iterator[str]:
    """The address of a service that finds the limit of its memory where a container has it."""
    port, limit_bytes = free_port(), int(needed_bytes / SHARE_AT_REST)
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", IN_SMALL_CONTAINER, str(limit_bytes)]
    settings = {"RESTORE_PORT": str(port), "RESTORE_MODEL_STORE": str(store)}
    url = f"http://127.0.0.1:{port}"
    with running([*command, sys.executable, "-m", "service"], f"{url}/livez", **settings):
        yield url


def wait_until_ready(url: str) -> None:
    wait_for(lambda: status_of(f"{url}/readyz") == 200 or None, "a ready service")


def expect_silence(prometheus: httpx.Client, alert: str) -> None:
    assert alert not in any_firing(prometheus), f"{alert} fires before its fault"


def expect(prometheus: httpx.Client, alert: str) -> None:
    wait_for(lambda: alert in any_firing(prometheus) or None, f"the alert {alert}", timeout_seconds=30)
    say(f"{alert} fires")


def say(message: str) -> None:
    print(f"alerts: {message}", flush=True)


if __name__ == "__main__":
    main()
