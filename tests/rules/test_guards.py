"""Guards object to near questions that differ in what counts, and to nothing else."""

import json
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.config import GUARD_NAMES
from cacheproxy.rules import guards
from cacheproxy.rules.guard.capitals import other_capitals
from cacheproxy.rules.guard.labelled import other_value
from cacheproxy.rules.guard.lists import words
from cacheproxy.rules.guard.pair import compare
from cacheproxy.rules.guard.reading import read
from cacheproxy.rules.guard.verbatim import exact_text
from cacheproxy.rules.guards import GUARDS, object_to
from tests.fakes.speed import slowness

CASES = Path(__file__).parent.parent / "cases"


def families(name):
    """The pairs of a file by their family: one test each, since 3,000 of them cost pytest more than the guards."""
    pairs = defaultdict(list)
    for line in (CASES / name).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pairs[row["family"]].append((row["a"], row["b"]))
    return [pytest.param(found, id=family) for family, found in pairs.items()]


@pytest.mark.fault(96)
@pytest.mark.parametrize("pairs", families("must_not_serve.jsonl"))
def test_two_different_questions_never_share_an_answer(pairs):
    """Some guard objects, whatever the similarity is."""
    assert [(a, b) for a, b in pairs if object_to(a, b) not in GUARDS] == []


@pytest.mark.parametrize("pairs", families("should_serve.jsonl"))
def test_one_question_in_two_wordings_shares_its_answer(pairs):
    """No guard objects, so that the similarity alone decides."""
    assert [(guard, a, b) for a, b in pairs if (guard := object_to(a, b)) is not None] == []


TABLE = [
    ("numbers", "Is 91 a prime number?", "Is 97 a prime number?"),
    ("numbers", "What is 50 of 200?", "What is 50 % of 200?"),
    ("numbers", "Send 5 GB", "Send 5 MB"),
    ("numbers", "How much is it in euros?", "How much is it in francs or in dollars?"),
    ("dates", "Trains on Monday", "Trains on Tuesday"),
    ("dates", "News of 3 May 2024", "News of 5 March 2024"),
    ("dates", "Call me at 9 am", "Call me at 9 pm"),
    ("tokens", "What does v2.1.0 fix?", "What does v2.10.0 fix?"),
    ("tokens", "Is a == b true?", "Is a != b true?"),
    ("tokens", "Open report_v1.pdf", "Open report_v2.pdf"),
    ("tokens", "What does 'open' mean here?", "What does 'ajar' mean here?"),
    ("tokens", "Is /srv/Data full?", "Is /srv/data full?"),
    ("tokens", "My login is tmiller", "My login is tmilelr"),
    ("tokens", "Correct the grammar: I has a dog", "Correct the grammar: I have a dog"),
    ("tokens", "Is this formal? I cannot come", "Is this formal? I can't come"),
    ("tokens", "Solve for a: a + b = c", "Solve for b: a + b = c"),
    ("negation", "Is it void unless I sign?", "Is it void if I sign?"),
    ("negation", "Speak in favour of the tax", "Speak against the tax"),
    ("negation", "Which birds can fly?", "Which birds can't fly?"),
    ("negation", "How do I enable dark mode?", "How do I disable dark mode?"),
    ("negation", "Is aspirin safe?", "Is aspirin unsafe?"),
    ("negation", "Why does it not start but stop?", "Why does it not stop but start?"),
    ("comparison", "Which city is largest?", "Which city is smallest?"),
    ("comparison", "What to do before surgery", "What to do after surgery"),
    ("comparison", "How can I become more happy?", "How can I become less happy?"),
    ("direction", "Flights from Boston to Denver", "Flights from Denver to Boston"),
    ("direction", "Does Alice owe Bob money?", "Does Bob owe Alice money?"),
    ("direction", "Did Samuel miss the estate?", "Was Samuel missed by the estate?"),
    ("direction", "Would he leave her?", "Would she leave him?"),
    ("direction", "On what date did Rome attack Carthage?", "On what date did Carthage attack Rome?"),
    ("direction", "Who paid Anna?", "Whom did Anna pay?"),
    ("direction", "What do spiders eat?", "What eats spiders?"),
    ("names", "Who runs the city of Lima today?", "Who runs the city of Quito today?"),
    ("names", "Who is the president?", "Who is the president of Kenya?"),
    ("language", "Write a note in German", "Write a note in Dutch"),
    ("language", "Where is the station?", "Где находится вокзал?"),
    ("format", "List the planets as JSON", "List the planets as a markdown table"),
    ("format", "Explain tides", "Explain tides briefly"),
    ("scope", "Delete all the rows", "Delete some of the rows"),
    ("scope", "Show unread mail", "Show only unread mail"),
    ("scope", "Is he a cook or a waiter?", "Is he a cook and a waiter?"),
    ("tense", "Who is the king?", "Who was the king?"),
    ("tense", "Must I wear a helmet?", "May I wear a helmet?"),
    ("tense", "Is he a pilot?", "Is he becoming a pilot?"),
    ("aspect", "Who invented the telephone?", "When was the telephone invented?"),
    ("aspect", "Why do cats purr?", "How do cats purr?"),
    ("aspect", "When was the treaty signed?", "What led to the treaty being signed?"),
    ("slots", "What is the salary of a nurse?", "What is the workday of a nurse?"),
    ("slots", "Is he an organizer?", "Is he an official organizer?"),
    (
        "slots",
        "Rate it in one word:\nreview: it came soon and works",
        "Rate it in one word:\nreview: broke after one use",
    ),
    ("slots", "what does a tiger eat in winter", "in winter what is it that a lion eats"),
]


@pytest.mark.parametrize(("guard", "a", "b"), TABLE)
def test_each_guard_objects_to_what_it_is_named_for(guard, a, b):
    """Alone, in both directions; with only the others enabled its name never comes up."""
    assert object_to(a, b, (guard,)) == guard
    assert object_to(b, a, (guard,)) == guard
    assert object_to(a, b, set(GUARDS) - {guard}) != guard


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Is a $20 tip too much?", "Is a 20 dollar tip too much?"),
        ("What is 1,000 plus 1?", "What is one thousand plus 1?"),
        ("Which one is better?", "Which is better?"),
        ("How can I be more optimistic?", "How can I be less pessimistic?"),
        ("Is it not dangerous to swim here?", "Is it safe to swim here?"),
        ("I don't know how to log in", "How do I sign in?"),
        ("Was the fence painted by Nora?", "Did Nora paint the fence?"),
        ("Is Ana married to Ben?", "Is Ben married to Ana?"),
        ("Who is Donald Trump?", "Who is Trump?"),
        ("Is it safe in Cairo, Egypt?", "Is it safe in Cairo?"),
        ("What is the TV series Lost about?", "What is Lost about?"),
        ("Why is the sky blue?", "What makes the sky blue?"),
        ("What year did Tesla die?", "When did Tesla die?"),
        ("How do I use a web site builder?", "How do I use a website builder?"),
        ("How do I tell whether he is honest or not?", "How do I tell whether he is honest?"),
        ("What are the top 10 films?", "What are the top films?"),
        ("What is the UAE?", "What is the United Arab Emirates?"),
    ],
)
def test_what_means_the_same_raises_no_objection(a, b):
    """Formats, double negation, voice, symmetry, apposition and short forms are seen through."""
    assert object_to(a, b) is None
    assert object_to(b, a) is None


def test_the_names_of_the_guards_are_those_the_config_allows():
    """A guard that cannot be named in the config could not be switched off."""
    assert tuple(GUARDS) == GUARD_NAMES


def test_no_guard_objects_when_none_is_enabled():
    """Switching all guards off leaves the similarity alone to decide."""
    assert object_to("Is 91 a prime number?", "Is 97 a prime number?", ()) is None


FRAGMENTS = """Is the what who 3 $20 50% 1,000 twenty one hundred May 2024-05-03 9 am not can't no never best worst from
to by a b Paris paris Boston and or 'quoted' `code` x>=5 != report_v1.pdf ? , . 法国 Берлин
\u0130 ß \ufb01 \u0661\u0662 ½ É -r v2.10 o'clock s U.S. more less happy sad before after used to be
become * & / - -- () "" I II US"""
fragments = st.sampled_from(FRAGMENTS.split())
texts = st.one_of(st.text(max_size=60), st.lists(fragments, max_size=14).map(" ".join))


@given(texts, texts)
def test_guards_are_symmetric_and_never_raise(a, b):
    """Whoever asks first, the verdict is the same, for any text at all."""
    for name in GUARDS:
        assert object_to(a, b, (name,)) == object_to(b, a, (name,))


@given(texts)
def test_a_question_is_never_kept_from_its_own_answer(text):
    """Not even when it is read twice."""
    pair = compare(read(text), read.__wrapped__(text))

    assert object_to(text, text) is None
    assert [name for name, guard in GUARDS.items() if guard(pair)] == []


SAYINGS = words(
    """half a third of one quarter 1/2 3/4 and cup aged 60 years old age single sentence larger than highest tower when
    was held fought return it as json short for substitute with instead use book booking how many left update my i
    address unable to world war ii eli5 dob birth date bce ce fill out what is 5 7 times * + x squared w/ b/c x²
    können sie mir bitte drei c'est quoi le von wem wurde me puedes explicar schreib moi mach an keep from running"""
)
sayings = st.lists(st.sampled_from(sorted(SAYINGS)), max_size=12).map(" ".join)


@given(sayings, sayings)
def test_sayings_in_any_order_are_read_to_their_end(a, b):
    """What is read for one saying may begin another; that ends, and says the same whoever asks first."""
    assert object_to(a, a + " ") is None
    assert object_to(a, b) == object_to(b, a)


@given(texts, st.sampled_from([" ", "  ", "\n", "\t"]))
def test_white_space_round_a_question_changes_nothing(text, space):
    """Clients add and strip it without meaning anything."""
    assert object_to(text, space + text + space) is None


LONG = "How do I move the orders of last year from the old table in MySQL to PostgreSQL within an hour? " * 10


def test_two_questions_over_one_long_text_are_told_apart_without_reading_it(monkeypatch):
    """Else two prompts of 8 kB took 35 ms of everybody's time on a slow machine, for each of five neighbours."""
    context = "The east gate opens at seven and the west gate an hour later. " * 130
    asks = [
        f"Answer from this text.\n\n{context}\n\nQuestion: When does the {side} gate open?" for side in ("east", "west")
    ]
    lengths = []
    monkeypatch.setattr(guards, "read", lambda text: lengths.append(len(text)) or read(text))

    assert object_to(*asks) == "comparison"
    assert max(lengths) < 100

    guards.rehearse(asks[0])
    assert max(lengths) <= 500


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_takes_less_than_fifty_microseconds_on_two_hundred_words(name):
    """The best of many runs over two long questions that were read before, as a busy machine only adds time.

    Each round is held against how fast the machine is at that moment: its pace changes from one second to the next.
    There are more rounds as long as none was fast enough: one quiet moment is what it takes.
    """
    pair = compare(read(LONG), read(LONG.replace("hour", "day").replace("orders", "customers")))
    guard = GUARDS[name]
    best_s, rounds = 1.0, 0
    while best_s >= 50e-6 and rounds < 200:
        slow, rounds = slowness(), rounds + 1
        for _ in range(20):
            began = time.perf_counter()
            guard(pair)
            best_s = min(best_s, (time.perf_counter() - began) / slow)

    assert len(LONG.split()) == 200
    assert best_s < 50e-6


@pytest.mark.parametrize(
    "piece", ["translate ", "is ", "how say ", "? ", "a: ", "translate: ", "\n", " ", "the word ", "???"]
)
def test_an_exact_text_is_looked_for_in_linear_time(piece):
    """However a prompt of 8 kB is crafted; a thousandth of this is usual."""
    text = f"translate {piece * (8000 // len(piece))}"
    reading = read(text)
    start_s = time.perf_counter()
    exact_text.__wrapped__(reading)

    assert time.perf_counter() - start_s < 50e-3 * slowness()


@pytest.mark.parametrize(
    "piece",
    ["A a ", "aA", "aA ", "a_ ", "[a-", "[", "/a", "://a/", "$a ", "x.y ", "'ab' ", '"', "Turkey turkey ", "a9A"],
)
def test_capitals_are_compared_in_linear_time(piece):
    """However a prompt of 8 kB is crafted."""
    text = piece * (8000 // len(piece))
    a, b = read(text), read(text.swapcase())
    start_s = time.perf_counter()
    other_capitals(a, b)

    assert time.perf_counter() - start_s < 50e-3 * slowness()


@pytest.mark.parametrize(
    "piece", ["password: ", "password is a ", "the branch ", "grep -a ", "grep ", "set A to ", "name "]
)
def test_labelled_values_are_compared_in_linear_time(piece):
    """However a prompt of 8 kB is crafted."""
    text = piece * (8000 // len(piece))
    a, b = read(text), read(f"{text}b")
    start_s = time.perf_counter()
    other_value(a, b)

    assert time.perf_counter() - start_s < 50e-3 * slowness()
