import asyncio

from service.lanes import Room


async def hold(room: Room, num_pixels: int, log: list[int], may_go: asyncio.Event) -> None:
    async with room.hold(num_pixels):
        log.append(num_pixels)
        await may_go.wait()


def test_room_is_given_in_order_and_comes_back_from_those_who_give_up() -> None:
    async def scenario() -> list[int]:
        room, log, may_go = Room(10), [], asyncio.Event()
        holders = [asyncio.create_task(hold(room, num, log, may_go)) for num in (8, 9, 2, 1)]
        await asyncio.sleep(0)
        assert log == [8]  # the 2 would fit, but the 9 was first
        for waiting in (1, 2):  # two give up in the same moment, one of whom would fit now
            holders[waiting].cancel()
        await asyncio.sleep(0.01)
        assert log == [8, 1]
        may_go.set()
        await asyncio.gather(*holders, return_exceptions=True)
        await asyncio.wait_for(hold(room, 10, log, may_go), 1)
        return log

    assert asyncio.run(scenario()) == [8, 1, 10]


def test_room_that_came_up_for_someone_who_gave_up_is_given_on() -> None:
    async def scenario() -> list[int]:
        room, log, may_go, first_may_go = Room(10), [], asyncio.Event(), asyncio.Event()

        async def first() -> None:
            await hold(room, 10, log, first_may_go)
            waiting[0].cancel()  # its turn has come, and it does not know yet

        holder = asyncio.create_task(first())
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(hold(room, num, log, may_go)) for num in (9, 10)]
        await asyncio.sleep(0)
        first_may_go.set()
        may_go.set()
        await asyncio.gather(holder, *waiting, return_exceptions=True)
        return log

    assert asyncio.run(scenario()) == [10, 10]
