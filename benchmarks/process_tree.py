"""Memory of a process and its children, as the kernel would count it for a container that holds nothing else."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_SECONDS = 0.2
MIB = 2**20
PROC = Path("/proc")


def tree_of(pid: int) -> list[int]:
    """The process and its children, and theirs."""
    try:
        listed = [path.read_text(encoding="ascii").split() for path in PROC.glob(f"{pid}/task/*/children")]
    except OSError:  # a thread that ended meanwhile
        return [pid]
    return [pid, *(each for children in listed for child in children for each in tree_of(int(child)))]


def tree_bytes(pid: int) -> int:
    """What the processes hold together: pages that several of them map are counted once, and shared memory in full,
    whether it is mapped or waits in a descriptor."""
    pids = tree_of(pid)
    shared: dict[int, int] = {}
    for each in pids:
        shared |= shared_bytes(each)
    return sum(map(private_bytes, pids)) + sum(shared.values())


def anonymous_bytes(pid: int) -> int:
    """What the processes have allocated for themselves. Unlike `tree_bytes` it has no part in libraries, of which a
    process is counted less while others on the machine use them, too."""
    return 1024 * sum(proportional_kib(each).get("Pss_Anon", 0) for each in tree_of(pid))


def private_bytes(pid: int) -> int:
    """Proportional set size less shared memory."""
    kib = proportional_kib(pid)
    return 1024 * (kib.get("Pss_Anon", 0) + kib.get("Pss_File", 0))


def proportional_kib(pid: int) -> dict[str, int]:
    """As the kernel sums it up; empty for a process that has just ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    return {name.rstrip(":"): int(rest[0]) for name, *rest in map(str.split, lines[1:])}


def shared_bytes(pid: int) -> dict[int, int]:
    """Bytes of each anonymous file that the process has mapped or open, by inode."""
    found: dict[int, int] = {}
    try:
        for line in (PROC / str(pid) / "maps").read_text(encoding="utf-8").splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith("/memfd:"):
                start, end = (int(address, 16) for address in fields[0].split("-"))
                found[int(fields[4])] = end - start
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            found |= open_bytes(descriptor)
    except OSError:
        pass
    return found


def open_bytes(descriptor: Path) -> dict[int, int]:
    try:
        if not os.readlink(descriptor).startswith("/memfd:"):
            return {}
        status = descriptor.stat()
    except OSError:  # it was closed
        return {}
    return {status.st_ino: status.st_blocks * 512}


class MemoryWatch:
    """The most that a process tree has held since the watch began, sampled five times a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0
        self.history: list[tuple[float, int]] = []
        """(seconds since the start, bytes)."""
        self._is_over = threading.Event()

    @classmethod
    @contextmanager
    def over(cls, pid: int) -> Iterator["MemoryWatch"]:
        watch = cls(pid)
        thread = threading.Thread(target=watch._keep_looking)
        thread.start()
        try:
            yield watch
        finally:
            watch._is_over.set()
            thread.join()

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / MIB

    def _keep_looking(self) -> None:
        started_seconds = time.monotonic()
        while not self._is_over.wait(SAMPLE_SECONDS):
            held_bytes = tree_bytes(self._pid)
            self.peak_bytes = max(self.peak_bytes, held_bytes)
            self.history.append((time.monotonic() - started_seconds, held_bytes))
