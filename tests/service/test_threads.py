"""Calls in threads: what they know of the request, and what becomes of those that nobody waits for."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog

from service.threads import call_in


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_a_line_that_is_logged_in_the_thread_has_the_id_of_its_request(executor: ThreadPoolExecutor) -> None:
    async def ask(request_id: str) -> None:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await call_in(executor, structlog.get_logger().warning, "found something")

    async def ask_twice() -> None:
        await asyncio.gather(ask("first"), ask("second"))

    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        asyncio.run(ask_twice())
    assert [line["request_id"] for line in lines] == ["first", "second"]


@pytest.mark.parametrize("num_cancelled", [1, 2])
def test_an_error_of_a_call_that_nobody_waits_for_any_more_is_not_reported(
    executor: ThreadPoolExecutor, num_cancelled: int
) -> None:
    reported: list[str] = []
    has_begun, may_fail = threading.Event(), threading.Event()

    def fail() -> None:
        has_begun.set()
        assert may_fail.wait(30)
        raise ValueError("too late")

    async def give_up() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
        call = asyncio.create_task(call_in(executor, fail))
        while not has_begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(num_cancelled):
            call.cancel()
            await asyncio.sleep(0.01)
        may_fail.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.1)
        gc.collect()

    asyncio.run(give_up())
    assert reported == []
