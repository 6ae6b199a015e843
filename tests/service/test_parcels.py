"""What goes to a codec worker and comes back: whole, uncopied, and with nothing that could be run."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from restoration.photo import decode_photo
from service.parcels import (
    MAX_ARRAYS,
    MAX_DESCRIPTORS,
    BadParcel,
    TooManyArrays,
    receive_parcel,
    send_parcel,
    share_array,
)

from .serving import encode, grey_photo

Channel = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Iterator[Channel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


class Evil:
    def __reduce__(self) -> object:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("options", [{"format": "PNG"}, {"format": "JPEG"}, {"format": "TIFF"}, {"format": "WEBP"}])
def test_a_photo_crosses_whole_and_its_own_file_is_named_not_sent(channel: Channel, options: dict[str, str]) -> None:
    photo = decode_photo(encode(grey_photo(300, 400), **options))
    send_parcel(channel[0], photo, shared=[photo.encoded])
    received = receive_parcel(channel[1], shared=[photo.encoded])
    assert received.encoded is photo.encoded
    assert (received.format, received.metadata, received.traits) == (photo.format, photo.metadata, photo.traits)
    assert np.array_equal(received.samples, photo.samples)


def test_arrays_of_all_kinds_keep_shape_order_and_type(channel: Channel) -> None:
    samples = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    arrays = {"c": samples, "fortran": np.asfortranarray(samples), "strided": samples[:, ::2], "none": samples[:0]}
    send_parcel(channel[0], arrays)
    received = receive_parcel(channel[1], shared=())
    assert all(np.array_equal(received[name], array) for name, array in arrays.items())
    assert {array.dtype for array in received.values()} == {np.dtype(np.uint16)}


def test_received_samples_are_shared_not_copied_and_cannot_be_changed(channel: Channel) -> None:
    send_parcel(channel[0], np.zeros((1000, 1000), np.uint8))
    received = receive_parcel(channel[1], shared=())
    assert not received.flags.writeable
    assert shared_mappings() == 1
    del received
    assert shared_mappings() == 0


def shared_mappings() -> int:
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("/memfd:parcel")


@pytest.mark.parametrize("value", [Evil(), [Evil()], os.system, Path, eval, exec])
def test_what_could_be_run_is_refused(channel: Channel, value: object) -> None:
    send_parcel(channel[0], value)
    with pytest.raises(BadParcel, match="it names"):
        receive_parcel(channel[1], shared=())


def test_memory_that_could_shrink_under_the_reader_is_refused(channel: Channel, tmp_path: Path) -> None:
    with (tmp_path / "plain").open("w+b") as file:
        file.write(b"N.")
        file.flush()
        socket.send_fds(channel[0], [struct.pack("<Q", 2)], [file.fileno()])
        with pytest.raises(BadParcel, match="sealed"):
            receive_parcel(channel[1], shared=())


@pytest.mark.parametrize("message", [struct.pack("<Q", 1), struct.pack("<QQ", 1 << 40, 1 << 50), b"odd"])
def test_lengths_that_lie_are_refused(channel: Channel, message: bytes) -> None:
    descriptor = os.memfd_create("lies", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"N." * 100)
    socket.send_fds(channel[0], [message], [descriptor])
    os.close(descriptor)
    with pytest.raises(BadParcel, match="said to end"):
        receive_parcel(channel[1], shared=())


def test_a_message_without_memory_is_refused(channel: Channel) -> None:
    channel[0].send(struct.pack("<Q", 1))
    with pytest.raises(BadParcel, match="0 file descriptors"):
        receive_parcel(channel[1], shared=())


def test_garbage_for_a_pickle_is_refused(channel: Channel) -> None:
    descriptor = os.memfd_create("garbage", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"\x80\x05garbage")
    socket.send_fds(channel[0], [struct.pack("<Q", 9)], [descriptor])
    os.close(descriptor)
    with pytest.raises(BadParcel, match="cannot be unpickled"):
        receive_parcel(channel[1], shared=())


def test_arrays_that_are_shared_already_go_on_uncopied(channel: Channel) -> None:
    send_parcel(channel[0], {"first": np.arange(50_000, dtype=np.uint16).reshape(100, 500), "second": np.ones(9)})
    received = receive_parcel(channel[1], shared=())
    arrays = [*received.values(), received["first"][20:40], share_array(np.full((100, 100, 3), 7, np.uint8))]
    files = shared_files()
    send_parcel(channel[0], arrays)
    passed_on = receive_parcel(channel[1])
    assert len(files) == 2
    assert shared_files() == files
    assert all(np.array_equal(before, after) for before, after in zip(arrays, passed_on, strict=True))
    assert share_array(arrays[3]) is arrays[3]
    del received, arrays
    assert shared_files() == files
    del passed_on
    assert shared_files() == set()


def shared_files() -> set[str]:
    """The inodes of what is mapped."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return {line.split()[4] for line in lines if "/memfd:parcel" in line}


def test_more_arrays_than_descriptors_can_be_sent_are_copied(channel: Channel) -> None:
    arrays = [share_array(np.full(3, index)) for index in range(MAX_DESCRIPTORS + 3)]
    send_parcel(channel[0], arrays)
    assert [array[0] for array in receive_parcel(channel[1])] == list(range(MAX_DESCRIPTORS + 3))


def test_as_many_arrays_cross_as_a_message_holds_and_one_more_is_said_to_be_too_many(channel: Channel) -> None:
    arrays = [np.full(1, index) for index in range(MAX_ARRAYS)]
    send_parcel(channel[0], arrays)
    assert [array[0] for array in receive_parcel(channel[1], shared=())] == list(range(MAX_ARRAYS))
    with pytest.raises(TooManyArrays, match="4,097 arrays, but a message holds 4,096"):
        send_parcel(channel[0], [*arrays, np.zeros(1)])
