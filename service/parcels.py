"""Values between the service and its codec workers: through anonymous shared memory, whatever their size.

    message over the socket: lengths ─┬─ of the pickle
                                      └─ of each array ...
    file descriptor beside it: the pickle, then the arrays' samples, 64-byte aligned
    further file descriptors: memory that arrays lie in already, because they came in a parcel or by `share_array`

A photo's samples come from one worker and go to the next as they are: they are never copied. The memory has no name, so
that nothing has to be cleaned up: it is gone with its last user, even one that was killed. It is sealed when it is
received: nobody can shrink or change it under whoever reads it. Arrays are not copied when they are received, they are
read-only views of it.

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
from contextlib import ExitStack
from typing import IO, Any

import numpy as np

ALIGNMENT_BYTES = 64
MAX_ARRAYS = 4096
"""In one message; of a photo's pages each is one."""
MANY_BYTES = 64 * 1024
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""Errors of files, those in memory among them, that have no room to grow."""
MAX_DESCRIPTORS = 64
"""With one message; arrays beyond it are copied."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NUMPY_NAMES = frozenset({"_frombuffer", "_reconstruct", "scalar", "ndarray", "dtype"})


class BadParcel(Exception):
    """What was received is not what a worker sends."""


class TooManyArrays(Exception):
    """A value that no message can hold: nothing was sent."""


class SharedMemory(mmap.mmap):
    """A file without a name, mapped to be read; open for as long as an array lies in it."""

    descriptor = -1

    @classmethod
    def of(cls, descriptor: int) -> "SharedMemory":
        """The descriptor stays the caller's. Raises OSError."""
        mapped = cls(descriptor, os.fstat(descriptor).st_size, access=mmap.ACCESS_READ)
        mapped.descriptor = os.dup(descriptor)
        return mapped

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def offset_of(self, array: np.ndarray) -> int:
        return array.ctypes.data - np.frombuffer(self, np.uint8).ctypes.data


def memory_of(array: np.ndarray) -> SharedMemory | None:
    """The memory that the whole of an array lies in, if it is shared."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    memory = owner.obj if isinstance(owner, memoryview) else owner
    return memory if isinstance(memory, SharedMemory) and array.flags.c_contiguous and array.size else None


def share_array(array: np.ndarray) -> np.ndarray:
    """The same array, read-only, where other processes can be given it without a copy. Raises OSError."""
    if memory_of(array) is not None or not array.size:
        return array
    with _anonymous_file() as file:
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
        return np.frombuffer(SharedMemory.of(file.fileno()), array.dtype).reshape(array.shape)


def send_parcel(channel: socket.socket, value: Any, shared: Sequence[bytes] = ()) -> None:
    """shared: bytes that the receiver has, too.

    Raises TooManyArrays, and OSError where the other side is gone or memory is short.
    """
    with _anonymous_file() as file:
        buffers: list[pickle.PickleBuffer] = []
        pickler = _NamingPickler(file, buffers, shared)
        pickler.dump(value)
        if len(buffers) > MAX_ARRAYS:
            raise TooManyArrays(f"{len(buffers):,} arrays, but a message holds {MAX_ARRAYS:,}")
        lengths = [file.tell()]
        for buffer in buffers:
            file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
            with buffer.raw() as raw:
                lengths.append(file.write(raw))
        file.flush()
        descriptors = [file.fileno(), *(memory.descriptor for memory in pickler.memories)]
        socket.send_fds(channel, [struct.pack(f"<{len(lengths)}Q", *lengths)], descriptors)


def receive_parcel(channel: socket.socket, shared: Sequence[bytes] | None = None) -> Any:
    """shared: given, the sender is not trusted, and these are the bytes that it may name.

    Raises EOFError when the other side is gone, TimeoutError when the channel's timeout passes, BadParcel.
    """
    max_descriptors = MAX_DESCRIPTORS if shared is None else 1
    message, descriptors, _, _ = socket.recv_fds(channel, 8 * (MAX_ARRAYS + 1), max_descriptors)
    if not message:
        raise EOFError("the other side is gone")
    with ExitStack() as opened:
        files = [opened.enter_context(open(descriptor, "r+b")) for descriptor in descriptors]
        if not 1 <= len(files) <= max_descriptors:
            raise BadParcel(f"a message with {len(files)} file descriptors, 1 to {max_descriptors} expected")
        arrays = _map_arrays(files[0], message)
        files[0].seek(0)  # the position is shared with whoever wrote
        if shared is None:
            memories = [SharedMemory.of(file.fileno()) for file in files[1:]]
            return _TrustingUnpickler(files[0], arrays, memories).load()
        return _unpickle_warily(files[0], arrays, shared)


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
        mapped = memoryview(SharedMemory.of(file.fileno()))
    except OSError as error:
        raise BadParcel(f"its memory cannot be sealed and mapped: {error}") from error
    return [mapped[start:end] for start, end in zip(starts, ends[1:], strict=True)]


class _NamingPickler(pickle.Pickler):
    """Leaves arrays to `buffers`, and names what the receiver has, or is given in `memories`."""

    def __init__(self, file: IO[bytes], buffers: list[pickle.PickleBuffer], shared: Sequence[bytes]) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffers.append)
        self._indices = {id(each): index for index, each in enumerate(shared)}
        self.memories: list[SharedMemory] = []

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return self._indices.get(id(value))
        if isinstance(value, np.ndarray) and (memory := memory_of(value)) is not None:
            return self._place_of(value, memory)
        return None

    def _place_of(self, array: np.ndarray, memory: SharedMemory) -> tuple[int, int, str, tuple[int, ...]] | None:
        """What `_TrustingUnpickler` makes the array of."""
        found = [index for index, each in enumerate(self.memories) if each is memory]
        if not found and len(self.memories) + 1 == MAX_DESCRIPTORS:
            return None
        if not found:
            self.memories.append(memory)
        index = found[0] if found else len(self.memories) - 1
        return index, memory.offset_of(array), array.dtype.str, array.shape


class _TrustingUnpickler(pickle.Unpickler):
    """What the service sends to a worker."""

    def __init__(self, file: IO[bytes], arrays: list[memoryview], memories: Sequence[SharedMemory]) -> None:
        super().__init__(file, buffers=arrays)
        self._memories = memories

    def persistent_load(self, place: tuple[int, int, str, tuple[int, ...]]) -> np.ndarray:
        index, offset, dtype, shape = place
        return np.ndarray(shape, dtype, buffer=self._memories[index], offset=offset)


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
