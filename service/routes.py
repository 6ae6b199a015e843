"""The calls. What they refuse is in `errors.py`, what they understand in `answers.RestoreQuery` and `uploads.py`."""

import asyncio
from collections import Counter
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.datastructures import QueryParams

from restoration.restorer import expect_denoiser
from service.access import Administrator, RestoringCaller, any_caller
from service.answers import RestoreQuery, check_answerable
from service.context import Context, ServiceContext
from service.errors import NotReady, UploadTooSlow
from service.etags import etag_of, expect_not_held
from service.examples import ALIVE, MODELS, READY
from service.openapi import (
    HEADER_PARAMETERS,
    RESTORED_DESCRIPTION,
    UPLOAD_DESCRIPTION,
    json_example,
    problem_responses,
)
from service.restoring import Restored, Timing
from service.settings import Settings
from service.uploads import Upload, UploadShare, read_upload

log = structlog.get_logger(__name__)

SMALLEST_RATIO = 0.000001

router = APIRouter()
metrics_router = APIRouter()


class ReleaseState(BaseModel):
    """A release in the store, which is active, refused, passed-over or present; `reason` says why it is not served."""

    version: str
    state: str
    reason: str | None = None


class Models(BaseModel):
    """`active` is null and `reason` set while no release is served; `store_problem` says why the store could not be
    looked at the last time, or now."""

    active: str | None
    reason: str | None
    store_problem: str | None
    releases: list[ReleaseState]


@router.post(
    "/restore",
    summary="Restore a photo",
    response_class=Response,
    responses=RESTORED_DESCRIPTION
    | problem_responses(400, 401, 403, 408, 409, 412, 413, 415, 422, 429, 500, 503, 504, 507),
    openapi_extra={"requestBody": UPLOAD_DESCRIPTION, "parameters": HEADER_PARAMETERS},
)
async def restore(
    request: Request, query: Annotated[RestoreQuery, Query()], context: Context, caller: RestoringCaller
) -> Response:
    """The photo at its own resolution and in its own format; only what was taken for damage is painted.

    With `denoise` above 0 samples change all over the photo, and a JPEG is encoded anew. Without:

    In PNG, TIFF and WebP every other sample keeps its value; in a JPEG every 8 x 8 block keeps its coefficients in
    which nothing was painted. The XMP of what was restored says so, unless `history=false`.

    A repeat whose `If-None-Match` names the answer's `ETag` gets 412 before anything is restored.
    """
    expect_no_repeats(request.query_params)
    check_answerable(query)
    restorer = context.releases.restorer(query.release)
    expect_denoiser(restorer.generator, query.denoise)
    context.queue.check_open()
    with context.upload_budget.share() as share:
        upload = await read_in_time(request, context.settings, share)
        num_size_changes = restorer.generator.num_size_changes
        etag = await asyncio.to_thread(etag_of, upload, query, restorer)
        expect_not_held(request.headers.getlist("if-none-match"), etag)
        restored = await context.queue.restore(
            restorer, upload, query, partial(until_gone, request), caller.quota.charge_photo
        )
    # Of an answer that was computed in batches of several sizes no tag tells the bits.
    is_exact = restorer.generator.num_size_changes == num_size_changes
    headers = restored_headers(restored, restorer.release.version, etag if is_exact else None)
    return Response(restored.answer.body, headers=headers)


def expect_no_repeats(parameters: QueryParams) -> None:
    """Of a repeated parameter the last would count. Raises RequestValidationError."""
    counts = Counter(name for name, _ in parameters.multi_items())
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        message = "it is there more than once; send it once"
        raise RequestValidationError([{"loc": ("query", name), "msg": message} for name in repeated])


async def read_in_time(request: Request, settings: Settings, share: UploadShare) -> Upload:
    """A sender that stalls or trickles must not hold its share of the memory for long. Raises UploadTooSlow."""
    started_seconds = asyncio.get_running_loop().time()

    def latest_seconds(received_bytes: int) -> float:
        slowest_seconds = settings.upload_grace_seconds + received_bytes / settings.min_upload_bytes_per_second
        return started_seconds + min(settings.upload_timeout_seconds, slowest_seconds)

    try:
        async with asyncio.timeout_at(latest_seconds(0)) as timeout:
            return await read_upload(
                request,
                settings.max_upload_bytes,
                settings.max_form_parts,
                share,
                lambda received_bytes: timeout.reschedule(latest_seconds(received_bytes)),
            )
    except TimeoutError as error:
        raise UploadTooSlow(
            f"the body did not arrive within {settings.upload_timeout_seconds:g} seconds, or came more slowly than "
            f"{settings.min_upload_bytes_per_second:g} bytes a second; send it again"
        ) from error


async def until_gone(request: Request) -> None:
    """Returns when the client has hung up. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def restored_headers(restored: Restored, version: str, etag: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": restored.answer.media_type,
        "X-Model-Version": version,
        "X-Damage-Ratio": ratio_text(restored.damage_ratio),
        "Server-Timing": server_timing(restored.timing),
    }
    if restored.suspected_from is not None:
        headers["X-Suspected-From"] = f"{restored.suspected_from:g}"
    if etag:
        headers["ETag"] = etag
    if restored.answer.file_name:
        headers["Content-Disposition"] = f'inline; filename="{restored.answer.file_name}"'
    return headers


def ratio_text(damage_ratio: float) -> str:
    """Six decimals; never 0 where anything was repaired, since 0 says that no damage was found."""
    return f"{max(damage_ratio, SMALLEST_RATIO) if damage_ratio else 0.0:.6f}"


def server_timing(timing: Timing) -> str:
    """Milliseconds, as the W3C's Server-Timing has them."""
    parts = {
        "queue": timing.queue_seconds,
        "decode": timing.decode_seconds,
        "infer": timing.infer_seconds,
        "encode": timing.encode_seconds,
    }
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts.items())


@router.head("/livez", include_in_schema=False)
@router.get("/livez", summary="Is the process alive?", responses=json_example(ALIVE) | problem_responses(503))
async def livez(context: Context) -> dict[str, str]:
    """Green as soon as the port is open, red when only a restart helps: the device has failed."""
    context.queue.batcher.check_usable()
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Can photos be restored?", responses=json_example(READY) | problem_responses(503))
async def readyz(context: Context) -> dict[str, str]:
    """503 with the reason until a release is loaded, warmed up and self-tested, and while the service drains."""
    return {"status": "ready", "release": context.expect_ready()}


@router.get(
    "/models",
    summary="Releases in the store",
    responses=json_example(MODELS) | problem_responses(401, 429),
    dependencies=[Depends(any_caller)],
)
def models(context: Context) -> Models:
    """Which release is served, which are there, and why one was refused; while the store cannot be read, those that are
    known."""
    releases = context.releases
    active, store_problem = releases.active, releases.store_problem
    try:
        versions = releases.present()
    except NotReady as error:
        versions, store_problem = releases.known(), str(error)
    return Models(
        active=active.release.version if active else None,
        reason=None if active else releases.reason,
        store_problem=store_problem,
        releases=[release_state(context, version) for version in reversed(versions)],
    )


@router.post(
    "/models/{version}/activate",
    summary="Serve another release",
    responses=json_example(MODELS) | problem_responses(401, 403, 404, 409, 422, 429, 503, of_activation=True),
)
async def activate(
    version: Annotated[str, Path(pattern=r"^[0-9]{4,12}$", description="such as `0007`")],
    context: Context,
    caller: Administrator,
) -> Models:
    """Back to an older release, or forward; needs a key with the scope `admin`.

    It is loaded, warmed up and self-tested first, and if that fails, the active one stays. No other release that is in
    the store now takes its place any more; one that is published later does, and after a restart the newest is served
    again. `RESTORE_MODEL_VERSION` pins a release for good, and then no other can be activated.
    """
    log.info("activation asked for", version=version, key_name=caller.name)
    await context.releases.activate(version)
    return models(context)


def release_state(context: ServiceContext, version: str) -> ReleaseState:
    active = context.releases.active
    if active and version == active.release.version:
        return ReleaseState(version=version, state="active")
    if reason := context.releases.refused.get(version):
        return ReleaseState(version=version, state="refused", reason=reason)
    if context.releases.is_passed_over(version):
        return ReleaseState(version=version, state="passed-over", reason="an administrator activated an older one")
    return ReleaseState(version=version, state="present")


@metrics_router.head("/metrics", include_in_schema=False)
@metrics_router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(context: Context) -> Response:
    return Response(context.metrics.as_text(), media_type=CONTENT_TYPE_LATEST)
