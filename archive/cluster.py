"""On a Ray cluster: a restorer on every device of it, and each photo to the one that has the fewest.

    run's threads ── photo ──► the least busy restorer that is up ── restored ──► the same thread writes it

Needs ray here, and this software on every node. Imported when asked for.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from archive.answers import Restored
from archive.errors import CollectionError, PhotoFailed, RunStopped
from archive.ways import Options
from restoration.release import Release

MOST_LOSSES = 3
"""So many restorers may be lost with one photo in the works; then it is taken for the reason."""
LOOK_SECONDS = 0.5
ANSWER_SECONDS = 2.0
SILENCE_SECONDS = 60.0
"""A restorer that has had a photo for so long is asked whether it is there, and has as long again to say so: Ray may
not notice that a node is gone, and would let the photo wait for ever."""
LOOK = "look"
"""What answers that, however many photos are in the works."""
NUM_WAITING = 2
"""Photos that wait at each restorer, so that it need not wait for the next one to be read and sent."""


@dataclass(frozen=True)
class Devices:
    """num: how many restorers; num_gpus, num_cpus: of each."""

    num: int
    num_gpus: int
    num_cpus: int


@dataclass(frozen=True)
class Identity:
    """Of a release: two stores may each have a 0004 of their own."""

    version: str
    manifest_sha256: str


@dataclass(frozen=True)
class Refusal:
    """A PhotoFailed on its way from a node."""

    reason: str
    detail: str


class OnNode:
    """What holds a device of the cluster, in a process of its own, which ends when the device fails: Ray starts
    another."""

    def __init__(self, store: str, options: Options, release: Identity, device: str, num_at_once: int) -> None:
        from archive.local import OnThisDevice  # brings torch along, which the machine with the journal does not need

        self._way = OnThisDevice(store, options, release=release.version, device=device, num_at_once=num_at_once)
        found = identity_of(self._way.loaded)
        if found != release:
            raise CollectionError(f"the store {store} of this node has another release {release.version}: {found}")

    def is_up(self) -> bool:
        return True

    def restore(self, photo: bytes) -> Restored | Refusal:
        try:
            return self._way.restore(photo)
        except PhotoFailed as error:
            return Refusal(error.reason, error.detail)
        except RunStopped as error:  # the device is lost to this process, and another may have it again
            print(error, file=sys.stderr, flush=True)
            os._exit(1)


@dataclass
class Member:
    """A restorer of the fleet. is_up: False while it is being started again somewhere; is_gone: it never will be, as
    when its node has no such release; reason: the last that was heard of it."""

    actor: Any
    num_in_flight: int = 0
    is_up: bool = True
    is_gone: bool = False
    reason: str = ""


@dataclass
class Fleet:
    """The restorers; for any number of threads."""

    members: list[Member]
    patience_seconds: float
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _watches: list[threading.Thread] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def choose(self) -> Iterator[Any]:
        """The least busy restorer, waited for while all are away. A RayError raised within says that it is lost, and
        it is not chosen until it is up again. Raises RunStopped when patience ends."""
        member = self._take()
        try:
            yield member.actor
        except RayTaskError:  # raised by the restoring itself: the restorer is well
            raise
        except RayError:
            self._watch(member)
            raise
        finally:
            with self._changed:
                member.num_in_flight -= 1

    def _take(self) -> Member:
        with self._changed:
            self._changed.wait_for(lambda: self._members_up() or self._all_are_gone(), self.patience_seconds)
            if not self._members_up():
                reasons = "; ".join(sorted({member.reason for member in self.members}))
                raise RunStopped(f"no restorer of the cluster is up: {reasons}; mend it (ray status), run this again")
            member = min(self._members_up(), key=lambda one: one.num_in_flight)
            member.num_in_flight += 1
            return member

    def _members_up(self) -> list[Member]:
        return [member for member in self.members if member.is_up]

    def _all_are_gone(self) -> bool:
        return all(member.is_gone for member in self.members)

    def _watch(self, member: Member) -> None:
        with self._changed:
            if member.is_up:
                member.is_up = False
                watch = threading.Thread(target=self._await_return, args=(member,), name="watch", daemon=True)
                self._watches.append(watch)
                watch.start()

    def _await_return(self, member: Member) -> None:
        """Ray starts it again, on this node or another one, as soon as there is room."""
        while not self._is_over.wait(LOOK_SECONDS):
            try:
                expect_answer(member.actor, ANSWER_SECONDS)
                member.is_up = True
            except RayError as error:
                member.reason = _last_line(error)
                member.is_gone = isinstance(error, ActorDiedError)
            if member.is_up or member.is_gone:
                break
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Before the connection ends: a question after that would start a Ray of its own."""
        self._is_over.set()
        for watch in self._watches:
            watch.join()


class OnCluster:
    """A release on every device of a Ray cluster."""

    def __init__(
        self,
        address: str,
        store: str,
        options: Options,
        *,
        release: str | None = None,
        device: str = "auto",
        num_at_once: int | None = None,
        patience_seconds: float = 600.0,
    ) -> None:
        """address: as `ray.init` takes it; store: where every node finds the releases; release: None for the newest
        that works; num_at_once: None for two a core, as on one machine, and some to wait.

        Raises CollectionError if there is no cluster, or no release that can be loaded.
        """
        _connect(address)
        try:
            devices = plan_devices(ray.nodes())  # type: ignore[no-untyped-call]
            identity = _find_release(store, options, release)
        except CollectionError:
            ray.shutdown()
            raise
        per_restorer = ceil(num_at_once / devices.num) if num_at_once else 2 * devices.num_cpus
        self.release = identity.version
        self.num_at_once = num_at_once or devices.num * (per_restorer + NUM_WAITING)
        with_look = ray.remote(concurrency_groups={LOOK: 1})  # type: ignore[call-overload]
        start = with_look(OnNode).options(
            num_cpus=devices.num_cpus,
            num_gpus=devices.num_gpus,
            max_concurrency=per_restorer,
            max_restarts=-1,
            scheduling_strategy="SPREAD",
        )
        actors = [start.remote(store, options, identity, device, per_restorer) for _ in range(devices.num)]
        self._fleet = Fleet([Member(actor) for actor in actors], patience_seconds)
        self._one_suspect = threading.Lock()

    def restore(self, photo: bytes) -> Restored:
        """A photo whose restorer was lost is a suspect: it is tried again, one suspect at a time, so that the one that
        takes restorers down does not drag the others along."""
        for try_once in (self._restore_once, *[self._restore_suspect] * (MOST_LOSSES - 1)):
            try:
                return _expect_restored(try_once(photo))
            except RayTaskError:
                raise
            except RayError as error:
                lost = error
        raise PhotoFailed("restorer-lost", f"{MOST_LOSSES} restorers were lost while they had it: {_first_line(lost)}")

    def _restore_suspect(self, photo: bytes) -> Restored | Refusal:
        with self._one_suspect:
            return self._restore_once(photo)

    def _restore_once(self, photo: bytes) -> Restored | Refusal:
        with self._fleet.choose() as actor:
            asked = actor.restore.remote(photo)
            while not ray.wait([asked], timeout=SILENCE_SECONDS)[0]:
                expect_answer(actor, SILENCE_SECONDS)
            answer: Restored | Refusal = ray.get(asked)
            return answer

    def close(self) -> None:
        """The restorers end with the connection."""
        self._fleet.close()
        ray.shutdown()


def expect_answer(actor: Any, timeout_seconds: float) -> None:
    """Raises RayError if the restorer does not say that it is up."""
    ray.get(actor.is_up.options(concurrency_group=LOOK).remote(), timeout=timeout_seconds)


def plan_devices(nodes: list[dict[str, Any]]) -> Devices:
    """nodes: as `ray.nodes` lists them. A restorer for each GPU; where there is none in the whole cluster, one for each
    node with processors. All are alike: what is left over on larger nodes is filled with more of them.

    Raises CollectionError for a cluster with neither.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU")]
    with_gpus = [one for one in resources if one.get("GPU", 0) >= 1]
    if with_gpus:
        num_cpus = max(1, int(min(one["CPU"] // one["GPU"] for one in with_gpus)))
        return Devices(int(sum(one["GPU"] for one in with_gpus)), 1, num_cpus)
    if not resources:
        raise CollectionError("the cluster has no node with processors; start one with `ray start --address ...`")
    num_cpus = int(min(one["CPU"] for one in resources))
    return Devices(int(sum(one["CPU"] // num_cpus for one in resources)), 0, num_cpus)


def identity_of(release: Release) -> Identity:
    return Identity(release.version, release.manifest_sha256)


def load_identity(store: str, options: Options, release: str | None) -> Identity | str:
    """On a node: of that release, or of the newest that works; or why there is none."""
    from archive.local import OnThisDevice

    try:
        return identity_of(OnThisDevice(store, options, release=release, device="cpu").loaded)
    except CollectionError as error:
        return str(error)


def _find_release(store: str, options: Options, release: str | None) -> Identity:
    found = _ask(lambda: ray.get(ray.remote(load_identity).remote(store, options, release)))
    if isinstance(found, str):
        raise CollectionError(f"on the cluster: {found}")
    identity: Identity = found
    return identity


def _connect(address: str) -> None:
    _ask(lambda: ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR))


def _ask(call: Callable[[], Any]) -> Any:
    """Raises CollectionError for whatever Ray has to say: nothing was begun yet."""
    try:
        return call()
    except (RayError, ConnectionError, ValueError, RuntimeError) as error:
        raise CollectionError(f"the Ray cluster does not answer as hoped: {_first_line(error)}") from error


def _expect_restored(answer: Restored | Refusal) -> Restored:
    if isinstance(answer, Refusal):
        raise PhotoFailed(answer.reason, answer.detail)
    return answer


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _last_line(error: Exception) -> str:
    """Where the message of what was raised on the node is, below its stack."""
    return (str(error) or type(error).__name__).strip().splitlines()[-1]
