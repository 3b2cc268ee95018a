"""A front identifies models as the main process does, or not at all."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from cacheproxy.config import Upstream
from cacheproxy.errors import UpstreamUnreachableError
from cacheproxy.upstream.catalog import Catalog
from cacheproxy.upstream.health import Health
from cacheproxy.upstream.loaded import Loaded, Wish
from cacheproxy.upstream.models import Models
from cacheproxy.upstream.view import Replica, View, view_of
from tests.fakes.clock import FakeClock

TAGS: dict[str, Any] = {
    "/api/version": {"version": "0.33.0"},
    "/api/tags": {"models": [{"name": "llama3.2:latest", "digest": "ab" * 32}, {"name": "odd:1", "digest": "\ud800"}]},
}


class House:
    """Models of a scripted Ollama, and a replica that takes each view of them."""

    def __init__(self, grace_s: float = 100.0) -> None:
        self.clock = FakeClock()
        self.told: dict[str, Any] = dict(TAGS)

        async def nothing(*_: Any) -> None:
            return None

        self.models = Models(self.fetch, Upstream(digest_grace=grace_s), self.clock, remember=nothing, recall=nothing)
        self.loaded = Loaded.of_another()
        self.replica = Replica(Loaded.of_another(), self.clock)
        self.models.on_change.append(self.publish)
        self.models.before_change.append(self.stop)

    async def fetch(self, target: str, _body: Any) -> Any:
        """What the scripted Ollama says."""
        if target not in self.told:
            raise UpstreamUnreachableError("away")
        return self.told[target]

    def publish(self) -> None:
        """Let the replica know what is known."""
        member = SimpleNamespace(models=self.models, loaded=self.loaded, health=Health())
        fleet: Any = SimpleNamespace(members=[member], models=Catalog([member]))  # type: ignore[list-item]
        self.replica.take(view_of(fleet))

    async def stop(self) -> None:
        """The same, when a change begins."""
        self.publish()


async def test_a_replica_identifies_what_the_models_identify() -> None:
    """However the name is spelt; and nothing before the first view."""
    house = House()
    assert house.replica.identify("llama3.2") is None
    await house.models.refresh()

    for name in ("llama3.2", "LLAMA3.2:latest", "registry.ollama.ai/library/llama3.2"):
        assert house.replica.identify(name) == house.models.identify(name) is not None
    assert house.replica.identify("other") is None


async def test_what_utf8_cannot_carry_is_left_out() -> None:
    """Asks for such a model are the main process's, which knows it."""
    house = House()
    await house.models.refresh()

    assert house.models.identify("odd:1") is not None
    assert house.replica.identify("odd:1") is None


async def test_nothing_is_identified_from_before_a_change_until_the_list_was_read_after_it() -> None:
    """The change passes while nobody goes by what it ends; the view after it is of the new list."""
    house = House()
    await house.models.refresh()
    async with house.models.changing():
        assert house.replica.identify("llama3.2") is None
        await house.models.refresh()
        assert house.replica.identify("llama3.2") is None
        house.told["/api/tags"] = {"models": [{"name": "llama3.2:latest", "digest": "cd" * 32}]}
    found = house.replica.identify("llama3.2")

    assert found is not None
    assert found.digest == "cd" * 32


async def test_nothing_is_identified_when_no_list_can_be_read_after_a_change() -> None:
    """As in the process that asked for it."""
    house = House()
    await house.models.refresh()
    async with house.models.changing():
        del house.told["/api/tags"]

    assert house.replica.identify("llama3.2") is None


async def test_a_change_waits_until_others_have_stopped_identifying() -> None:
    """Who is slow to stop delays the change, and nothing else."""
    house = House()
    stopped, passed = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        await stopped.wait()

    async def change() -> None:
        async with house.models.changing():
            passed.set()

    house.models.before_change.append(wait)
    changing = asyncio.create_task(change())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not passed.is_set()
    stopped.set()
    await changing

    assert passed.is_set()


async def test_a_view_counts_as_long_as_its_list_does() -> None:
    """It grows old while Ollama is away, also if it is passed on late."""
    house = House(grace_s=100)
    await house.models.refresh()
    house.clock.advance(60)
    house.publish()
    house.clock.advance(39)
    assert house.replica.identify("llama3.2") is not None
    house.clock.advance(1)

    assert house.replica.identify("llama3.2") is None


async def test_a_replica_knows_what_callers_asked_of_models() -> None:
    """And forgets it with the view that does."""
    house = House()
    await house.models.refresh()
    digest = "ab" * 32
    house.loaded.wished(digest, Wish(num_ctx=8192))
    house.loaded.wished(digest, Wish(keep_alive=True))
    house.loaded.wished("unlisted", Wish(keep_alive=True))
    house.publish()

    assert dict(house.replica.ollama.wishes) == {digest: Wish(num_ctx=8192, keep_alive=True)}
    house.replica.take(View())
    assert dict(house.replica.ollama.wishes) == {}


def test_only_a_wish_that_is_new_is_told() -> None:
    """A front reports what the main process does not know, not every ask."""
    loaded, told = Loaded.of_another(), []
    loaded.on_wish.append(lambda digest, wish: told.append((digest, wish)))
    for wish in (Wish(), Wish(num_ctx=1), Wish(num_ctx=1), Wish(keep_alive=True), Wish(num_ctx=1)):
        loaded.wished("d", wish)

    assert told == [("d", Wish(num_ctx=1)), ("d", Wish(num_ctx=1, keep_alive=True))]
