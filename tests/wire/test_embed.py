"""Which requests for vectors share one and which do not, in all three dialects."""

import json

import pytest

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import dialects, embed, embeddings, openai_embeddings
from cacheproxy.wire.embedding import INPUTS_MAX, Cost, Made, Vector

TEXT = {embed: "input", openai_embeddings: "input", embeddings: "prompt"}
ALL = list(TEXT)
LISTS = [embed, openai_embeddings]


def body(dialect, text="a", **members):
    """A request's bytes."""
    return json.dumps({"model": "m", TEXT[dialect]: text} | members).encode()


def parsed(dialect, text="a", **members):
    """The ask in a request."""
    return dialect.parse(body(dialect, text, **members))


def test_each_path_has_its_dialect():
    """And each dialect a name of its own."""
    assert sorted(dialects.EMBED_BY_PATH) == ["/api/embed", "/api/embeddings", "/v1/embeddings"]
    assert len({dialect.NAME for dialect in dialects.EMBED_BY_PATH.values()}) == 3


@pytest.mark.case(94)
@pytest.mark.parametrize("dialect", LISTS)
def test_texts_of_a_list_are_keyed_as_each_alone(dialect):
    """In their order; an empty one inside a list is a text."""
    texts = ["a", "b", "a", "", "a\n"]
    alone = [parsed(dialect, [text]).canonical_inputs[0] for text in texts]
    assert list(parsed(dialect, texts).canonical_inputs) == alone
    assert len(set(alone)) == 4


@pytest.mark.case(93)
def test_only_the_two_that_give_unit_vectors_share():
    """And both key a text alike."""
    keys = {dialect: (parsed(dialect).ask.family, parsed(dialect).canonical_inputs) for dialect in ALL}
    assert keys[embed] == keys[openai_embeddings]
    assert keys[embeddings][0] != keys[embed][0]


@pytest.mark.case(92)
@pytest.mark.parametrize("dialect", ALL)
def test_what_does_not_shape_a_vector_is_not_in_the_key(dialect):
    """How long to stay loaded, the encoding, what is null, and what says the default."""
    variants = [{}, {"options": None}]
    if dialect is openai_embeddings:
        variants += [
            {"encoding_format": "base64"},
            {"encoding_format": "FLOAT"},
            {"dimensions": 0},
            {"cache": {"ttl": 9}},
        ]
    else:
        variants += [{"keep_alive": "5m"}, {"options": {"cache": False}}, {"options": {"seed": None}}]
    assert len({parsed(dialect, **variant).canonical_inputs for variant in variants}) == 1


@pytest.mark.case(92)
@pytest.mark.parametrize("dialect", ALL)
def test_whatever_else_is_said_is_in_the_key(dialect):
    """Also members that nobody knows yet."""
    variants = [{}, {"options": {"num_ctx": 8}}, {"options": {"num_ctx": 9}}, {"later": 1}]
    if dialect is not embeddings:
        variants += [{"dimensions": 8}, {"dimensions": 9}, {"truncate": False}]
    assert len({parsed(dialect, **variant).canonical_inputs for variant in variants}) == len(variants)


@pytest.mark.parametrize("members", [{"truncate": False}, {"options": {"num_ctx": 8}}, {"later": 1}])
def test_what_openai_requests_do_not_know_never_equals_what_native_ones_do(members):
    """The same member is acted on here and ignored there."""
    native, openai = parsed(embed, **members), parsed(openai_embeddings, **members)
    assert native.canonical_inputs != openai.canonical_inputs


@pytest.mark.case(95)
@pytest.mark.parametrize("text", [[1, 2], ["a", 1], ["a", None], {"a": 1}, 7, False])
@pytest.mark.parametrize("dialect", ALL)
def test_what_is_no_text_has_no_key(dialect, text):
    """Ollama refuses it."""
    with pytest.raises(UnkeyableError, match="input"):
        parsed(dialect, text)


@pytest.mark.case(24)
@pytest.mark.parametrize(
    ("dialect", "text", "reason"),
    [
        (embed, "", "load"),
        (embed, [], "load"),
        (embed, None, "load"),
        (embeddings, "", "load"),
        (openai_embeddings, [], "input"),
        (openai_embeddings, None, "input"),
    ],
)
def test_no_text_has_no_key(dialect, text, reason):
    """The native routes load the model, the other refuses."""
    with pytest.raises(UnkeyableError, match=reason):
        parsed(dialect, text)


@pytest.mark.parametrize("dialect", LISTS)
def test_the_number_of_texts_is_bounded(dialect):
    """One more has no key."""
    assert len(parsed(dialect, ["a"] * INPUTS_MAX).inputs) == INPUTS_MAX
    with pytest.raises(UnkeyableError, match="too-many-inputs"):
        parsed(dialect, ["a"] * (INPUTS_MAX + 1))


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize(
    ("spelling", "reason"),
    [("Model", "ambiguous-keys"), ("ENCODING_FORMAT", "ambiguous-keys"), ("Options", "ambiguous-keys")],
)
def test_members_in_other_letter_case_have_no_key(dialect, spelling, reason):
    """Where Ollama takes them for the known ones."""
    known = {"Model"} | ({"ENCODING_FORMAT"} if dialect is openai_embeddings else {"Options"})
    if spelling in known:
        with pytest.raises(UnkeyableError, match=reason):
            parsed(dialect, **{spelling: "x"})
    else:
        assert parsed(dialect, **{spelling: "x"}).inputs == ("a",)


@pytest.mark.parametrize("dialect", ALL)
def test_half_a_surrogate_pair_has_no_key(dialect):
    """Ollama reads another character in its place."""
    with pytest.raises(UnkeyableError, match="lone-surrogate"):
        parsed(dialect, "\ud800")


@pytest.mark.parametrize("dialect", LISTS)
def test_a_request_for_some_texts_says_all_else_as_it_was(dialect):
    """The cache's own members taken out."""
    members = {"dimensions": 8, "options": {"num_ctx": 8, "cache": {"ttl": 5}}}
    data = body(dialect, ["a", "b", "c"], **members)
    assert json.loads(dialect.ask_for(data, ["c", "a"])) == {
        "model": "m",
        "input": ["c", "a"],
        "dimensions": 8,
        "options": {"num_ctx": 8},
    }


def test_the_older_route_asks_for_its_one_text():
    """It has no lists."""
    assert json.loads(embeddings.ask_for(body(embeddings), ["b"])) == {"model": "m", "prompt": "b"}


OPENAI_ROW = '{{"object":"embedding","embedding":{},"index":{}}}'


def openai_reply(*vectors, usage='{"prompt_tokens":3,"total_tokens":3}', first=0):
    """A reply of `/v1/embeddings`."""
    rows = ",".join(OPENAI_ROW.format(vector, index) for index, vector in enumerate(vectors, first))
    return f'{{"object":"list","data":[{rows}],"model":"m","usage":{usage}}}\n'.encode()


GOOD_REPLIES = [
    (embed, b'{"model":"m","embeddings":[[0.5],[0.25]],"total_duration":5,"prompt_eval_count":3}', ["[0.5]", "[0.25]"]),
    (openai_embeddings, openai_reply("[0.5]", "[0.25]"), ["[0.5]", "[0.25]"]),
    (openai_embeddings, openai_reply('"AAAAPw=="', '"AACAPg=="'), ["AAAAPw==", "AACAPg=="]),
    (embeddings, b'{"embedding":[0.5]}', ["[0.5]"]),
]


@pytest.mark.parametrize(("dialect", "reply", "vectors"), GOOD_REPLIES)
def test_a_reply_taken_apart_and_put_together_is_the_same_bytes(dialect, reply, vectors):
    """Nothing in it is spelt again."""
    texts, final = dialect.split(reply, len(vectors))
    assert texts == vectors
    text = ["a", "b"] if len(vectors) == 2 else "a"
    asked = parsed(dialect, text, **({"encoding_format": "base64"} if vectors[0].startswith("A") else {}))
    cost = Cost("one", dialect.NAME, len(vectors), final)
    made = Made(asked, [Vector(vector, cost) for vector in vectors], None, 1.0)
    assert dialect.whole(made) == reply


@pytest.mark.parametrize(
    ("dialect", "reply", "count"),
    [
        (embed, b'{"model":"m","embeddings":[[0.5]]}', 2),
        (embed, b'{"model":"m","embeddings":[[0.5],[0.5]]}', 1),
        (embed, b'{"model":"m","embeddings":[["0.5"]]}', 1),
        (embed, b'{"model":"m","embeddings":[[0.5]],"more":[1]}', 1),
        (embed, b'{"model":"[1]","embeddings":[0.5]}', 1),
        (embed, b'{"error":"no"}', 1),
        (embed, b"[[0.5]]", 1),
        (openai_embeddings, openai_reply("[0.5]"), 2),
        (openai_embeddings, openai_reply("[0.5]", first=1), 1),
        (openai_embeddings, openai_reply("[0.5]", '"AAAAPw=="'), 2),
        (openai_embeddings, openai_reply('"AAAAPw="'), 1),
        (openai_embeddings, openai_reply('"AADAfw=="'), 1),
        (openai_embeddings, openai_reply("null"), 1),
        (openai_embeddings, openai_reply("[0.5]", usage="null"), 1),
        (openai_embeddings, openai_reply("[0.5]", usage='{"prompt_tokens":3,"total_tokens":4}'), 1),
        (openai_embeddings, b'{"data":[7],"usage":{}}', 1),
        (embeddings, b'{"embedding":[]}', 1),
        (embeddings, b'{"embedding":[0.5],"more":1}', 1),
    ],
)
def test_a_reply_of_another_form_is_not_taken_apart(dialect, reply, count):
    """It is passed on as it is."""
    with pytest.raises(ValueError, match=r"."):
        dialect.split(reply, count)


def test_openai_uses_only_vectors_whose_tokens_are_known():
    """A call's sum tells nothing of one of its texts."""
    alone = Vector("[0.5]", Cost("one", "embed", 1, {"prompt_eval_count": 3}))
    pair = Vector("[0.5]", Cost("two", "embed", 2, {"prompt_eval_count": 5}))
    uncounted = Vector("[0.5]", Cost("three", "embed", 1, {}))
    stored = [("a", alone), ("b", pair), ("c", uncounted), ("d", None)]
    assert openai_embeddings.usable(stored) == [alone, None, None, None]
    assert openai_embeddings.usable([*stored, ("e", pair)]) == [alone, pair, None, None, pair]
    assert embed.usable(stored) == [alone, pair, uncounted, None]


def test_the_native_route_uses_only_its_own():
    """No durations came with the others."""
    own, other = (Vector("[0.5]", Cost("one", dialect.NAME, 1, {})) for dialect in (embed, openai_embeddings))
    assert embed.usable([("a", own), ("b", other)]) == [own, None]


def test_a_native_reply_of_several_calls_tells_its_own_time():
    """And the time the model took to load, if a call was made for it."""
    asked = parsed(embed, ["a", "b"])
    first = Vector("[0.5]", Cost("one", "embed", 1, {"total_duration": 5, "load_duration": 1, "prompt_eval_count": 3}))
    second = Vector("[1]", Cost("two", "embed", 1, {"total_duration": 6, "load_duration": 2, "prompt_eval_count": 4}))
    hit = json.loads(embed.whole(Made(asked, [first, second], None, 0.25)))
    part = json.loads(embed.whole(Made(asked, [first, second], second.cost, 0.25)))

    assert hit == {
        "model": "m",
        "embeddings": [[0.5], [1]],
        "total_duration": 250_000_000,
        "prompt_eval_count": 7,
    }
    assert part == hit | {"load_duration": 2}
