"""The parts of a running service, assembled once by `create_app` and handed to the routes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from restoration.device import choose_device
from service.device_memory import DeviceMemory
from service.errors import Draining, Unavailable
from service.keyring import KeyRing
from service.metrics import Metrics
from service.releases import Releases
from service.restoring import RestoreQueue
from service.settings import Settings
from service.uploads import UploadBudget


@dataclass(frozen=True)
class ServiceContext:
    settings: Settings
    keys: KeyRing | None
    metrics: Metrics
    queue: RestoreQueue
    releases: Releases
    upload_budget: UploadBudget

    @classmethod
    def assemble(cls, settings: Settings) -> "ServiceContext":
        """Raises KeysInvalid."""
        keys = KeyRing(settings.api_keys_file) if settings.api_keys_file else None
        metrics = Metrics()
        queue = RestoreQueue(settings, metrics)
        releases = Releases(settings, metrics, queue.batcher.num_threads, queue.batcher.give_up)
        context = cls(settings, keys, metrics, queue, releases, UploadBudget(settings.max_buffered_bytes))
        metrics.requests_limit.set(settings.max_queued_requests)
        metrics.ready.set_function(lambda: float(context.is_ready()))
        metrics.registry.register(DeviceMemory(choose_device(settings.device)))
        return context

    def expect_ready(self) -> str:
        """The version of the release that is served. Raises Draining, DeviceBroken or NotReady."""
        if self.queue.is_draining:
            raise Draining("the service finishes the requests it has, and then stops")
        self.queue.batcher.check_usable()
        return self.releases.restorer().release.version

    def is_ready(self) -> bool:
        try:
            self.expect_ready()
        except Unavailable:
            return False
        return True


def get_context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


Context = Annotated[ServiceContext, Depends(get_context)]
