"""Jobs in turn, deadlines without a timer each, events in bundles."""

from __future__ import annotations

import asyncio
import time

import pytest

from pictura.workers import Deadline, LoopThread, Told, Workers


def test_workers_are_at_most_so_many_and_do_all_jobs_also_those_that_come_as_the_last_one_ends() -> None:
    async def run() -> tuple[list[int], int]:
        done: list[int] = []
        here = most = 0

        async def work(job: int, _: Deadline) -> None:
            nonlocal here, most
            here += 1
            most = max(most, here)
            await asyncio.sleep(0.001 * (job % 3))
            here -= 1
            done.append(job)

        workers = Workers(asyncio.get_running_loop(), work, 3, 60.0)
        for job in range(40):
            workers.begin([job])
            if job % 4 == 3:
                while len(done) <= job:  # begins the next one in the very turn in which all were done
                    await asyncio.sleep(0)
        await workers.end()
        return done, most

    done, most = asyncio.run(asyncio.wait_for(run(), 20))
    assert sorted(done) == list(range(40)) and most == 3


def test_workers_give_up_what_is_under_way() -> None:
    async def run() -> list[str]:
        told: list[str] = []

        async def work(job: str, _: Deadline) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                told.append(job)
                raise

        workers = Workers(asyncio.get_running_loop(), work, 2, 60.0)
        workers.begin(["a", "b", "c"])
        await asyncio.sleep(0.01)
        await workers.end()
        return told

    assert sorted(asyncio.run(run())) == ["a", "b"]  # "c" was never begun


def test_deadline_serves_one_block_after_another() -> None:
    async def run() -> None:
        deadline = Deadline(0.15)
        for _ in range(5):  # longer in all than one block may take
            with deadline:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)  # nothing is due between the blocks
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            with deadline:
                await asyncio.sleep(10)
        assert asyncio.get_running_loop().time() - started < 5
        with deadline:
            await asyncio.sleep(0.01)
        deadline.close()

    asyncio.run(run())


def test_deadline_leaves_cancellation_to_who_asked_for_it() -> None:
    async def run() -> None:
        async def work() -> None:
            with Deadline(30.0):
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_events_leave_a_loop_in_order() -> None:
    async def nothing() -> None:
        pass

    thread = LoopThread(nothing)
    told: Told[int] = Told(thread.loop)
    for number in range(1000):
        thread.loop.call_soon_threadsafe(told.add, number)
    assert [told.get() for _ in range(1000)] == list(range(1000))
    thread.stop()
    assert not thread.thread.is_alive()


def test_events_leave_a_loop_in_bundles() -> None:
    async def nothing() -> None:
        pass

    async def tell() -> None:
        for number in range(400):
            told.add(number)
            await asyncio.sleep(0)  # each in a turn of its own

    thread = LoopThread(nothing)
    told: Told[int] = Told(thread.loop)
    started, waited = time.monotonic(), 0
    asyncio.run_coroutine_threadsafe(tell(), thread.loop)
    for number in range(400):
        waited += not told.here
        assert told.get() == number
    assert waited <= 2 + (time.monotonic() - started) / 0.002
    thread.stop()
