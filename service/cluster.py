"""`python -m service.cluster`: the service on a Ray cluster, by Ray Serve; again, with the next release, replica by
replica. `python -m service.cluster stop`: end it.

    caller ──► proxy, on every node ──► the replica with the fewest requests: the application of `create_app`

Each replica is pinned to the release that was chosen here. To change it, run this again: replicas are replaced one
after the other, a fifth of them at a time where they are many, and what they have in the works is finished first.
Needs the extra `ray`, and this software on every node.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.exceptions import RayError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restoration.errors import RestorationError
from restoration.restorer import Restorer
from service.__main__ import EXIT_WRONG_USE, explain_validation, refuse_to_start
from service.app import create_app
from service.cluster_settings import CLUSTER_PREFIX, ClusterSettings
from service.context import ServiceContext
from service.logs import REQUEST_ID_HEADER, configure_logs
from service.releases import open_store_of
from service.settings import Settings

APPLICATION = "photo-restoration"
START_SECONDS = 300.0
NUM_BESIDE_PHOTOS = 64
"""Requests that a replica is given beside the photos it may hold, so that it is the service that refuses one too many,
by its contract, and that answers whether it is alive."""
LOOK_SECONDS = 0.05


class Replica:
    """The application in a process of the cluster."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._has_been_ready = False

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Serve, in the replica."""
        configure_logs(self._settings)
        app = create_app(self._settings)
        self._context: ServiceContext = app.state.context
        return WithoutRequestId(app)

    async def check_health(self) -> None:
        """Called by Serve: the first time before a request comes, and then every few seconds. Raises what is wrong."""
        if self._has_been_ready:
            self._context.queue.batcher.check_usable()
            return
        give_up_at_seconds = time.monotonic() + START_SECONDS
        while not self._context.is_ready():
            if time.monotonic() > give_up_at_seconds:
                self._context.expect_ready()
            await asyncio.sleep(LOOK_SECONDS)
        self._has_been_ready = True


class WithoutRequestId:
    """Leaves the request's id out of the answer's head: Serve's proxies add it, whatever is there, and choose it, too,
    where the caller did not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                name = REQUEST_ID_HEADER.lower().encode()
                message["headers"] = [header for header in message["headers"] if header[0].lower() != name]
            await send(message)

        await self._app(scope, receive, send_without)


def deploy(settings: Settings, cluster: ClusterSettings) -> str:
    """Returns the release that is served when all replicas are up. Raises ReleaseError if none can be loaded, and
    then leaves what is served as it is; RayError, ConnectionError or RuntimeError if the cluster cannot do it."""
    connect(cluster)
    release: str = ray.get(ray.remote(find_release).options(num_cpus=0).remote(settings))
    http_options = {"host": settings.host, "port": settings.port}
    serve.start(proxy_location=cluster.proxies, http_options=http_options)
    replicas = deployment_of(cluster, settings).bind(settings.model_copy(update={"model_version": release}))
    serve.run(replicas, name=APPLICATION, route_prefix="/")
    return release


def stop(cluster: ClusterSettings) -> None:
    connect(cluster)
    serve.shutdown()  # type: ignore[no-untyped-call]


def connect(cluster: ClusterSettings) -> None:
    """Raises ConnectionError."""
    if not ray.is_initialized():
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)


def find_release(settings: Settings) -> str:
    """On a node: the release that is wanted, or the newest that works; loaded and tested before any replica changes."""
    restorer, _ = Restorer.load_newest(
        open_store_of(settings), settings.model_version, device="cpu", batch_size=settings.batch_size
    )
    return restorer.release.version


def deployment_of(cluster: ClusterSettings, settings: Settings) -> Any:
    resources = {"num_cpus": cluster.cpus_per_replica, "num_gpus": cluster.gpus_per_replica}
    return serve.deployment(
        serve.ingress()(Replica),
        name="Replica",
        ray_actor_options=resources,
        max_ongoing_requests=settings.max_queued_requests + NUM_BESIDE_PHOTOS,
        graceful_shutdown_timeout_s=settings.shutdown_grace_seconds,
        autoscaling_config={
            "min_replicas": cluster.min_replicas,
            "max_replicas": cluster.max_replicas,
            "target_ongoing_requests": cluster.requests_per_replica,
            "upscale_delay_s": cluster.upscale_delay_seconds,
        },
    )


def main(arguments: Sequence[str]) -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        return refuse_to_start(explain_validation(error))
    try:
        cluster = ClusterSettings()
    except ValidationError as error:
        return refuse_to_start(explain_validation(error, CLUSTER_PREFIX))
    try:
        match arguments:
            case []:
                release = deploy(settings, cluster)
                print(f"release {release} is served at http://{settings.host}:{settings.port}")
            case ["stop"]:
                stop(cluster)
            case _:
                print(__doc__, file=sys.stderr)
                return EXIT_WRONG_USE
    except (RestorationError, RayError, ConnectionError, RuntimeError) as error:
        return refuse_to_start([str(error).strip().splitlines()[-1]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
