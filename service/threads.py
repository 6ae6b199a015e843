"""Calls in threads, awaited from the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def call_in(executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """The function's result and the seconds it ran, waiting for a thread not counted.

    When cancelled, a call that has not begun is dropped; one that runs cannot be stopped and is waited for, so that
    whoever holds room for it gives the room back only when it is free. What is logged in the thread has the request's
    id, as if it were logged here.
    """
    call = executor.submit(copy_context().run, partial(timed, function, *args, **kwargs))
    waiting = asyncio.wrap_future(call)
    waiting.add_done_callback(_ask_for_error)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not call.cancel():
            await asyncio.wait({waiting})
        raise


def _ask_for_error(done: asyncio.Future[Any]) -> None:
    """Whoever waited may have been cancelled: an error that nobody asks for is logged as forgotten."""
    if not done.cancelled():
        done.exception()


def timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    started_seconds = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - started_seconds
