"""A name has an identity only while it is certain which weights it stands for."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.config import Upstream
from cacheproxy.errors import StoreUnavailableError, UpstreamUnreachableError
from cacheproxy.model import Identity
from cacheproxy.upstream.models import REMEMBER_S, UNKNOWN_REFRESH_S, Models, _identities, canonical_name
from tests.fakes.clock import FakeClock

A, B = "aa" * 32, "bb" * 32
LLAMA = "registry.ollama.ai/library/llama3:latest"


@pytest.mark.case(31)
@pytest.mark.case(32)
@pytest.mark.case(33)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3", LLAMA),
        ("llama3:latest", LLAMA),
        ("LLaMA3", LLAMA),
        ("LLaMA3:Latest", LLAMA),
        ("library/llama3", LLAMA),
        ("registry.ollama.ai/library/llama3", LLAMA),
        ("registry.ollama.ai/library/llama3:latest", LLAMA),
        ("https://registry.ollama.ai/library/llama3", LLAMA),
        (" llama3 ", LLAMA),
        ("\tllama3\r\n", LLAMA),
        ("\xa0llama3\x85", LLAMA),
        ("llama3:local", LLAMA),
        ("llama3:LOCAL", LLAMA),
        ("llama3:latest:local", LLAMA),
        ("llama3:8b", "registry.ollama.ai/library/llama3:8b"),
        ("llama3:8b:local", "registry.ollama.ai/library/llama3:8b"),
        ("me/llama3", "registry.ollama.ai/me/llama3:latest"),
        ("reg:5000/me/m", "reg:5000/me/m:latest"),
        ("reg:5000/me/m:8b", "reg:5000/me/m:8b"),
        ("hf.co/some.org_x/Model-GGUF:Q4_K_M", "hf.co/some.org_x/model-gguf:q4_k_m"),
        ("gpt-oss:20b-cloud", "registry.ollama.ai/library/gpt-oss:20b-cloud"),
        ("gpt-oss:cloud", None),
        ("gpt-oss:20b:cloud", None),
        ("gpt-oss:20b-cloud:local", None),
        ("", None),
        (" ", None),
        (":latest", None),
        ("llama3:", None),
        ("a/b/c/d", None),
        ("/llama3", None),
        ("llama3/", None),
        ("-llama3", None),
        (".llama3", None),
        ("llama 3", None),
        ("llama3@sha256:aa", None),
        ("llama3\x00", None),
        ("\x1cllama3", None),
        ("\u212aimi", None),
        ("llama\uff13", None),
        ("\ud800", None),
        ("x" * 80, f"registry.ollama.ai/library/{'x' * 80}:latest"),
        ("x" * 81, None),
        ("../../etc/passwd", None),
    ],
)
def test_names_are_completed_and_compared_as_ollama_does(name, expected):
    """What Ollama would refuse is no name, so a hit never hides its 400."""
    assert canonical_name(name) == expected


@given(name=st.text(max_size=30) | st.from_regex(r"[a-zA-Z:/.@-]{0,30}", fullmatch=True))
def test_a_canonical_name_is_its_own(name):
    """And nothing makes it raise."""
    found = canonical_name(name)

    assert found is None or (canonical_name(found) == found == found.lower())


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"models": [{"name": "llama3:latest", "model": "llama3:latest", "digest": A}]}, {LLAMA: Identity(LLAMA, A)}),
        ({"models": [{"name": "LLaMA3", "digest": A}]}, {LLAMA: Identity(LLAMA, A)}),
        (
            {"models": [{"model": "llama3", "digest": A, "remote_host": "https://ollama.com"}]},
            {LLAMA: Identity(LLAMA, A, remote=True)},
        ),
        ({"models": [None, 5, "x", [], {}, {"model": "llama3"}, {"digest": A}, {"model": "a b", "digest": A}]}, {}),
        ({"models": [{"model": "llama3", "digest": value} for value in (None, "", 5, [A])]}, {}),
        ({"models": [{"model": ["llama3"], "digest": A}]}, {}),
        ({"models": None}, {}),
        ({"models": 5}, {}),
        ({"models": {"model": "llama3"}}, {}),
        ({}, {}),
        ([], {}),
        (None, {}),
        ("models", {}),
    ],
)
def test_a_list_is_read_as_far_as_it_makes_sense(listed, expected):
    """What is malformed in it is left out."""
    assert _identities(listed, "") == expected


async def let_all_run():
    """Give every task that can go on its turns."""
    for _ in range(30):
        await asyncio.sleep(0)


class FakeOllama:
    """Its list of models, and how often it was read. While `hold` is unset, reads of the list wait."""

    def __init__(self):
        self.models = {"llama3:latest": A}
        self.version = "0.33.0"
        self.template = ""
        self.away = False
        self.reads = self.shows = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def fetch(self, target, body):
        """As the client does it."""
        if target == "/api/show":
            self.shows += 1
        elif target == "/api/tags":
            self.reads += 1
            models = dict(self.models)  # as of now: a slow reply tells of the past
            await self.hold.wait()
        if self.away:
            raise UpstreamUnreachableError("nobody at HOST:1")
        if target == "/api/show":
            return self.template if not isinstance(self.template, str) else {"template": self.template, **body}
        if target == "/api/version":
            return {"version": self.version}
        return {"models": [{"model": name, "digest": digest} for name, digest in models.items()]}


class FakeMemory:
    """What outlives the process."""

    def __init__(self):
        self.kept = None
        self.writes = 0
        self.away = False

    async def remember(self, value):
        """Keep it."""
        if self.away:
            raise StoreUnavailableError("away")
        self.writes += 1
        self.kept = value

    async def recall(self):
        """Get it back."""
        if self.away:
            raise StoreUnavailableError("away")
        return self.kept


@pytest.fixture
def ollama():
    """An Ollama with one model."""
    return FakeOllama()


@pytest.fixture
def memory():
    """A memory that is empty."""
    return FakeMemory()


@pytest.fixture
def clock():
    """Time that stands still."""
    return FakeClock()


@pytest.fixture
async def models(ollama, memory, clock):
    """The models under test, not opened: the tests say when to read."""
    models = Models(ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall)
    yield models
    ollama.hold.set()
    await models.close()


async def test_before_the_first_list_nothing_has_an_identity(models):
    """Nothing is guessed."""
    assert models.identify("llama3") is None
    assert (models.names, models.reachable) == ([], False)


async def test_a_name_in_the_list_has_the_identity_of_its_digest(models):
    """With Ollama's version, since defaults change between versions."""
    assert await models.refresh()

    assert models.identify("LLaMA3") == Identity(LLAMA, A, server_version="0.33.0")
    assert models.identify("other") is None
    assert (models.names, models.reachable, models.server_version) == (["llama3:latest"], True, "0.33.0")


@pytest.mark.case(109)
@pytest.mark.case(110)
@pytest.mark.case(111)
async def test_a_new_list_replaces_the_old_one(models, ollama):
    """Another digest is another identity, a deleted model is none, the same digest is the same."""
    await models.refresh()
    before = models.identify("llama3")
    await models.refresh()
    assert models.identify("llama3") == before

    ollama.models = {"llama3:latest": B, "copy:latest": A}
    await models.refresh()
    assert models.identify("llama3") != before
    assert models.identify("copy").digest == A

    ollama.models = {}
    await models.refresh()
    assert models.identify("llama3") is None


async def test_many_who_want_a_list_share_one_read(models, ollama):
    """Ollama is not asked a hundred times."""
    assert await asyncio.gather(*(models.refresh() for _ in range(100))) == [True] * 100
    assert ollama.reads == 1


async def test_a_read_that_had_begun_before_does_not_count(models, ollama):
    """Its list may be from before the change that the caller wants to see; one more read then serves all of them.

    1. a read begins, with digest A          3. two callers want a list
    2. the model changes to digest B         4. both get one read later, and with it B
    """
    ollama.hold.clear()
    early = asyncio.create_task(models.refresh())
    await let_all_run()
    ollama.models = {"llama3:latest": B}
    late = [asyncio.create_task(models.refresh()) for _ in range(2)]
    await let_all_run()
    assert ollama.reads == 1
    ollama.hold.set()
    await asyncio.gather(early, *late)

    assert ollama.reads == 2
    assert models.identify("llama3").digest == B


async def test_one_who_no_longer_waits_does_not_end_the_read(models, ollama):
    """Others may wait for it."""
    ollama.hold.clear()
    gone = asyncio.create_task(models.refresh())
    other = asyncio.create_task(models.refresh())
    await let_all_run()
    gone.cancel()
    await let_all_run()
    ollama.hold.set()

    assert await other
    assert ollama.reads == 1


@pytest.mark.case(113)
async def test_still_is_true_only_by_a_list_read_afterwards(models, ollama):
    """What is known from before the answer proves nothing."""
    await models.refresh()
    identity = models.identify("llama3")
    assert await models.still("LLAMA3", identity)
    assert ollama.reads == 2

    ollama.models = {"llama3:latest": B}
    assert not await models.still("llama3", identity)
    ollama.models = {"llama3:latest": A}
    assert await models.still("llama3", identity)
    ollama.version = "0.34.0"
    assert not await models.still("llama3", identity)
    ollama.version = "0.33.0"
    ollama.away = True
    assert not await models.still("llama3", identity)


@pytest.mark.case(111)
async def test_while_a_change_passes_through_no_name_has_an_identity(models, ollama):
    """Nor until a list from after it is there."""
    await models.refresh()
    async with models.changing():
        assert models.identify("llama3") is None
        assert not await models.still("llama3", models.known("llama3"))
        ollama.models = {"llama3:latest": B}
        ollama.hold.clear()
        asyncio.get_running_loop().call_soon(ollama.hold.set)

    assert models.identify("llama3").digest == B


async def test_overlapping_changes_all_have_to_end(models):
    """One that ends says nothing of the other."""
    await models.refresh()
    one, other = models.changing(), models.changing()
    await one.__aenter__()
    await other.__aenter__()
    await one.__aexit__(None, None, None)
    assert models.identify("llama3") is None
    await other.__aexit__(None, None, None)

    assert models.identify("llama3").digest == A


async def test_a_change_after_which_no_list_can_be_read_leaves_nothing_known(models, ollama):
    """The old list would be wrong; names come back with the next one."""
    await models.refresh()
    async with models.changing():
        ollama.away = True
    assert models.identify("llama3") is None

    ollama.away = False
    await models.refresh()
    assert models.identify("llama3").digest == A


@pytest.mark.parametrize("failure", [UpstreamUnreachableError("cut"), asyncio.CancelledError(), RuntimeError("a bug")])
async def test_a_change_that_broke_off_may_have_happened(models, ollama, failure):
    """The caller left during a pull, say: nothing is known until the list was read, though nobody waits for it."""
    await models.refresh()
    ollama.hold.clear()

    async def change():
        async with models.changing():
            ollama.models = {"llama3:latest": B}
            raise failure

    with pytest.raises(type(failure)):
        await change()
    await let_all_run()
    assert models.identify("llama3") is None
    ollama.hold.set()
    await let_all_run()

    assert ollama.reads == 2
    assert models.identify("llama3").digest == B


async def test_one_who_leaves_while_the_list_is_read_after_a_change_leaves_it_going(models, ollama):
    """Otherwise names would stay unknown for ever."""
    await models.refresh()

    async def change():
        async with models.changing():
            ollama.models = {"llama3:latest": B}
            ollama.hold.clear()

    task = asyncio.create_task(change())
    await let_all_run()
    task.cancel()
    await let_all_run()
    assert models.identify("llama3") is None
    ollama.hold.set()
    await let_all_run()

    assert models.identify("llama3").digest == B


async def test_waiting_for_the_end_of_a_change_ends_with_it(models):
    """And is over at once when there is none."""
    await models.refresh()
    await models.wait_settled()
    change = models.changing()
    await change.__aenter__()
    waiting = asyncio.create_task(models.wait_settled())
    await let_all_run()
    assert not waiting.done()
    await change.__aexit__(None, None, None)
    await waiting

    assert models.identify("llama3").digest == A


@pytest.mark.case(114)
async def test_while_ollama_is_away_the_last_list_counts_for_its_grace(models, ollama, clock):
    """Hits go on; after it nothing is certain any more."""
    await models.refresh()
    ollama.away = True
    assert not await models.refresh()
    assert (models.reachable, "HOST:1" in models.reason) == (False, True)
    clock.advance(Upstream().digest_grace)
    assert models.identify("llama3").digest == A
    clock.advance(1)

    assert models.identify("llama3") is None
    ollama.away = False
    await models.refresh()
    assert (models.identify("llama3").digest, models.reason) == (A, "")


async def test_each_read_is_reported(ollama, memory, clock):
    """A counter tells how often Ollama could not be asked."""
    seen = []
    models = Models(
        ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall, on_read=seen.append
    )
    await models.refresh()
    ollama.away = True
    await models.refresh()

    assert seen == [True, False]


async def test_unknown_names_cause_one_read_a_second(models, ollama, clock):
    """However many ask for models that do not exist."""
    for _ in range(50):
        models.unknown_nowait()
    await let_all_run()
    assert ollama.reads == 1
    clock.advance(UNKNOWN_REFRESH_S)
    models.unknown_nowait()
    await let_all_run()
    assert ollama.reads == 1
    clock.advance(0.1)
    models.unknown_nowait()
    models.unknown_nowait()
    await let_all_run()

    assert ollama.reads == 2


async def test_the_list_is_remembered_when_it_changes_and_now_and_then(models, ollama, memory, clock):
    """So that its remembered age is right, without a write at every read."""
    for _ in range(5):
        await models.refresh()
    assert memory.writes == 1
    clock.advance(REMEMBER_S)
    await models.refresh()
    assert (memory.writes, memory.kept["read"]) == (2, clock.now())
    ollama.models = {"llama3:latest": B}
    await models.refresh()

    assert memory.writes == 3


async def test_a_memory_that_is_away_costs_nothing_and_is_tried_again(models, memory):
    """The list itself is good."""
    memory.away = True
    assert await models.refresh()
    assert models.identify("llama3").digest == A
    memory.away = False
    await models.refresh()

    assert memory.writes == 1


async def restarted(ollama, memory, clock):
    """The models of the next process, opened while Ollama is away, after their first try."""
    ollama.away = True
    models = Models(ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall)
    await models.open()
    await models.wait_first_read()
    await let_all_run()
    return models


async def test_a_list_is_remembered_over_a_restart_without_ollama(models, ollama, memory, clock):
    """Hits go on, within the same grace."""
    await models.refresh()
    clock.advance(600)
    again = await restarted(ollama, memory, clock)
    assert again.identify("llama3") == Identity(LLAMA, A, server_version="0.33.0")
    clock.advance(Upstream().digest_grace - 600)
    assert again.identify("llama3") is not None
    clock.advance(1)
    assert again.identify("llama3") is None
    await again.close()


@pytest.mark.parametrize(
    "kept", [None, 5, "x", [], {}, {"read": None}, {"read": "x", "tags": {}}, {"read": 1e6, "tags": 5, "version": None}]
)
async def test_a_memory_of_another_form_is_none(ollama, memory, clock, kept):
    """And the reading goes on."""
    memory.kept = kept
    again = await restarted(ollama, memory, clock)
    assert again.identify("llama3") is None
    ollama.away = False

    assert await again.refresh()
    assert again.identify("llama3").digest == A
    await again.close()


async def test_a_list_from_ollama_is_better_than_any_memory(ollama, memory, clock):
    """The memory is not even asked."""
    memory.kept = {"read": clock.now(), "version": "1", "tags": {"models": [{"model": "llama3", "digest": B}]}}
    models = Models(ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall)
    await models.open()
    await models.wait_first_read()

    assert models.identify("llama3").digest == A
    await models.close()


@pytest.mark.case(112)
async def test_the_list_is_read_again_within_the_period(ollama, memory, clock):
    """A change behind the proxy's back ends the hits by itself."""
    reads = asyncio.Queue()
    settings = Upstream(digest_ttl=0.01)
    models = Models(
        ollama.fetch, settings, clock, remember=memory.remember, recall=memory.recall, on_read=reads.put_nowait
    )
    await models.open()
    assert await reads.get()
    ollama.models = {"llama3:latest": B}
    assert [await reads.get(), await reads.get()] == [True, True]

    assert models.identify("llama3").digest == B
    await models.close()


async def test_a_defect_does_not_end_the_reads(ollama, memory, clock, caplog):
    """In the reading (JSON nested too deep, say), which counts as no list, or in who listens."""
    reads, failing = asyncio.Queue(), [True]

    async def fetch(target, body):
        if failing[0]:
            raise RecursionError("too deep")
        return await ollama.fetch(target, body)

    models = Models(
        fetch,
        Upstream(digest_ttl=0.01),
        clock,
        remember=memory.remember,
        recall=memory.recall,
        on_read=reads.put_nowait,
    )
    models.on_change.append(lambda: 1 / 0)
    await models.open()
    assert not await reads.get()
    assert "too deep" in models.reason
    failing[0] = False
    while not await reads.get():
        pass
    assert [await reads.get(), await reads.get()] == [True, True]
    await models.close()

    assert "the reads go on" in caplog.text


async def test_closing_leaves_no_task(ollama, memory, clock):
    """Not even a read that hangs."""
    before = asyncio.all_tasks()
    models = Models(ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall)
    await models.open()
    ollama.hold.clear()
    models.unknown_nowait()
    await let_all_run()
    await models.close()
    await let_all_run()

    assert asyncio.all_tasks() == before


@pytest.mark.case(116)
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Prompt }}", False),
        ("{{ currentDate }}", True),
        ("{{- strftime_now('%d') }}", True),
        ("current DATE: x", True),
        ("", False),
        ([], False),
        (None, False),
    ],
)
async def test_a_template_that_prints_the_date_is_recognised(models, ollama, template, expected):
    """Its answers are old at midnight."""
    await models.refresh()
    ollama.template = template

    assert await models.prints_date("llama3", models.identify("llama3")) is expected


async def test_a_template_is_asked_for_once_a_digest(models, ollama):
    """And again after a try that failed, which counts as yes until then."""
    await models.refresh()
    identity = models.identify("llama3")
    ollama.away = True
    assert await models.prints_date("llama3", identity)
    ollama.away = False
    assert [await models.prints_date("llama3", identity) for _ in range(3)] == [False] * 3
    assert ollama.shows == 2
    ollama.template = "currentDate"

    assert await models.prints_date("llama3", Identity(LLAMA, B))
    assert ollama.shows == 3


async def test_it_is_said_once_that_ollama_is_back(models, ollama, caplog):
    """Whoever read of its going away looks for the end of it; the first answer of all is none."""
    caplog.set_level(logging.INFO)
    await models.refresh()
    assert "Ollama answers again" not in caplog.messages
    ollama.away = True
    await models.refresh()
    ollama.away = False
    await models.refresh()
    await models.refresh()

    assert caplog.messages.count("Ollama answers again") == 1


async def test_the_first_list_of_all_is_looked_for_ever_more_seldom(ollama, memory, clock, monkeypatch):
    """An Ollama that is not there yet is found soon; one that does not come costs no read a moment."""
    pauses_s = []
    sleep = asyncio.sleep

    async def pause(seconds):
        if seconds:
            pauses_s.append(seconds)
        await sleep(0)

    monkeypatch.setattr("cacheproxy.upstream.models.asyncio.sleep", pause)
    ollama.away = True
    models = Models(ollama.fetch, Upstream(), clock, remember=memory.remember, recall=memory.recall)
    await models.open()
    while len(pauses_s) < 8:
        await sleep(0)
    await models.close()

    assert pauses_s[:4] == [0.2, 0.4, 0.8, 1.6]
    assert max(pauses_s) == Upstream().digest_ttl * 0.8
