"""Which release is served, and why others are not."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog
import torch

from restoration.errors import NoRelease, ReleaseError, RestorationError, StoreUnreachable
from restoration.freed_memory import give_back_freed_memory
from restoration.remote_store import Fingerprint
from restoration.restorer import Restorer
from restoration.stores import Store, open_store
from service.errors import NotReady, ReleasePinned, ReleaseRefused, WrongRelease
from service.metrics import Metrics
from service.settings import Settings
from service.threads import call_in

STOP_TIMEOUT_SECONDS = 15.0
"""With the default grace, less than the 60 seconds that systemd, Compose and Kubernetes are told to wait."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Refusal:
    """Of a release as it was then."""

    fingerprint: Fingerprint
    reason: str
    is_lasting: bool


class Releases:
    """Serves the newest release that passes its checks, and looks every few seconds whether there is a newer one.

    A newer one is loaded, warmed up and self-tested in a thread of its own while the other goes on serving, and then
    takes its place: requests in flight finish with the one they began with. `active` and `reason` are replaced as
    wholes, by that thread, and read by the event loop.

    An administrator may activate another one. That decides among the releases that are there: none of those takes its
    place any more, one that is published later does.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        num_threads: int,
        device_failed: Callable[[torch.AcceleratorError], None],
    ) -> None:
        """num_threads: how many of the device's compute with a release at once. device_failed: told when a release
        meets a device that no longer works."""
        self._settings = settings
        self._metrics = metrics
        self._device_failed = device_failed
        self._num_threads = num_threads
        self._store = open_store_of(settings)
        self._loader = ThreadPoolExecutor(1, "loader")
        self._refusals: dict[str, Refusal] = {}
        self._passed_over = -1  # the newest number that was there when an administrator chose
        self.is_stuck = False  # the loader, after `close`
        self.refused: dict[str, str] = {}
        self.active: Restorer | None = None
        self.reason = "the newest release is being loaded"
        self.store_problem: str | None = None

    def restorer(self, version: str | None = None) -> Restorer:
        """The active release's. Raises NotReady, and WrongRelease when `version` is another one."""
        if (active := self.active) is None:
            raise NotReady(self.reason, retry_after_seconds=max(1, round(self._settings.store_poll_seconds)))
        if version not in (None, active.release.version):
            raise WrongRelease(str(version), active.release.version)
        return active

    def present(self) -> list[str]:
        """Versions in the store, newest last. Raises NotReady if it cannot be read."""
        try:
            return self._store.versions()
        except StoreUnreachable as error:
            raise NotReady(str(error)) from error

    def known(self) -> list[str]:
        """Versions that are served or were refused, newest last: what can be said while the store cannot be read."""
        active = [self.active.release.version] if self.active else []
        return sorted({*active, *self.refused}, key=int)

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await call_in(self._loader, self.load_newest)
            except Exception:  # the watch must outlive whatever a look at the store raises
                log.exception("the model store could not be looked at")
            await asyncio.sleep(self._settings.store_poll_seconds)

    async def activate(self, version: str) -> None:
        """Serve this release, older or newer than the active one, which stays if that fails.

        Raises NotReady, NoRelease, ReleasePinned and ReleaseRefused.
        """
        await call_in(self._loader, self._activate_chosen, version)

    def is_passed_over(self, version: str) -> bool:
        """Whether an administrator chose an older one."""
        return self.active is not None and int(self.active.release.version) < int(version) <= self._passed_over

    def close(self) -> None:
        """Wait for a load that has begun, but not for ever: the disk or network that it reads may answer no more."""
        when_idle = self._loader.submit(int)
        self._loader.shutdown(wait=False)
        wait([when_idle], timeout=STOP_TIMEOUT_SECONDS)
        self.is_stuck = not when_idle.done()

    def load_newest(self) -> None:
        """Make the newest release active that loads, if it is newer than the active one; note why others did not."""
        self._look_at_store()
        try:
            candidates = self._candidates()
        except NotReady as error:
            self._give_reason(str(error))
            return
        is_loaded = any(self._try_to_load(version) for version in reversed(candidates))
        if not is_loaded and self.active is None:
            self._give_reason(self._why_none(candidates))
        wanted = {version for version in candidates if int(version) > self._newest_known()}
        self._metrics.releases_refused.set(len(wanted & self.refused.keys()))

    def _give_reason(self, reason: str) -> None:
        """In the log once, not at every look."""
        if self.active is None and reason != self.reason:
            log.warning("no release can be served", reason=reason)
        self.reason = reason

    def _look_at_store(self) -> None:
        """Where it does not answer, what is known of it stays known, and what was copied can be served."""
        before = self.store_problem
        try:
            self._store.refresh()
            self.store_problem = None
        except StoreUnreachable as error:
            self.store_problem = str(error)
            if before is None:
                log.warning("the model store does not answer", reason=self.store_problem)
        self._metrics.store_up.set(self.store_problem is None)

    def _candidates(self) -> list[str]:
        """Those that may take the active one's place, newest last."""
        pinned, newest_known = self._settings.model_version, self._newest_known()
        return [version for version in self.present() if pinned in (None, version) and int(version) > newest_known]

    def _newest_known(self) -> int:
        """What is no newer does not take the active one's place."""
        return max(int(self.active.release.version) if self.active else -1, self._passed_over)

    def _activate_chosen(self, version: str) -> None:
        pinned, present = self._settings.model_version, self.present()
        if pinned not in (None, version):
            raise ReleasePinned(version, str(pinned))
        if version not in present:
            raise NoRelease(f"the store holds no release {version}; it holds {', '.join(present) or 'none'}")
        if self.active is None or self.active.release.version != version:
            self._refusals.pop(version, None)  # whoever asks for it may know that it was mended
            if not self._try_to_load(version):
                raise ReleaseRefused(version, self.refused[version])
        self._passed_over = int(present[-1])

    def _try_to_load(self, version: str) -> bool:
        try:
            fingerprint = self._store.fingerprint(version)
        except OSError as error:  # it is being written or removed this moment: the next look will tell
            self.refused[version] = f"its files cannot be read: {error}"
            return False
        known = self._refusals.get(version)
        if known and known.is_lasting and known.fingerprint == fingerprint:
            return False
        try:
            self._activate(self._load(version))
        # Whatever is wrong with a release, and torch can raise anything, the service must live to say so.
        except Exception as error:
            self._refuse(version, Refusal(fingerprint, reason_of(error), is_lasting(error)))
            if isinstance(error, torch.AcceleratorError):
                self._device_failed(error)
            return False
        finally:
            if self.active:
                # Two releases were on the device: what did not fit into its memory then may do so now.
                self.active.generator.use_full_batches()
            give_back_freed_memory()
        return True

    def _refuse(self, version: str, refusal: Refusal) -> None:
        """Counted, and in the log, once: what is not lasting is tried again at every look, and may fail alike."""
        self.refused[version] = refusal.reason
        if self._refusals.get(version) != refusal:
            self._metrics.reloads.labels("refused").inc()
            log.warning("release refused", version=version, reason=refusal.reason)
        self._refusals[version] = refusal

    def _load(self, version: str) -> Restorer:
        return Restorer.load(
            self._store.read(version),
            device=self._settings.device,
            precision=self._settings.precision,
            batch_size=self._settings.batch_size,
            num_threads=self._num_threads,
        )

    def _activate(self, restorer: Restorer) -> None:
        release = restorer.release
        self.refused.pop(release.version, None)
        self._refusals.pop(release.version, None)
        self._metrics.serving(release.version, release.manifest_sha256)
        self._metrics.reloads.labels("activated").inc()
        self.active = restorer
        log.info("release active", version=release.version, device=str(restorer.device), precision=restorer.precision)

    def _why_none(self, candidates: list[str]) -> str:
        if self.store_problem:
            return self.store_problem
        store, pinned = self._store, self._settings.model_version
        if candidates:
            refusals = "; ".join(f"{version}: {self.refused[version]}" for version in reversed(candidates))
            return f"no release in {store} passes its checks: {refusals}"
        wanted = f"release {pinned} is not in {store}" if pinned else f"the model store {store} holds no release"
        return f"{wanted}; publish one, it is picked up within {self._settings.store_poll_seconds:g} seconds"


def open_store_of(settings: Settings) -> Store:
    """Raises InvalidOption for a URL that cannot be opened."""
    return open_store(settings.model_store, copies=settings.model_copies, num_copies=settings.max_model_copies)


def reason_of(error: Exception) -> str:
    if isinstance(error, RestorationError):
        return str(error)
    if isinstance(error, OSError):  # whose repr leaves the path out
        return f"{error}; the store must be readable, and RESTORE_MODEL_COPIES writable if the store is a URL"
    return repr(error)[:500]


def is_lasting(error: Exception) -> bool:
    """Whether a release as it is would fail alike the next time. Not what memory, a disk or the network is to blame
    for: a CPU without memory is a RuntimeError."""
    return isinstance(error, ReleaseError) and not (
        isinstance(error, StoreUnreachable) or isinstance(error.__cause__, (OSError, RuntimeError))
    )
