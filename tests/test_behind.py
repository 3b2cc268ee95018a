"""One job again and again, until closed."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy.behind import Behind


async def test_the_job_is_done_again_and_again_until_it_is_stopped() -> None:
    """Afterwards never; stopping twice, or what was never started, is fine."""
    done = asyncio.Semaphore(0)

    async def job() -> None:
        done.release()

    behind = Behind(job, 0.001, "a job")
    assert not await behind.stop()
    behind.start()
    async with asyncio.timeout(5):
        for _ in range(3):
            await done.acquire()

    assert "a job" in {task.get_name() for task in asyncio.all_tasks()}
    assert await behind.stop()
    assert not await behind.stop()
    assert "a job" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_stopping_does_not_wait_for_a_job_that_takes_long() -> None:
    """It is cancelled where it waits."""
    begun = asyncio.Event()

    async def job() -> None:
        begun.set()
        await asyncio.sleep(3600)

    behind = Behind(job, 0, "long")
    behind.start()
    async with asyncio.timeout(5):
        await begun.wait()
        assert await behind.stop()


async def test_a_job_that_fails_is_done_again_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Until it succeeds again; and stopping never gets its error."""
    done = asyncio.Semaphore(0)
    outcomes = iter([False, False, True, False])

    async def job() -> None:
        done.release()
        if not next(outcomes, True):
            raise RuntimeError("a defect")

    behind = Behind(job, 0.001, "a job")
    behind.start()
    async with asyncio.timeout(5):
        for _ in range(6):
            await done.acquire()

    assert await behind.stop()
    assert (
        [record.message for record in caplog.records].count("the work behind the asks failed (a job); it goes on")
        == len(caplog.records)
        == 2
    )
