"""What is known of a reply's tokens follows from the calls its vectors came in, and nothing else."""

import pytest

from cacheproxy.errors import UnkeyableError
from cacheproxy.model import Answer
from cacheproxy.wire import embedding
from cacheproxy.wire.embedding import Cost, Vector


def call(name, count, inputs):
    """Vectors of one call, by text; `count` tokens in all."""
    cost = Cost(name, "embed", len(inputs), {"prompt_eval_count": count, "total_duration": 1_000_000_000})
    return {text: Vector("[0.5]", cost, inputs.count(text)) for text in inputs}


ALONE = call("one", 3, ["a"])
PAIR = call("two", 7, ["b", "c"])
REPEATED = call("three", 11, ["d", "d", "e"])
KNOWN = ALONE | PAIR | REPEATED


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [
        ("a", 3),
        ("aaa", 9),
        ("bc", 7),
        ("cb", 7),
        ("cbbc", 14),
        ("abc", 10),
        ("ded", 11),
        ("dedded", 22),
        ("b", None),
        ("bbc", None),
        ("bb", None),
        ("ab", None),
        ("de", None),
        ("dde" + "b", None),
    ],
)
def test_tokens_are_the_sum_of_whole_calls_or_not_known(texts, tokens):
    """A part of a call has no known share of its sum."""
    assert embedding.tokens([(text, KNOWN[text]) for text in texts]) == tokens


def test_tokens_of_a_text_without_a_vector_are_not_known():
    """Nor are those of a list with one."""
    assert embedding.tokens([("a", KNOWN["a"]), ("z", None)]) is None


def test_tokens_that_ollama_did_not_count_are_not_known():
    """Older versions left them out."""
    assert embedding.tokens([("a", Vector("[0.5]", Cost("one", "embed", 1, {})))]) is None


def test_time_is_that_of_whole_calls():
    """Once each, however often their texts stand there."""
    assert embedding.seconds([(text, KNOWN[text]) for text in "aabc" + "d"]) == 2.0


def test_a_vector_comes_back_from_the_form_entries_have():
    """With its call."""
    vector = REPEATED["d"]
    assert embedding.vector_of(embedding.answer_of(vector)) == vector


@pytest.mark.parametrize(
    "change", [{"call": 1}, {"call": ""}, {"inputs": 0}, {"times": "1"}, {"final": []}, {"by": None}]
)
def test_an_entry_without_its_call_is_no_vector(change):
    """Whoever wrote it."""
    answer = embedding.answer_of(ALONE["a"])
    with pytest.raises(ValueError, match=r"call|texts"):
        embedding.vector_of(Answer(text=answer.text, final={**answer.final, **change}))


def test_an_answer_of_another_kind_is_no_vector():
    """Its key would not match, but nothing depends on that."""
    with pytest.raises(ValueError, match="no vector"):
        embedding.vector_of(Answer(text="Because."))


def test_lists_of_numbers_keep_their_spelling():
    """What is around them is read as JSON."""
    texts, around = embedding.rows(b'{"model":"m","embeddings":[[1e-7,-0,0.10],[ 1,2 , 3]],"n":1}')
    assert texts == ["[1e-7,-0,0.10]", "[ 1,2 , 3]"]
    assert around == {"model": "m", "embeddings": [[], []], "n": 1}


@pytest.mark.parametrize("lists", ["[]", "[1],[1,2]", "[1,]", "[1e999]", "[01]", "[1],[]", "[1"])
def test_lists_that_are_no_vectors_are_refused(lists):
    """Empty ones, ones of different lengths, and what only looks like numbers."""
    with pytest.raises(ValueError, match=r".") as caught:
        embedding.rows(f'{{"embeddings":[{lists}]}}'.encode())
    assert not isinstance(caught.value, UnkeyableError)
