"""Who may call what: the dependencies of the routes that a key guards.

They run before a byte of the body is read, and before the query is looked at.
"""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.context import Context
from service.errors import KeyMissing, KeyUnknown
from service.keyring import ANONYMOUS, Caller

API_KEY_HEADER = "X-API-Key"

_bearer = HTTPBearer(auto_error=False, description="The API key, as `Authorization: Bearer rk_...`")
_header = APIKeyHeader(
    name=API_KEY_HEADER,
    auto_error=False,
    description="The API key where a proxy needs the header `Authorization` for itself",
)


async def any_caller(
    request: Request,
    context: Context,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Caller:
    """Whoever holds a key, or anyone while no keys are set; the request is charged to the key's quota.

    Raises KeyMissing, KeyUnknown and QuotaExceeded.
    """
    if context.keys is None:
        return ANONYMOUS
    presented = bearer.credentials if bearer else header
    if not presented:
        raise KeyMissing(f"a key is needed; send it as `Authorization: Bearer KEY` or as `{API_KEY_HEADER}: KEY`")
    caller = context.keys.find(presented)
    if caller is None:
        raise KeyUnknown("the key is none of those that are known here; it may have been replaced")
    request.scope["key_name"] = caller.name
    caller.quota.charge_request()
    return caller


AnyCaller = Annotated[Caller, Depends(any_caller)]


async def restoring_caller(caller: AnyCaller) -> Caller:
    caller.expect_scope("restore")
    return caller


async def administrator(caller: AnyCaller) -> Caller:
    caller.expect_scope("admin")
    return caller


RestoringCaller = Annotated[Caller, Depends(restoring_caller)]
Administrator = Annotated[Caller, Depends(administrator)]
