"""The real thing: `python -m service` in a process of its own, on a loopback port."""

import asyncio
import http.client
import json
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from archive.client import KEEP_IDLE_SECONDS
from service.__main__ import main
from service.listening import listen
from service.server import uvicorn_config
from service.settings import Settings

from .serving import decode, encode, grey_photo, scratched_photo

REPOSITORY = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 180  # importing torch takes its time on a busy machine
STOP_TIMEOUT_SECONDS = 60
FORM_BEGUN = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc'


class ServiceProcess:
    """A running service; `log` grows while it runs. Leaving the context kills it if it has not been stopped."""

    client: httpx.Client
    port: int

    def __init__(self, environment: dict[str, str], command: Sequence[str] = (sys.executable, "-m", "service")) -> None:
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"RESTORE_PORT": "0", "RESTORE_LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"} | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._connect()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _connect(self) -> None:
        self.port = int(self.wait_for_log(r"running on http://127\.0\.0\.1:(\d+)")[1])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        give_up_at = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < give_up_at:
            for line in list(self.log):
                if found := re.search(pattern, line):
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} is not in the log:\n{''.join(self.log)}")

    def wait_until_ready(self) -> None:
        self.wait_for_log("release active")

    def stop(self) -> int:
        """Ask it to stop; returns the exit status."""
        self.process.terminate()
        status = self.process.wait(timeout=STOP_TIMEOUT_SECONDS)
        self._reader.join()
        return status


@pytest.fixture(scope="module")
def service(store: Path) -> Iterator[ServiceProcess]:
    """A ready service that takes at most 20 MB."""
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store), "RESTORE_MAX_UPLOAD_BYTES": "20000000"}) as service:
        service.wait_until_ready()
        yield service


def test_a_photo_goes_in_and_out_over_a_real_connection(service: ServiceProcess) -> None:
    photo = encode(scratched_photo(), "JPEG")
    answer = service.client.post("/restore", files={"image": ("old.jpg", photo)})
    assert answer.status_code == 200
    assert decode(answer.content).shape == (96, 128, 3)


def test_health_answers_at_once_while_a_large_photo_is_being_restored(service: ServiceProcess) -> None:
    photo = encode(scratched_photo(3000, 3000))
    with ThreadPoolExecutor(1) as caller:
        started_seconds = time.monotonic()
        restoring = caller.submit(httpx.post, f"{service.client.base_url}/restore", content=photo, timeout=120)
        waits = []
        while not restoring.done():
            asked_seconds = time.monotonic()
            assert service.client.get("/livez").status_code == 200
            waits.append(time.monotonic() - asked_seconds)
            time.sleep(0.01)
        assert restoring.result().status_code == 200
    assert len(waits) > 3
    assert float(np.median(waits)) < 0.1 * (time.monotonic() - started_seconds)


def metric(service: ServiceProcess, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", service.client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_client_that_hangs_up_has_nothing_more_computed(service: ServiceProcess) -> None:
    """Its place is free again long before the scan would have been done, and the next photo is answered."""
    detected = 'restore_tiles_total{stage="detect"}'
    num_before = metric(service, detected)
    with socket.create_connection(("127.0.0.1", service.port)) as leaving:
        scan = encode(grey_photo(6000, 6000), "JPEG")  # some 2,900 tiles
        leaving.sendall(f"POST /restore HTTP/1.1\r\nHost: a\r\nContent-Length: {len(scan)}\r\n\r\n".encode() + scan)
        while metric(service, detected) == num_before:
            time.sleep(0.01)
    service.wait_for_log('"client-gone"')
    wait_for_metric(service, "restore_requests_in_progress", 0)
    assert metric(service, detected) - num_before < 2000
    assert service.client.post("/restore", content=encode(grey_photo())).status_code == 200
    assert not [line for line in service.log if "Traceback" in line or "never retrieved" in line]


def test_a_client_that_hangs_up_while_its_photo_waits_leaves_the_queue(store: Path) -> None:
    """The first takes all the room for large photos. The second waits, and is gone before the first is done."""
    room = {"RESTORE_MAX_PIXELS": "36000000", "RESTORE_MAX_DECODED_PIXELS": "36000000"}
    head = b"POST /restore HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)} | room) as service, ExitStack() as connections:
        service.wait_until_ready()
        for num_before, side_px in enumerate((6000, 2100)):
            photo = encode(grey_photo(side_px, side_px), "JPEG")
            client = connections.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            client.sendall(head % len(photo) + photo)
            wait_for_metric(service, "restore_requests_in_progress", num_before + 1)
        client.close()
        wait_for_metric(service, "restore_requests_in_progress", 1)
        service.wait_for_log('"client-gone"')


def wait_for_metric(service: ServiceProcess, name: str, value: float) -> None:
    give_up_at = time.monotonic() + 60
    while metric(service, name) != value:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_an_oversized_chunked_upload_is_refused_before_it_has_all_arrived(service: ServiceProcess) -> None:
    sent_bytes = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent_bytes
        for _ in range(400):
            sent_bytes += 1_000_000
            yield bytes(1_000_000)

    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.putrequest("POST", "/restore")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    for chunk in endless():
        connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if sent_bytes >= 40_000_000:
            break
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["type"].endswith("upload-too-large")
    connection.close()


@contextmanager
def announced_upload(service: ServiceProcess, *, num_bytes: int) -> Iterator[http.client.HTTPResponse]:
    """The answer to a head that says how long the body will be, of which nothing is sent."""
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.putrequest("POST", "/restore")
        connection.putheader("Content-Length", str(num_bytes))
        connection.endheaders()
        yield connection.getresponse()


def test_an_announced_oversized_upload_is_refused_before_a_byte_of_it_is_sent(service: ServiceProcess) -> None:
    with announced_upload(service, num_bytes=20_000_001) as answer:
        assert answer.status == 413
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("content_type", "begun"),
    [
        ("image/jpeg", b"\xff\xd8\xff"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
        ),
    ],
    ids=["raw", "form"],
)
def test_a_client_that_leaves_in_mid_upload_leaves_no_traceback(
    service: ServiceProcess, content_type: str, begun: bytes
) -> None:
    request_id = f"left-{len(begun)}"
    head = f"POST /restore HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nX-Request-ID: {request_id}\r\n"
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + begun)
    answered = service.wait_for_log(f'.*"answered".*"{request_id}".*')
    assert json.loads(answered[0])["problem"] == "client-gone"
    assert service.client.get("/livez").status_code == 200
    assert "Traceback" not in "".join(service.log)


def test_an_empty_store_is_not_ready_and_a_signal_stops_it(tmp_path: Path) -> None:
    with ServiceProcess({"RESTORE_MODEL_STORE": str(tmp_path), "RESTORE_PROT": "1"}) as service:
        assert service.client.get("/livez").status_code == 200
        assert service.client.get("/readyz").status_code == 503
        refused = service.client.post("/restore", content=encode(grey_photo()))
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:photo-restoration:problem:not-ready")
        assert service.stop() == 0
    assert any("RESTORE_PROT" in line for line in service.log)
    assert all(json.loads(line)["level"] for line in service.log), "every line is JSON"


def test_an_idle_connection_is_closed_after_as_long_as_is_set_and_no_sooner() -> None:
    assert 1.0 <= asyncio.run(seconds_until_closed(Settings(port=0, keep_alive_seconds=1))) < 3.0


async def seconds_until_closed(settings: Settings) -> float:
    """From the answer to a request on."""
    server = uvicorn.Server(uvicorn_config(FastAPI(), settings))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname()[:2])
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"}")
    answered_seconds = time.monotonic()
    await reader.read()
    seconds = time.monotonic() - answered_seconds
    writer.close()
    server.should_exit = True
    await serving
    return seconds


def test_callers_and_proxies_let_go_of_an_idle_connection_before_the_service_does() -> None:
    """Or their next request would meet the service's goodbye. nginx and the load balancers of AWS keep 60 seconds."""
    assert Settings().keep_alive_seconds > max(60.0, KEEP_IDLE_SECONDS)


def test_sigterm_drains_finishes_what_is_in_flight_and_exits_with_0(store: Path) -> None:
    photo = encode(scratched_photo(3000, 3000), "JPEG")
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)}) as service, ThreadPoolExecutor(1) as caller:
        service.wait_until_ready()
        in_flight = caller.submit(httpx.post, f"{service.client.base_url}/restore", content=photo, timeout=120)
        while "restore_requests_in_progress 1.0" not in service.client.get("/metrics").text:
            assert not in_flight.done()
        service.process.send_signal(signal.SIGTERM)
        while (not_ready := service.client.get("/readyz")).status_code == 200:
            assert not in_flight.done()
        assert (not_ready.status_code, not_ready.json()["type"]) == (503, "urn:photo-restoration:problem:draining")
        assert in_flight.result().status_code == 200
        assert service.process.wait(timeout=STOP_TIMEOUT_SECONDS) == 0


def test_a_photo_that_is_not_done_when_the_grace_is_over_is_answered_with_503(store: Path) -> None:
    scan = encode(grey_photo(6000, 6000), "JPEG")
    settings = {"RESTORE_MODEL_STORE": str(store), "RESTORE_SHUTDOWN_GRACE_SECONDS": "1"}
    with ServiceProcess(settings) as service, ThreadPoolExecutor(1) as caller:
        service.wait_until_ready()
        in_flight = caller.submit(httpx.post, f"{service.client.base_url}/restore", content=scan, timeout=120)
        wait_for_metric(service, "restore_requests_in_progress", 1)
        service.process.send_signal(signal.SIGTERM)
        answer = in_flight.result()
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:photo-restoration:problem:draining")
        assert int(answer.headers["retry-after"]) > 0
        assert service.process.wait(timeout=STOP_TIMEOUT_SECONDS) == 0
    assert not [line for line in service.log if "Traceback" in line or "never retrieved" in line]


def test_an_address_open_to_strangers_is_refused(store: Path) -> None:
    started = subprocess.run(
        [sys.executable, "-m", "service"],
        env=os.environ | {"RESTORE_HOST": "0.0.0.0", "RESTORE_MODEL_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_SECONDS,
    )
    assert started.returncode == 2
    assert "RESTORE_ALLOW_ANONYMOUS=true" in started.stderr
    assert "Traceback" not in started.stderr


def test_a_sender_that_stalls_is_told_so_and_gives_its_memory_back(store: Path) -> None:
    environment = {"RESTORE_MODEL_STORE": str(store), "RESTORE_UPLOAD_TIMEOUT_SECONDS": "0.5"}
    with ServiceProcess(environment) as service:
        service.wait_until_ready()
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        connection.putrequest("POST", "/restore")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"the first bytes, and then nothing")
        answer = connection.getresponse()
        assert answer.status == 408
        assert json.loads(answer.read())["type"].endswith(":upload-too-slow")
        connection.close()


def test_a_sender_that_trickles_is_told_so(store: Path) -> None:
    """It is always sending, but more slowly than it must."""
    limits = {"RESTORE_UPLOAD_GRACE_SECONDS": "0.5", "RESTORE_MIN_UPLOAD_BYTES_PER_SECOND": "1e9"}
    with ServiceProcess(
        {"RESTORE_MODEL_STORE": str(store), "RESTORE_UPLOAD_TIMEOUT_SECONDS": "3600"} | limits
    ) as service:
        service.wait_until_ready()
        with socket.create_connection(("127.0.0.1", service.port), timeout=60) as trickling:
            trickling.sendall(b"POST /restore HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            trickling.setblocking(False)
            while not (answer := received(trickling)):
                trickling.send(b"x")
                time.sleep(0.1)
    assert answer.startswith(b"HTTP/1.1 408")


def test_slow_senders_half_sent_bodies_and_killed_clients_leave_the_others_latency_as_it_was(
    service: ServiceProcess,
) -> None:
    """More of it, and in figures: `python -m benchmarks.abuse`."""
    photo = encode(scratched_photo(512, 512), "JPEG", quality=95)
    head = f"POST /restore HTTP/1.1\r\nHost: a\r\nContent-Length: {len(photo)}\r\n\r\n".encode()
    in_peace = median_seconds(service)
    with ExitStack() as senders:
        for index in range(60):
            sender = senders.enter_context(socket.create_connection(("127.0.0.1", service.port)))
            sender.sendall(head + photo[: len(photo) // 2 if index % 2 else 100])
        client = senders.enter_context(
            subprocess.Popen([sys.executable, "-ISc", SEND_AND_WAIT, str(service.port)], stdin=subprocess.PIPE)
        )
        assert client.stdin is not None
        client.stdin.write(head + photo)
        client.stdin.close()
        client.kill()
        assert median_seconds(service) < 3 * in_peace + 0.2
    wait_for_metric(service, "restore_requests_in_progress", 0)


SEND_AND_WAIT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
connection.recv(1)
"""


def median_seconds(service: ServiceProcess) -> float:
    """Of nine small photos, one after the other."""
    photo, seconds = encode(scratched_photo()), []
    for _ in range(9):
        started_seconds = time.monotonic()
        assert service.client.post("/restore", content=photo).status_code == 200
        seconds.append(time.monotonic() - started_seconds)
    return float(np.median(seconds))


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except BlockingIOError:
        return b""


def test_what_a_decoder_prints_about_a_photo_is_not_in_the_log(service: ServiceProcess) -> None:
    photo = encode(scratched_photo(), "JPEG")
    assert service.client.post("/restore", content=photo[:-2] + b"stray" + photo[-2:]).status_code == 200
    assert [line for line in service.log if not line.startswith("{")] == []


def test_a_head_beyond_the_limit_is_refused(service: ServiceProcess) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 70_000)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert service.client.get("/livez").status_code == 200


def first_line(service: ServiceProcess, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(request + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return connection.recv(4096).partition(b"\r\n")[0]


def test_a_target_that_is_a_whole_url_is_understood(service: ServiceProcess) -> None:
    for target in (b"http://a/livez", b"http://a", b"https://a:1/live%7A?b"):
        assert first_line(service, b"GET " + target) == b"HTTP/1.1 200 OK"
    assert first_line(service, b"GET http://a/nowhere") == b"HTTP/1.1 404 Not Found"


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("127.0.0.1", "RESTORE_PORT={port}: cannot listen at 127.0.0.1 (Address already in use)"),
        ("localhost", "RESTORE_PORT={port}: cannot listen at localhost (Address already in use)"),
        ("192.0.2.1", "RESTORE_HOST=192.0.2.1: cannot listen there (Cannot assign requested address)"),
        ("nowhere.invalid", "RESTORE_HOST=nowhere.invalid: no such address"),
    ],
)
def test_an_address_that_cannot_be_had_stops_the_start_before_anything_is_loaded(
    store: Path, host: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("RESTORE_MODEL_STORE", str(store))
        monkeypatch.setenv("RESTORE_HOST", host)
        monkeypatch.setenv("RESTORE_PORT", str(port))
        monkeypatch.setenv("RESTORE_ALLOW_ANONYMOUS", "true")
        # Once a process is enough: loggers that were used keep what they were configured with.
        monkeypatch.setattr("service.__main__.configure_logs", lambda settings: None)
        assert main() == 2
    printed = capfd.readouterr().err
    assert f"cannot start: {complaint.format(port=port)}" in printed
    assert "release active" not in printed


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_every_address_that_a_host_names_is_listened_at(host: str) -> None:
    sockets = listen(host, 0)
    addresses = {each.getsockname()[0] for each in sockets}
    for each in sockets:
        with socket.create_connection(each.getsockname()[:2], timeout=10):
            each.close()
    assert addresses == {info[4][0] for info in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}


def test_a_store_that_answers_no_more_does_not_keep_the_service_from_stopping(tmp_path: Path) -> None:
    """fsspec opens whatever is there; a named pipe makes it wait, as a file system does whose server is gone."""
    (tmp_path / "store" / "0001").mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / "0001" / "manifest.json")
    settings = {"RESTORE_MODEL_STORE": (tmp_path / "store").as_uri(), "RESTORE_MODEL_COPIES": str(tmp_path / "copies")}
    with ServiceProcess(settings) as service:
        assert service.client.get("/readyz").json()["detail"] == "the newest release is being loaded"
        time.sleep(1)
        assert service.stop() == 0
        assert "is left behind" in "".join(service.log)


def test_as_many_connections_are_taken_as_the_system_lets_and_the_log_is_not_flooded_by_more(store: Path) -> None:
    limited = ("bash", "-c", f"ulimit -Sn 100; ulimit -Hn 300; exec {shlex.quote(sys.executable)} -m service")
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)}, limited) as service, ExitStack() as connections:
        service.wait_until_ready()
        assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (300, 300)
        for _ in range(350):
            connections.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        service.wait_for_log("out of system resource")
        time.sleep(3)
        assert sum("out of system resource" in line for line in service.log) == 1
        connections.close()
        assert service.client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/"])
def test_a_monitor_may_ask_by_head(service: ServiceProcess, path: str) -> None:
    asked, got = service.client.head(path), service.client.get(path)
    assert (asked.status_code, asked.content) == (200, b"")
    for header in ("content-type", "content-length"):
        assert asked.headers[header] == got.headers[header]


def workers_of(service: ServiceProcess) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task").glob("*/children")
    return [int(child) for path in children for child in path.read_text(encoding="ascii").split()]


def test_a_service_that_is_killed_leaves_no_worker_behind(store: Path) -> None:
    with ServiceProcess({"RESTORE_MODEL_STORE": str(store)}) as service:
        service.wait_until_ready()
        assert service.client.post("/restore", content=encode(scratched_photo())).status_code == 200
        workers = workers_of(service)
        assert workers
        service.process.kill()
        service.process.wait()
        give_up_at = time.monotonic() + 30
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < give_up_at
            time.sleep(0.02)


FULL_DISKS = """
store="$RESTORE_MODEL_STORE"
mount --bind "$store" "$store" && mount -o remount,bind,ro,nosuid,nodev "$store" || exit 1
! touch "$store/written" 2>/dev/null || exit 1
for folder in "$TMPDIR" /dev/shm; do
    mount -t tmpfs -o size=64k none "$folder"
    head -c 1000000 /dev/zero > "$folder/filling" 2>/dev/null
done
cd "$TMPDIR" && exec "$0" -m service
"""


def test_full_disks_and_a_store_that_cannot_be_written_cost_nobody_anything(store: Path, tmp_path: Path) -> None:
    """Nothing is written: there are no temporary files, and nothing in /dev/shm."""
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshared, f"mount -t tmpfs none {tmp_path}"], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    folders = {"RESTORE_MODEL_STORE": str(store), "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    with ServiceProcess(folders, [*unshared, FULL_DISKS, sys.executable]) as service:
        service.wait_until_ready()
        photos = [encode(scratched_photo(), format) for format in ("PNG", "JPEG", "TIFF", "WEBP")]
        for photo in (*photos, encode(scratched_photo(2100, 2100))):
            assert service.client.post("/restore", files={"image": ("old", photo)}).status_code == 200
        assert service.stop() == 0
