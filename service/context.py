"""The parts of a running service, assembled once by `create_app` and handed to the routes."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

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
        releases = Releases(settings, metrics)
        return cls(settings, keys, metrics, queue, releases, UploadBudget(settings.max_buffered_bytes))


def get_context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


Context = Annotated[ServiceContext, Depends(get_context)]
