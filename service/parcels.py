"""Values between the service and its codec workers: through anonymous shared memory, whatever their size.

    message over the socket: lengths ─┬─ of the pickle
                                      └─ of each array ...
    file descriptor beside it: the pickle, then the arrays' samples, 64-byte aligned

The memory has no name, so that nothing has to be cleaned up: it is gone with its last user, even one that was killed.
It is sealed when it is received: nobody can shrink or change it under whoever reads it. Arrays are not copied when they
are received, they are read-only views of it.

A worker may have been taken over by the photo that it decoded. What comes from there is unpickled with nothing allowed
but the classes of `restoration/` and numpy's arrays (the `pickle` documentation's "restricting globals").
"""

import errno
import fcntl
import mmap
import os
import pickle
import socket
import struct
import sys
from collections.abc import Sequence
from typing import IO, Any

ALIGNMENT_BYTES = 64
MAX_ARRAYS = 4096
MANY_BYTES = 64 * 1024
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of files, those in memory among them, that have no room to grow."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NUMPY_NAMES = frozenset({"_frombuffer", "_reconstruct", "scalar", "ndarray", "dtype"})


class BadParcel(Exception):
    """What was received is not what a worker sends."""


def send_parcel(channel: socket.socket, value: Any, shared: Sequence[bytes] = ()) -> None:
    """shared: bytes that the receiver has, too. Raises OSError where the other side is gone or memory is short."""
    with _anonymous_file() as file:
        buffers: list[pickle.PickleBuffer] = []
        _NamingPickler(file, buffers, shared).dump(value)
        lengths = [file.tell()]
        for buffer in buffers:
            file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
            with buffer.raw() as raw:
                lengths.append(file.write(raw))
        file.flush()
        socket.send_fds(channel, [struct.pack(f"<{len(lengths)}Q", *lengths)], [file.fileno()])


def receive_parcel(channel: socket.socket, shared: Sequence[bytes] | None = None) -> Any:
    """shared: given, the sender is not trusted, and these are the bytes that it may name.

    Raises EOFError when the other side is gone, TimeoutError when the channel's timeout passes, BadParcel.
    """
    message, descriptors, _, _ = socket.recv_fds(channel, 8 * (MAX_ARRAYS + 1), 1)
    if not message:
        raise EOFError("the other side is gone")
    if len(descriptors) != 1:
        raise BadParcel(f"a message with {len(descriptors)} file descriptors, 1 expected")
    with open(descriptors[0], "r+b") as file:
        arrays = _map_arrays(file, message)
        file.seek(0)  # the position is shared with whoever wrote
        if shared is None:
            return pickle.load(file, buffers=arrays)
        return _unpickle_warily(file, arrays, shared)


def large_bytes(args: Sequence[Any]) -> list[bytes]:
    """Those arguments of a call that its result names instead of holding them again."""
    return [value for value in args if isinstance(value, bytes) and len(value) >= MANY_BYTES]


def _anonymous_file() -> IO[bytes]:
    return open(os.memfd_create("parcel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")


def _map_arrays(file: IO[bytes], message: bytes) -> list[memoryview]:
    """Each array's memory. The file stays mapped for as long as one of them is in use."""
    lengths = [length for (length,) in struct.iter_unpack("<Q", message[: len(message) // 8 * 8])]
    ends, starts = lengths[:1], []
    for num_bytes in lengths[1:]:
        starts.append(ends[-1] + -ends[-1] % ALIGNMENT_BYTES)
        ends.append(starts[-1] + num_bytes)
    try:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        found_bytes = os.fstat(file.fileno()).st_size
        if [found_bytes] != ends[-1:]:
            raise BadParcel(f"{found_bytes} bytes of shared memory, but they are said to end at {ends[-1:]}")
        if not starts:
            return []
        mapped = memoryview(mmap.mmap(file.fileno(), found_bytes, access=mmap.ACCESS_READ))
    except OSError as error:
        raise BadParcel(f"its memory cannot be sealed and mapped: {error}") from error
    return [mapped[start:end] for start, end in zip(starts, ends[1:], strict=True)]


class _NamingPickler(pickle.Pickler):
    """Leaves arrays to `buffers`, and names what the receiver has."""

    def __init__(self, file: IO[bytes], buffers: list[pickle.PickleBuffer], shared: Sequence[bytes]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers.append)
        self._indices = {id(each): index for index, each in enumerate(shared)}

    def persistent_id(self, value: Any) -> int | None:
        return self._indices.get(id(value)) if isinstance(value, bytes) else None


class _WaryUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], arrays: list[memoryview], shared: Sequence[bytes]) -> None:
        super().__init__(file, buffers=arrays)
        self._shared = shared

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _NUMPY_NAMES:
            return super().find_class(module, name)
        found = getattr(sys.modules.get(module), name, None)
        is_ours = module.partition(".")[0] == "restoration" and isinstance(found, type) and found.__module__ == module
        if not is_ours:
            raise BadParcel(f"it names {module}.{name}")
        return found

    def persistent_load(self, index: int) -> bytes:
        return self._shared[index]


def _unpickle_warily(file: IO[bytes], arrays: list[memoryview], shared: Sequence[bytes]) -> Any:
    try:
        return _WaryUnpickler(file, arrays, shared).load()
    except BadParcel:
        raise
    except Exception as error:  # a pickle can be broken in any way
        raise BadParcel(f"it cannot be unpickled: {error}") from error
