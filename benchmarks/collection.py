"""`python -m benchmarks.collection PHOTOS`: a collection by each way of `python -m archive`, and runs that are killed.

Makes a collection (`benchmarks/collection_photos.py`) from the photographs below PHOTOS. Then, one after the other:

- box by box: the bare generator (decoding, restoring, encoding, one photo after the other in one process), `--local`,
  `--server` and `--ray`, so that whatever else the machine does falls on all of them alike; with `--cores`, each of
  them once for each number, held to so many cores with all its processes. A cluster has a node for each core;
- with `--killed`, a run over all boxes by that way, killed (SIGKILL) at five random moments and started again;
- with `--tool`, a run against a server that gives every photo back as it came: what the tool itself manages.

Outputs are compared with the bare generator's. A Markdown table has the rates of each box: without the first eight
photos and the last eight, so that starts do not count, and as much is in the works at the end as was at the beginning.
Beside them stands what the processor spent, which does not depend on what else runs: seconds of all processes of the
way, over photos. Ends with status 1 if anything was not as it should be. With `--work`, the same command goes on where
it was stopped, then without rates.
"""

import argparse
import hashlib
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ray.cluster_utils import Cluster

from benchmarks.collection_photos import SIDES_PX, Collection, make_collection
from benchmarks.running import running_service
from benchmarks.serving import STORE
from restoration.errors import PhotoError
from restoration.photo import History, decode_photo
from restoration.restorer import Restorer
from restoration.stores import FolderStore

JOURNAL = ".restoration-journal.sqlite3"
NUM_KILLS = 5
LOOK_SECONDS = 0.3
NUM_AT_ENDS = 8
NODE_MEMORY_BYTES = 200 * 2**20
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
ALL_CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Measured:
    """num: photos done between two looks; seconds: between them; cpu_seconds: of all processes in that time."""

    num: int
    seconds: float
    cpu_seconds: float

    @property
    def photos_per_second(self) -> float:
        return self.num / self.seconds

    @property
    def cpu_seconds_per_photo(self) -> float:
        return self.cpu_seconds / self.num


def restore_bare(folder: Path, results: Path) -> None:
    """In a process of its own: the photos of a folder one after the other. A line for each: sha256 and name."""
    restorer, _ = Restorer.load_newest(FolderStore(STORE))
    known = {name for _, name in lines_of(results)}
    with results.open("a", encoding="utf-8") as lines:
        for path in sorted(path for path in folder.rglob("*.*") if path.name not in known):
            try:
                photo = decode_photo(path.read_bytes())
            except PhotoError:  # a broken one
                continue
            restoration = restorer.restore(photo)
            history = History(restorer.release.version, restoration.damage_ratio)
            restored = restoration.encode(photo, history=history)
            print(hashlib.sha256(restored).hexdigest(), path.name, file=lines, flush=True)


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


@contextmanager
def held_to(num_cores: int) -> Iterator[None]:
    """What is started within runs on the first so many cores, and so does what that starts."""
    os.sched_setaffinity(0, ALL_CORES[:num_cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, ALL_CORES)


class Way:
    """One way to restore a box. Whatever it needs beside its command is up only while it is its turn."""

    def __init__(self, name: str, num_cores: int) -> None:
        self.name = name
        self.num_cores = num_cores
        self.title = f"{name}, {num_cores} of {len(ALL_CORES)} cores"

    @contextmanager
    def up(self) -> Iterator[tuple[list[str], list[int]]]:
        """Arguments of the command, and the processes that take part beside it."""
        yield [self.name], []

    def restore(self, box: Path, destination: Path) -> Measured | None:
        with held_to(self.num_cores), self.up() as (arguments, others):
            process = start(box, destination, arguments)
            return watch(process, others, lambda: counts_of(destination).get("done", 0))


class Bare(Way):
    """The generator without anything around it."""

    def restore(self, box: Path, destination: Path) -> Measured | None:
        results = destination.with_suffix(".txt")
        results.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.collection", "--bare", str(box), str(results)]
        with held_to(self.num_cores):
            return watch(subprocess.Popen(command), [], lambda: len(lines_of(results)))


class OverHttp(Way):
    @contextmanager
    def up(self) -> Iterator[tuple[list[str], list[int]]]:
        with running_service() as (address, service):
            yield [self.name, address], [service]


class OnRay(Way):
    """A cluster whose head runs nothing, and a node for each core."""

    @contextmanager
    def up(self) -> Iterator[tuple[list[str], list[int]]]:
        head = {"num_cpus": 0, "object_store_memory": NODE_MEMORY_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(self.num_cores):
                cluster.add_node(num_cpus=1, object_store_memory=NODE_MEMORY_BYTES)
            yield [self.name, cluster.address], processes_of(cluster)
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call]


KINDS: dict[str, type[Way]] = {"--local": Way, "--server": OverHttp, "--ray": OnRay}


def processes_of(cluster: Cluster) -> list[int]:
    """Raylets have the workers below them."""
    return [
        info.process.pid
        for node in cluster.list_all_nodes()  # type: ignore[no-untyped-call]
        for started in node.all_processes.values()
        for info in started
    ]


def start(source: Path, destination: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "archive", "restore", str(source), str(destination), *arguments]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def watch(process: subprocess.Popen[bytes], others: list[int], num_done: Callable[[], int]) -> Measured | None:
    """Until it ends. None where so little was done that there is no rate."""
    looks: list[tuple[int, float, float]] = []
    while process.poll() is None:
        num = num_done()
        if num > (looks[-1][0] if looks else 0):
            looks.append((num, time.monotonic(), cpu_seconds_of(process.pid, *others)))
        time.sleep(LOOK_SECONDS)
    middle = [look for look in looks if NUM_AT_ENDS <= look[0] <= num_done() - NUM_AT_ENDS]
    if len(middle) < 2:
        return None
    (first, *begun), (last, *ended) = middle[0], middle[-1]
    return Measured(last - first, ended[0] - begun[0], ended[1] - begun[1])


def lines_of(results: Path) -> list[list[str]]:
    if not results.exists():
        return []
    return [line.split() for line in results.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]


def ask(destination: Path, query: str) -> list[tuple[str, int]]:
    """The journal's answer, of pairs."""
    journal = destination / JOURNAL
    if not journal.exists():
        return []
    connection = sqlite3.connect(journal, timeout=60)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # its tables are being made
        return []
    finally:
        connection.close()


def counts_of(destination: Path) -> dict[str, int]:
    return dict(ask(destination, "SELECT status, COUNT(*) FROM photos GROUP BY status"))


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


def restore_killed(way: Way, collection: Collection, destination: Path) -> list[dict[str, int]]:
    """What the journal held after each kill; the last start goes on to the end."""
    moments, found = random.Random(), []
    most_between = (len(collection.good) - len(collection.good) // 10) // NUM_KILLS
    with way.up() as (arguments, _):
        for _ in range(NUM_KILLS):
            until = counts_of(destination).get("done", 0) + moments.randrange(1, most_between)
            process = start(collection.folder, destination, arguments)
            while counts_of(destination).get("done", 0) < until and process.poll() is None:
                time.sleep(0.02)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            process.wait()
            found.append(counts_of(destination))
            say(f"{way.title} killed: {found[-1]}")
        start(collection.folder, destination, arguments).wait()
    return found


def find_faults(collection: Collection, reference: dict[str, str], destinations: Sequence[Path]) -> list[str]:
    """What is not as it should be in the outputs and journals of a way: nothing."""
    written = [path for folder in destinations for path in folder.rglob("*") if path.is_file()]
    outputs = {path.name: sha256_of(path) for path in written if path.name in collection.good | collection.broken}
    beside = {path.name for path in written} - set(outputs)
    failed = [name for folder in destinations for name, _ in ask(folder, FAILED)]
    checks = {
        "other bytes than the bare generator's": outputs == reference,
        "not every good photo": outputs.keys() == collection.good,
        "others failed than the broken ones": sorted(Path(name).name for name in failed) == sorted(collection.broken),
        f"files beside: {sorted(beside)}": all(name.startswith(JOURNAL) for name in beside),
        "the journal has other checksums": all(map(is_verified, destinations)),
    }
    return [fault for fault, is_right in checks.items() if not is_right]


FAILED = "SELECT path, 0 FROM photos WHERE status = 'failed'"


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_verified(destination: Path) -> bool:
    command = [sys.executable, "-m", "archive", "verify", str(destination)]
    return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tell_faults(title: str, collection: Collection, faults: list[str]) -> bool:
    """Returns whether there are any."""
    right = f"{len(collection.good):,} restored to the same bytes, the {len(collection.broken)} broken ones listed"
    print(f"- {title}: {'; '.join(faults) or f'{right}, verified'}", flush=True)
    return bool(faults)


def show_rates(measured: dict[Way, list[Measured]], bare: dict[int, list[Measured]]) -> None:
    """bare: by number of cores."""
    print("| way | photos/s | of the bare generator | processor seconds a photo | of the bare generator |")
    print("|---|---:|---:|---:|---:|")
    for way, found in measured.items():
        pairs = list(zip(found, bare[way.num_cores], strict=True))
        columns = (
            f"{statistics.median(one.photos_per_second for one in found):.2f}",
            spread([one.photos_per_second / other.photos_per_second for one, other in pairs]),
            f"{statistics.median(one.cpu_seconds_per_photo for one in found):.3f}",
            spread([one.cpu_seconds_per_photo / other.cpu_seconds_per_photo for one, other in pairs]),
        )
        print(f"| {way.title} | {' | '.join(columns)} |")
    print(flush=True)


def spread(ratios: list[float]) -> str:
    """Median, and from the least to the most."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main() -> int:
    arguments = argparse.ArgumentParser(description="A collection restored by each way of `python -m archive`.")
    arguments.add_argument("photos", type=Path, nargs="?", help="folder of photographs, subfolders too")
    arguments.add_argument("--bare", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments.add_argument("--num", type=int, default=2000, help="photos in the collection")
    arguments.add_argument("--boxes", type=int, default=4, help="rounds in which the ways take turns")
    arguments.add_argument("--ways", nargs="*", choices=[name[2:] for name in KINDS], default=[n[2:] for n in KINDS])
    arguments.add_argument("--cores", type=int, nargs="+", default=[len(ALL_CORES)])
    arguments.add_argument("--sides-px", type=int, nargs="+", default=SIDES_PX, help="the longer ones")
    arguments.add_argument("--small", action="store_true", help="without the photos of 1 to 4 megapixels")
    arguments.add_argument("--killed", nargs="*", choices=[name[2:] for name in KINDS], default=(), help="ways")
    arguments.add_argument("--work", type=Path, help="folder that is kept, to go on")
    arguments.add_argument("--tool", action="store_true", help="what the tool manages without restoring")
    asked = arguments.parse_args()
    if asked.bare:
        restore_bare(*asked.bare)
        return 0
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        return run(asked, asked.work or Path(folder))


def run(asked: argparse.Namespace, work: Path) -> int:
    collection = make_collection(
        asked.photos,
        work / "collection",
        asked.num,
        asked.boxes,
        sides_px=asked.sides_px,
        with_large=not asked.small,
    )
    bares = [Bare("bare generator", num_cores) for num_cores in asked.cores]
    ways = [KINDS[f"--{name}"](f"--{name}", num_cores) for name in asked.ways for num_cores in asked.cores]
    rates = measure(collection, [*bares, *ways], work)
    if rates is not None:
        show_rates(rates, {bare.num_cores: rates[bare] for bare in bares})
    reference = {name: sha256 for each in (work / bares[0].title).glob("*.txt") for sha256, name in lines_of(each)}
    is_wrong = False
    for way in ways:
        folders = [work / way.title / box.name for box in collection.boxes]
        is_wrong |= tell_faults(way.title, collection, find_faults(collection, reference, folders))
    for name in asked.killed:
        way = KINDS[f"--{name}"](f"--{name}", max(asked.cores))
        destination = work / "killed" / way.title
        held = ", ".join(f"{counts.get('done', 0):,}" for counts in restore_killed(way, collection, destination))
        title = f"{way.title}, killed with {held} photos done"
        is_wrong |= tell_faults(title, collection, find_faults(collection, reference, [destination]))
    if asked.tool:
        tell_tool(collection, work / "echo")
    return int(is_wrong)


def measure(collection: Collection, ways: list[Way], work: Path) -> dict[Way, list[Measured]] | None:
    """In turns, box by box. None if part of it was done before."""
    measured: dict[Way, list[Measured]] = {way: [] for way in ways}
    is_whole = True
    for box in collection.boxes:
        for way in ways:
            found = way.restore(box, work / way.title / box.name)
            say(f"{box.name}, {way.title}: {found}")
            if found is None:
                is_whole = False
            else:
                measured[way].append(found)
    return measured if is_whole else None


def tell_tool(collection: Collection, destination: Path) -> None:
    with echo_server() as echo:
        process = start(collection.folder, destination, ["--server", echo])
        found = watch(process, [], lambda: counts_of(destination).get("done", 0))
    if found is not None:
        print(f"- the tool alone: {found.photos_per_second:.0f} photos/s, {found.cpu_seconds_per_photo:.4f} s a photo")


if __name__ == "__main__":
    sys.exit(main())
