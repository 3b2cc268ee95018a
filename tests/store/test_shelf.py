"""Entries are looked at in steps, newest first, and looking changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from cacheproxy.clock import SystemClock
from cacheproxy.config import Redis
from cacheproxy.errors import EntryCorruptError, StoreUnavailableError
from cacheproxy.model import Answer, Entry
from cacheproxy.store import keys
from cacheproxy.store import shelf as module
from cacheproxy.store.connection import Connection
from cacheproxy.store.exact import Doomed, Exact
from cacheproxy.store.shelf import Shelf, Wanted
from tests.fakes.redis_server import PATIENT_S, RedisServer

NOW = round(SystemClock().now(), 3)


@pytest_asyncio.fixture
async def connection(clean_redis: RedisServer) -> AsyncIterator[Connection]:
    """To an empty Redis."""
    opened = Connection(Redis(url=clean_redis.unix_url, timeout=PATIENT_S), SystemClock())
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def shelf(connection: Connection) -> Shelf:
    """All entries of the usual prefix."""
    return Shelf(connection, "cacheproxy")


def entry(number: int, *, digest: str = 64 * "d", question: str = "") -> Entry:
    """One that was made `number` seconds after the others' first."""
    key = f"cacheproxy:answer:{number:032x}:{digest[:12]}:default"
    return Entry(key, b"c" * 32, "", "", digest, Answer(str(number)), NOW - 1000 + number, NOW + 86_400, question)


async def test_the_newest_come_first_however_many_there_are(shelf: Shelf) -> None:
    """Over several steps of the scan; no more than asked for."""
    entries = [entry(number) for number in range(keys.SCAN_COUNT + 50)]
    for start in range(0, len(entries), module.BATCH):
        await shelf.put_new(entries[start : start + module.BATCH])
    found = await shelf.newest(3)

    assert [kept.entry for kept in found.kept] == entries[:-4:-1]
    assert (found.looked_at, found.complete) == (len(entries), True)
    assert [len(batch) async for batch in shelf.every()][:2] == [module.BATCH] * 2
    assert sum([len(batch) async for batch in shelf.every()]) == len(entries)


async def test_a_list_that_did_not_see_all_says_so(connection: Connection) -> None:
    """It ends at its limit of keys."""
    shelf = Shelf(connection, "cacheproxy", keys_max=4)
    await shelf.put_new([entry(number) for number in range(10)])
    found = await shelf.newest(10)

    assert (len(found.kept), found.looked_at, found.complete) == (4, 4, False)


async def test_a_list_can_be_of_one_model_or_of_questions_with_a_text(shelf: Shelf) -> None:
    """Case does not matter, and several wishes must all hold."""
    other = 64 * "e"
    await shelf.put_new(
        [entry(1, question="Why?"), entry(2, digest=other, question="WHY not?"), entry(3, question="How?")]
    )

    async def numbers(wanted: Wanted) -> list[str]:
        return [kept.entry.answer.text for kept in (await shelf.newest(10, wanted)).kept]

    assert await numbers(Wanted(frozenset({other}))) == ["2"]
    assert await numbers(Wanted(question="why")) == ["2", "1"]
    assert await numbers(Wanted(frozenset({64 * "d"}), "why")) == ["1"]


async def test_what_cannot_be_read_is_left_out_and_left_alone(shelf: Shelf, clean_redis: RedisServer) -> None:
    """A foreign writer's hash, an entry of another version, and one that went between two steps."""
    await shelf.put_new([entry(1), entry(2), entry(3)])
    clean_redis.call("HSET", entry(2).key, "v", "999")
    clean_redis.call("HSET", entry(3).key, "made", "soon")
    found = await shelf.newest(10)

    assert [kept.entry.answer.text for kept in found.kept] == ["1"]
    with pytest.raises(EntryCorruptError):
        await shelf.get(entry(2).key)
    assert clean_redis.call("EXISTS", entry(2).key) == 1
    assert await shelf.find(f"{2:032x}") is None
    assert await shelf.get(entry(4).key) is None


async def test_putting_back_never_overwrites_and_ends_when_the_entry_does(
    shelf: Shelf, clean_redis: RedisServer
) -> None:
    """An entry that is there is newer than what a file holds."""
    there, new = entry(1), entry(2)
    await shelf.put_new([there])
    put = await shelf.put_new([replace(there, answer=Answer("other")), new])

    assert put == {new.key}
    assert (await shelf.find(there.id)).entry == there  # type: ignore[union-attr]
    assert clean_redis.call("PEXPIRETIME", new.key) == round(new.expires * 1000)


async def test_entries_can_be_purged_by_age(shelf: Shelf, connection: Connection) -> None:
    """Older ones go, and what tells no age stays."""
    await shelf.put_new([entry(1), entry(100)])
    count = await Exact(connection, "cacheproxy").purge(Doomed(made_before=NOW - 950))

    assert count == 1
    assert [kept.entry.answer.text for kept in (await shelf.newest(9)).kept] == ["100"]


async def test_a_redis_that_is_away_is_one_of_our_errors() -> None:
    """Nothing of redis-py's comes through."""
    connection = Connection(Redis(url="redis://127.0.0.1:1/0"), SystemClock())
    await connection.open()
    try:
        with pytest.raises(StoreUnavailableError):
            await Shelf(connection, "cacheproxy").newest(1)
    finally:
        await connection.close()
