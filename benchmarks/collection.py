"""`python -m benchmarks.collection PHOTOS`: a collection by each way of `python -m archive`, and a run that is killed.

Makes a collection of small photographs from those below PHOTOS, with scratches drawn on, in several sizes and formats,
one in a hundred of them broken, in boxes. Then, and at the end a Markdown table:

- box by box: the bare generator (decoding, restoring, encoding, one photo after the other in one process), `--local`,
  `--server` and `--ray`, so that whatever else the machine does falls on all of them alike;
- the same with one and with two restorers of one core each on a Ray cluster of two nodes;
- a run that is killed (SIGKILL) at five random moments and started again each time;
- a run against a server that gives every photo back as it came: what the tool itself manages.

Rates are over the time from the first photo that is done to the last, without any start. Beside them stands what the
processor spent, which does not depend on what else runs: seconds of all processes of the way, over photos.
"""

import argparse
import hashlib
import io
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image, ImageDraw
from ray.cluster_utils import Cluster

from benchmarks.running import running_service
from benchmarks.serving import STORE
from restoration.photo import History, decode_photo
from restoration.restorer import Restorer

SIDES_PX = (128, 160, 192, 256, 384)
FORMATS = (("jpg", "JPEG"), ("jpg", "JPEG"), ("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"))
BROKEN_EVERY = 100
JOURNAL = ".restoration-journal.sqlite3"
NUM_KILLS = 5
PARTS = ("local", "server", "ray", "killed", "scaling", "tool")
NODE_MEMORY_BYTES = 200 * 2**20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """num: photos done; seconds: from the first to the last; cpu_seconds: of all processes in that time."""

    num: int
    seconds: float
    cpu_seconds: float

    @property
    def photos_per_second(self) -> float:
        return self.num / self.seconds

    @property
    def cpu_seconds_per_photo(self) -> float:
        return self.cpu_seconds / self.num


def make_collection(photos: Path, folder: Path, num: int, num_boxes: int) -> None:
    sources = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    rng = random.Random(0)
    for index in range(num):
        suffix, format = FORMATS[index % len(FORMATS)]
        box = folder / f"box {index % num_boxes}"
        box.mkdir(parents=True, exist_ok=True)
        encoded = damaged_photo(rng.choice(sources), rng, format)
        if index % BROKEN_EVERY == BROKEN_EVERY - 1:
            encoded = encoded[: len(encoded) // rng.choice((2, 3, 50))]
        (box / f"{index:05}.{suffix}").write_bytes(encoded)


def damaged_photo(source: Path, rng: random.Random, format: str) -> bytes:
    """One in eight without a scratch."""
    with Image.open(source) as opened:
        photo = opened.convert("L" if rng.random() < 0.2 else "RGB")
    side_px = rng.choice(SIDES_PX)
    photo.thumbnail((side_px, side_px))
    draw = ImageDraw.Draw(photo)
    light = 240 if photo.mode == "L" else (245, 242, 235)
    for _ in range(rng.randrange(1, 5) if rng.random() < 0.875 else 0):
        ends = [(rng.uniform(0, photo.width), rng.uniform(0, photo.height)) for _ in range(2)]
        draw.line(ends, fill=light, width=max(1, side_px // 100))
    encoded = io.BytesIO()
    photo.save(encoded, format, quality=90)
    return encoded.getvalue()


def restore_bare(folder: Path, results: Path) -> None:
    """In a process of its own: the photos of a folder one after the other. A line for each: time, sha256, path."""
    restorer = Restorer.load_newest(STORE)[0]
    assert restorer is not None
    with results.open("w", encoding="utf-8") as lines:
        for path in sorted(folder.rglob("*.*")):
            try:
                photo = decode_photo(path.read_bytes())
                restoration = restorer.restore(photo)
                history = History(restorer.release.version, restoration.damage_ratio)
                restored = restoration.encode(photo, history=history)
            except Exception:  # a broken one
                continue
            print(time.monotonic(), hashlib.sha256(restored).hexdigest(), path.name, file=lines, flush=True)


def cpu_seconds_of(*roots: int) -> float:
    """Of these processes and all below them, those that have ended and were waited for included."""
    parents: dict[int, int] = {}
    spent: dict[int, float] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
            spent[int(entry)] = sum(map(int, fields[11:15])) / TICKS_PER_SECOND
    wanted = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return sum(spent.get(pid, 0.0) for pid in wanted)


class Way:
    """One way to restore a box: how, and which processes take part beside the command's own."""

    def __init__(self, name: str, arguments: list[str], others: Callable[[], list[int]] = list) -> None:
        self.name = name
        self.arguments = arguments
        self._others = others

    def restore(self, box: Path, destination: Path) -> Measured:
        process = self.start(box, destination)
        return self._watch(process, lambda: num_done(destination))

    def start(self, source: Path, destination: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "archive", "restore", str(source), str(destination), *self.arguments]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def _watch(self, process: subprocess.Popen[bytes], num_done: Callable[[], int]) -> Measured:
        """The end is taken when the last photo is seen, not when the process has ended."""
        first = last = (0, 0.0, 0.0)
        while process.poll() is None:
            num = num_done()
            if num > last[0]:
                last = (num, time.monotonic(), cpu_seconds_of(process.pid, *self._others()))
                first = first if first[0] else last
            time.sleep(0.1)
        assert last[0] > first[0], f"{self.name} restored nothing"
        return Measured(last[0] - first[0], last[1] - first[1], last[2] - first[2])


class Bare(Way):
    """The generator without anything around it."""

    def restore(self, box: Path, destination: Path) -> Measured:
        results = destination.with_suffix(".txt")
        results.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.collection", "--bare", str(box), str(results)]
        return self._watch(subprocess.Popen(command), lambda: len(lines_of(results)))


def lines_of(results: Path) -> list[list[str]]:
    if not results.exists():
        return []
    return [line.split() for line in results.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def num_done(destination: Path) -> int:
    return counts_of(destination).get("done", 0)


def counts_of(destination: Path) -> dict[str, int]:
    journal = destination / JOURNAL
    if not journal.exists():
        return {}
    connection = sqlite3.connect(journal, timeout=60)
    try:
        return dict(connection.execute("SELECT status, COUNT(*) FROM photos GROUP BY status"))
    except sqlite3.OperationalError:  # its tables are being made
        return {}
    finally:
        connection.close()


def digests_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
        if not path.name.startswith(".")
    }


def bare_digests_of(folder: Path) -> dict[str, str]:
    return {name: sha256 for results in folder.glob("*.txt") for _, sha256, name in lines_of(results)}


@contextmanager
def ray_nodes(*num_cpus: int) -> Iterator[Cluster]:
    """A cluster whose head runs nothing, and nodes with so many processors each."""
    head = {"num_cpus": 0, "object_store_memory": NODE_MEMORY_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for num in num_cpus:
            cluster.add_node(num_cpus=num, object_store_memory=NODE_MEMORY_BYTES)
        yield cluster
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


def processes_of(cluster: Cluster) -> list[int]:
    """Raylets have the workers below them."""
    return [
        info.process.pid
        for node in cluster.list_all_nodes()  # type: ignore[no-untyped-call]
        for started in node.all_processes.values()
        for info in started
    ]


@contextmanager
def echo_server() -> Iterator[str]:
    """Answers as the service does, with the photo as it came."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._say(b'{"release": "0001"}')

        def do_POST(self) -> None:
            self._say(self.rfile.read(int(self.headers["Content-Length"])))

        def _say(self, body: bytes) -> None:
            self.send_response(200)
            for name, value in (("Content-Length", str(len(body))), ("X-Model-Version", "0001")):
                self.send_header(name, value)
            self.send_header("X-Damage-Ratio", "0.1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not into the table."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def restore_boxes(ways: list[Way], collection: Path, work: Path, num_boxes: int) -> dict[str, list[Measured]]:
    measured: dict[str, list[Measured]] = {way.name: [] for way in ways}
    for box in sorted(collection.iterdir())[:num_boxes]:
        for way in ways:
            measured[way.name].append(way.restore(box, work / way.name / box.name))
            report(f"{box.name}, {way.name}: {measured[way.name][-1]}")
    return measured


def restore_killed(way: Way, collection: Path, destination: Path, num_photos: int) -> int:
    """Returns how many times it was killed; the last start goes on to the end."""
    moments = random.Random(int(time.time()))
    for kill in range(NUM_KILLS):
        until = num_done(destination) + moments.randrange(1, num_photos // (NUM_KILLS + 1))
        process = way.start(collection, destination)
        while num_done(destination) < until and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        if process.poll() is not None:
            return kill
        process.kill()
        process.wait()
        report(f"killed: {counts_of(destination)}")
    way.start(collection, destination).wait()
    return NUM_KILLS


def is_verified(destination: Path) -> bool:
    command = [sys.executable, "-m", "archive", "verify", str(destination)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(name: str, measured: list[Measured], bare: list[Measured]) -> str:
    rate = statistics.median(one.photos_per_second for one in measured)
    cpu = statistics.median(one.cpu_seconds_per_photo for one in measured)
    of_bare = statistics.median(m.photos_per_second / b.photos_per_second for m, b in zip(measured, bare, strict=False))
    cpu_of_bare = statistics.median(
        b.cpu_seconds_per_photo / m.cpu_seconds_per_photo for m, b in zip(measured, bare, strict=False)
    )
    return f"| {name} | {rate:.2f} | {of_bare:.2f} | {cpu:.3f} | {cpu_of_bare:.2f} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description="A collection restored by each way of `python -m archive`.")
    arguments.add_argument("photos", type=Path, nargs="?", help="folder of photographs, subfolders too")
    arguments.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments.add_argument("--num", type=int, default=2000, help="photos in the collection")
    arguments.add_argument("--boxes", type=int, default=4, help="rounds in which the ways take turns")
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="leave out the others")
    asked = arguments.parse_args()
    if asked.bare:
        restore_bare(*asked.bare)
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        collection = Path(folder) / "collection"
        make_collection(asked.photos, collection, asked.num, asked.boxes)
        measure(collection, Path(folder), asked.num, asked.boxes, set(asked.parts))


def measure(collection: Path, work: Path, num: int, num_boxes: int, parts: set[str]) -> None:
    ways: list[Way] = [Bare("bare generator", [])]
    num_kills = 0
    with ExitStack() as open_until_the_end:
        if "local" in parts:
            ways.append(Way("--local", ["--local"]))
        if parts & {"server", "killed"}:
            address, service = open_until_the_end.enter_context(running_service())
            server = Way("--server", ["--server", address], lambda: [service])
            ways += [server] if "server" in parts else []
        if "ray" in parts:
            cluster = open_until_the_end.enter_context(ray_nodes(len(os.sched_getaffinity(0))))
            ways.append(Way("--ray", ["--ray", cluster.address], lambda: processes_of(cluster)))
        measured = restore_boxes(ways, collection, work, num_boxes)
        if "killed" in parts:
            num_kills = restore_killed(server, collection, work / "killed", num)
    if "scaling" in parts:
        measured |= restore_scaled(collection, work)
    if "tool" in parts:
        with echo_server() as echo:
            measured["the tool alone"] = [Way("", ["--server", echo]).restore(collection, work / "echo")]
    show_rates(measured)
    show_bytes(work, [way.name for way in ways[1:]] + ["killed"] * ("killed" in parts), num - num // BROKEN_EVERY)
    if "killed" in parts:
        counts = counts_of(work / "killed")
        print(f"- killed {num_kills} times: {counts}, verified: {'yes' if is_verified(work / 'killed') else 'NO'}")


def show_rates(measured: dict[str, list[Measured]]) -> None:
    print("| way | photos/s | of the bare generator | processor seconds a photo | of the bare generator |")
    print("|---|---:|---:|---:|---:|")
    for name, found in measured.items():
        print(row(name, found, measured["bare generator"]))
    print()


def show_bytes(work: Path, names: list[str], num_good: int) -> None:
    reference = bare_digests_of(work / "bare generator")
    for name, found in {name: digests_of(work / name) for name in names}.items():
        same = found == reference and len(found) == num_good
        print(f"- {name}: {len(found):,} of {num_good:,} restored, the same bytes: {'yes' if same else 'NO'}")


def restore_scaled(collection: Path, work: Path) -> dict[str, list[Measured]]:
    """The first box, by one restorer of one core, and by two."""
    measured: dict[str, list[Measured]] = {}
    for num in (1, 2):
        with ray_nodes(*[1] * num) as cluster:
            way = Way(f"--ray, {num} of 1 core", ["--ray", cluster.address], partial(processes_of, cluster))
            measured |= restore_boxes([way], collection, work, 1)
    return measured


if __name__ == "__main__":
    main()
