"""Turns, room in the temporary folder, and answers that are remembered: what many requests share in one gateway."""

import asyncio
import shutil

import pytest

from api.remembered import Remembered
from api.turns import MAX_WAITING, Turns
from api.upload_desk import SPARE_BYTES, Scratch
from shared.errors import QuotaExceeded, Unavailable


def turns(wait_seconds: float = 60, *, total: int = 3, per_tenant: int = 2) -> Turns:
    return Turns("uploads", total=total, per_tenant=per_tenant, wait_seconds=wait_seconds, retry_seconds=7)


def test_a_tenant_has_so_many_and_others_the_rest():
    running: list[str] = []
    most: dict[str, int] = {}

    async def work(turns: Turns, tenant: str) -> None:
        async with turns.taken(tenant):
            running.append(tenant)
            most[tenant] = max(most.get(tenant, 0), running.count(tenant))
            most["all"] = max(most.get("all", 0), len(running))
            await asyncio.sleep(0.001)
            running.remove(tenant)

    async def run() -> Turns:
        shared = turns()
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(work(shared, "a"))
                group.create_task(work(shared, "b"))
        return shared

    assert asyncio.run(run())._tenants == {}
    assert most == {"a": 2, "b": 2, "all": 3}


def test_first_come_first_served():
    served: list[int] = []

    async def run() -> None:
        shared = turns(per_tenant=1)

        async def work(number: int) -> None:
            async with shared.taken("a"):
                served.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(work(number) for number in range(20)))

    asyncio.run(run())
    assert served == list(range(20))


def test_who_waits_too_long_is_told_when_to_come_again():
    async def run() -> None:
        shared = turns(0, per_tenant=1)
        async with shared.taken("a"):
            with pytest.raises(QuotaExceeded) as error:
                async with shared.taken("a"):
                    pass
            assert (error.value.policy, error.value.retry_seconds) == ("uploads", 7)
            async with shared.taken("b"):
                pass
        async with shared.taken("a"):
            pass

    asyncio.run(run())


def test_no_more_than_so_many_wait():
    async def run() -> None:
        shared = turns(per_tenant=1)

        async def wait() -> None:
            async with shared.taken("a"):
                await asyncio.sleep(3600)

        waiting = [asyncio.create_task(wait()) for _ in range(MAX_WAITING + 1)]
        await asyncio.sleep(0.01)
        with pytest.raises(QuotaExceeded):
            async with shared.taken("a"):
                pass
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert shared._tenants == {}

    asyncio.run(run())


def test_what_fails_gives_its_turn_back():
    async def run() -> None:
        shared = turns(0, per_tenant=1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await shared.run("a", lambda: 1 // 0)
        assert await shared.run("a", lambda: 1) == 1

    asyncio.run(run())


def test_the_room_is_shared():
    scratch = Scratch(1000)
    with scratch.share(600) as first:
        with pytest.raises(Unavailable), scratch.share(401):
            pass
        with scratch.share(0) as second:  # its length is not known
            second.write(300)
            first.write(600)
            with pytest.raises(Unavailable):
                second.write(101)
            second.write(100)
            assert scratch.free() == 0
        assert scratch.free() == 400
        assert (first.hold_spare(10), first.hold_spare(10_000)) == (10, 195)
        assert scratch.free() == 195
    assert scratch.free() == 1000


def test_what_the_disk_has_is_the_bound_where_none_is_set(monkeypatch):
    disk = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=SPARE_BYTES + 1000))
    scratch = Scratch(None)
    with pytest.raises(Unavailable), scratch.share(1001):
        pass
    with scratch.share(600) as share:
        assert scratch.free() == 400
        share.write(500)  # the disk would have 500 less now, and 100 are still to come
        assert scratch.free() == 900


def test_many_who_ask_at_once_cause_one_look():
    looks: list[int] = []

    async def look() -> int:
        looks.append(1)
        await asyncio.sleep(0.01)
        return len(looks)

    async def run() -> list[int]:
        kept = Remembered[int](3600)
        return await asyncio.gather(*(kept.get(look) for _ in range(50)))

    assert asyncio.run(run()) == [1] * 50


def test_an_old_answer_is_looked_for_again_and_a_failure_is_not_kept():
    answers = iter([1, 2])

    async def look() -> int:
        return next(answers)

    async def fail() -> int:
        raise ZeroDivisionError

    async def run() -> None:
        kept = Remembered[int](0)
        assert [await kept.get(look), await kept.get(look)] == [1, 2]
        with pytest.raises(ZeroDivisionError):
            await kept.get(fail)

    asyncio.run(run())
