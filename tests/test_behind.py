"""One job again and again, until closed; and the end of a task."""

from __future__ import annotations

import asyncio

import pytest

from cacheproxy import behind as module
from cacheproxy.behind import Behind, end


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


async def test_a_job_that_fails_is_done_again_and_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it succeeds again; and stopping never gets its error."""
    monkeypatch.setattr(module, "REST_S", 0.001)
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


async def test_a_job_that_fails_at_once_is_not_done_again_at_once() -> None:
    """One that waits for nothing else would keep the process busy with failing."""
    begun = 0

    async def job() -> None:
        nonlocal begun
        begun += 1
        raise RuntimeError("a defect")

    behind = Behind(job, 0, "a job")
    behind.start()
    for _ in range(50):
        await asyncio.sleep(0)
    await behind.stop()

    assert begun == 1


async def hang() -> None:
    """Wait for ever."""
    await asyncio.sleep(3600)


async def test_a_task_is_ended_and_none_is_no_task(caplog: pytest.LogCaptureFixture) -> None:
    """That it was cancelled is no news; ending it twice is fine."""
    task = asyncio.create_task(hang())
    await end(None)
    await end(task)
    await end(task)

    assert task.cancelled()
    assert caplog.records == []


async def test_the_error_that_a_task_had_is_said_and_does_not_stop_who_ends_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So whatever else is to be closed is closed."""

    async def fail() -> None:
        raise RuntimeError("a defect")

    task = asyncio.create_task(fail(), name="a task")
    await asyncio.wait({task})
    await end(task)

    (record,) = caplog.records
    assert record.message == "work behind the asks had ended with an error (a task)"
    assert record.exc_info is not None
    assert record.exc_info[1] is task.exception()


async def test_whoever_is_cancelled_while_ending_a_task_is_cancelled() -> None:
    """A deadline around a close holds, also over a task that takes its time to end."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def end_slowly() -> None:
        try:
            await hang()
        finally:
            begun.set()
            await may_end.wait()

    task = asyncio.create_task(end_slowly())
    await asyncio.sleep(0)
    closing = asyncio.create_task(end(task))
    async with asyncio.timeout(5):
        await begun.wait()
        closing.cancel()
        await asyncio.wait({closing})
    assert closing.cancelled()

    may_end.set()
    await asyncio.wait({task})
    assert task.cancelled()
