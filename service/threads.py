"""Calls in threads, awaited from the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def call_in(executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """The function's result and the seconds it ran, waiting for a thread not counted.

    When cancelled, a call that has not begun is dropped; one that runs cannot be stopped and is waited for, so that
    whoever holds room for it gives the room back only when it is free.
    """
    call = executor.submit(lambda: timed(function, *args, **kwargs))
    waiting = asyncio.wrap_future(call)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not call.cancel():
            await asyncio.wait({waiting})
            if not waiting.cancelled():
                waiting.exception()  # nobody asks for it any more: without this it would be logged as forgotten
        raise


def timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    started_seconds = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - started_seconds
