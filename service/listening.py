"""The sockets that the service listens on. They are had before anything is loaded, so that a port that is taken is told
of at once; uvicorn by itself would start everything first, and bury it in the log."""

import errno
import resource
import socket
from typing import Any

from restoration.errors import InvalidOption
from service.settings import ENV_PREFIX

MAX_DESCRIPTORS = 65_536
_OF_THE_HOST = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def listen(host: str, port: int) -> list[socket.socket]:
    """On every address that `host` names and this machine has. Raises InvalidOption, which names the setting."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"{ENV_PREFIX}HOST={host}: no such address ({error}); name one of this machine") from error
    sockets, missing = [], None
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            sockets.append(_listen_at(family, address))
        except OSError as error:
            if error.errno not in _OF_THE_HOST:  # localhost may be an IPv6 address, too, which not every machine has
                _close(sockets)
                raise InvalidOption(
                    f"{ENV_PREFIX}PORT={port}: cannot listen at {host} ({error.strerror}); stop what has the port, or "
                    "take another"
                ) from error
            missing = error
    if not sockets:
        raise InvalidOption(
            f"{ENV_PREFIX}HOST={host}: cannot listen there ({missing and missing.strerror}); name an address of this "
            "machine"
        ) from missing
    return sockets


def _listen_at(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is only waiting to end has not the port
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own
        listener.bind(address)
        listener.listen()  # or another service that is starting, too, would get as far
    except OSError:
        listener.close()
        raise
    return listener


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def allow_connections() -> None:
    """A connection takes a descriptor, and by default a process may have 1,024 of them, but ask for many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
