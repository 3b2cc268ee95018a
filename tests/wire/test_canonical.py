"""The pinned canonical form, the keys made from it, and what in an option or a message makes a difference."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import canonical, chat, generate

DIGEST = "365c0bd3c000a25d28ddbf732fe1c6add414de7275464c4e4d1c3b5fcb5d8ad1"
SECRET = bytes(range(32))
IMAGE = base64.b64encode(bytes(range(256))).decode()
SCHEMA = {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "number"}}, "required": ["z"]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"properties": {"tz": {}, "at": {}}}}}
ASSISTANT = {"role": "assistant", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1}}}]}


def user(text, **members):
    """One user message."""
    return {"role": "user", "content": text, **members}


def key_of(ask, **changes):
    """The exact key and the first bytes of the check, as admission would make them."""
    parts = {
        "family": ask.family,
        "digest": DIGEST,
        "model_name": "registry.ollama.ai/library/m:latest" if ask.name_matters else "",
        "server_version": "0.33.0",
        "partition": "",
    } | changes
    material = canonical.key_material(ask.canonical, **parts)
    key = canonical.exact_key("cacheproxy", material, digest=DIGEST, temperature=ask.temperature)
    return key, canonical.check_digest(material, SECRET).hex()[:16]


GOLDEN = [
    (
        chat,
        {"messages": [user("hi")]},
        "cacheproxy:answer:a0a27eb7a71174bc5d505c2cca9284c3:365c0bd3c000:default b18d804612ef43e2",
    ),
    (
        chat,
        {"messages": [user("¿Qué? 漢字 🙂 \u2028 \x85 <&>")]},
        "cacheproxy:answer:5364bc2c52a433e2c1c36761ec959c1b:365c0bd3c000:default 4761dda0ed272709",
    ),
    (
        chat,
        {"messages": [{"role": "SYSTEM", "content": "be brief"}, user("hi ")]},
        "cacheproxy:answer:cdfb4660707443c425ef93d9e70330d3:365c0bd3c000:default 9637224ee97b133c",
    ),
    (
        chat,
        {"messages": [user("hi")], "options": {"temperature": 0.7, "seed": 42, "stop": ["\n"]}},
        "cacheproxy:answer:e447ae280bd69253602caaf85023543a:365c0bd3c000:0.7 17880a75be6e29ad",
    ),
    (
        chat,
        {"messages": [user("hi")], "options": {"temperature": 0, "num_ctx": 4096.0, "nova": [1.5]}},
        "cacheproxy:answer:f5666b4a029a6e2e67c3d1a7826c0357:365c0bd3c000:0 5024672174f2023e",
    ),
    (
        chat,
        {"messages": [user("hi")], "format": SCHEMA, "think": "low"},
        "cacheproxy:answer:3013bb280f9f46f41338a3a528f81aa7:365c0bd3c000:default 146ed4eea92c704f",
    ),
    (
        chat,
        {"messages": [user("time?"), ASSISTANT, {"role": "tool", "content": "1"}], "tools": [TOOL]},
        "cacheproxy:answer:b9464b5da637064e2f929844c8ea770a:365c0bd3c000:default de79141ee7c9844b",
    ),
    (
        chat,
        {"messages": [user("what is it?", images=[IMAGE])], "logprobs": True, "top_logprobs": 3},
        "cacheproxy:answer:2feada740b25c38049ccf2e1a8ebc6e1:365c0bd3c000:default 193d4659ae0ea479",
    ),
    (
        generate,
        {"prompt": "Why is the sky blue?"},
        "cacheproxy:answer:f2a869d09d96832b2515cd1f4c07adeb:365c0bd3c000:default fa8d01db23d4a769",
    ),
    (
        generate,
        {"prompt": "é", "system": "s", "template": "{{ .Prompt }}", "suffix": "x", "context": [1, 2, 3]},
        "cacheproxy:answer:15e38872486b72c8d8c73a60eca8c2bf:365c0bd3c000:default 71a1426caa56d661",
    ),
    (
        generate,
        {"prompt": "p", "raw": True, "format": "json", "truncate": False, "shift": False},
        "cacheproxy:answer:ae53da6f5c7f6e66210e1bde9cfc109c:365c0bd3c000:default 3ec86303062b6802",
    ),
    (
        generate,
        {"prompt": "p", "images": [IMAGE], "think": True, "options": {"top_p": 0.9, "repeat_penalty": 1}},
        "cacheproxy:answer:448c693e474c49e9b246f138da660060:365c0bd3c000:default 0656fadc29913b7e",
    ),
]
"""Change one only together with `KEY_VERSION`: entries made before would otherwise be found under new rules."""


@pytest.mark.parametrize(("dialect", "body", "expected"), GOLDEN)
def test_keys_are_the_pinned_ones(dialect, body, expected):
    """A change of the canonical form is seen here before it is seen as a wrong hit."""
    assert " ".join(key_of(dialect.parse(json.dumps({"model": "m", **body}).encode()))) == expected


def test_the_canonical_form_is_sorted_compact_json():
    """What the pinned keys are made from, in plain sight."""
    body = {"stream": False, "messages": [{"images": [], "content": "<é>", "role": "User"}], "model": "M"}
    body |= {"options": {"top_k": 40.9, "temperature": 0.5, "seed": None}, "think": None, "keep_alive": "5m"}

    assert chat.parse(json.dumps(body).encode()).canonical == (
        b'{"messages":[{"content":"\\u003c\xc3\xa9\\u003e","role":"user"}],"options":{"temperature":0.5,"top_k":40}}'
    )


@pytest.mark.fault(95)
@given(parts=st.lists(st.text(max_size=6), min_size=8, max_size=8), tail=st.binary(max_size=8))
def test_no_part_of_a_key_runs_into_the_next(parts, tail):
    """Values that hold quotes, commas, colons or line feeds cannot imitate another split of the same text."""
    names = ("family", "digest", "model_name", "server_version", "partition")
    one = canonical.key_material(tail, **dict(zip(names, parts[:5], strict=True)))
    joined = "".join(parts[:5])
    other_parts = [joined[:3], joined[3:], "", parts[5], parts[6]]
    other = canonical.key_material(tail, **dict(zip(names, other_parts, strict=True)))

    assert (one == other) == (parts[:5] == other_parts)


@pytest.mark.fault(95)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"family": 'a","b'}, {"family": "a", "digest": "b"}),
        ({"model_name": "a\n{}"}, {"model_name": "a"}),
        ({"partition": "x", "server_version": ""}, {"partition": "", "server_version": "x"}),
        ({"digest": "a:b"}, {"digest": "a", "model_name": "b"}),
    ],
)
def test_separators_in_a_part_make_no_other_key(one, other):
    """The usual ways to make two requests look like one."""
    empty = {"family": "", "digest": "", "model_name": "", "server_version": "", "partition": ""}

    assert canonical.key_material(b"{}", **empty | one) != canonical.key_material(b"{}", **empty | other)


@pytest.mark.parametrize("name", ["family", "digest", "model_name", "server_version", "partition"])
def test_each_part_of_a_key_changes_it(name):
    """Model, Ollama's version and the caller's partition are as much part of it as the text."""
    ask = generate.parse(b'{"model":"m","prompt":"p"}')

    assert key_of(ask) != key_of(ask, **{name: "another"})


@pytest.mark.parametrize(
    ("temperature", "shown"), [(None, "default"), (0.0, "0"), (0.699999988079071, "0.7"), (1.0, "1"), (1e39, "1e+39")]
)
def test_a_key_shows_model_and_temperature(temperature, shown):
    """An operator can read both from `redis-cli`."""
    key = canonical.exact_key("p", b"x", digest=DIGEST, temperature=temperature)

    assert key.split(":")[:2] == ["p", "answer"]
    assert key.split(":")[3:] == [DIGEST[:12], shown]


def test_the_check_depends_on_the_secret_and_on_every_byte():
    """It is what makes a found collision of xxh3 useless."""
    checks = {
        canonical.check_digest(material, secret) for material in (b"a", b"b", b"") for secret in (SECRET, b"other", b"")
    }

    assert len(checks) == 9
    assert {len(check) for check in checks} == {32}


@pytest.mark.fault(85)
@pytest.mark.parametrize(
    ("given_options", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"temperature": None, "seed": None}, {}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": -0.0}, {"temperature": 0.0}),
        ({"temperature": 0.7}, {"temperature": 0.699999988079071}),
        ({"temperature": 0.70000001}, {"temperature": 0.699999988079071}),
        ({"temperature": 1e-60}, {"temperature": 0.0}),
        ({"temperature": 1e39}, {"temperature": 1e39}),
        ({"temperature": 10**39}, {"temperature": 10**39}),
        ({"temperature": "0.7"}, {"temperature": "0.7"}),
        ({"temperature": True}, {"temperature": True}),
        ({"num_ctx": 4096.0, "top_k": 40.9, "seed": -1.5}, {"num_ctx": 4096, "top_k": 40, "seed": -1}),
        ({"seed": 2**53 + 1}, {"seed": 2**53 + 1}),
        ({"stop": ["b", "a"], "use_mmap": False}, {"stop": ["b", "a"], "use_mmap": False}),
        ({"mirostat": 2.0, "new_option": {"b": 1, "a": 2}}, {"mirostat": 2.0, "new_option": {"b": 1, "a": 2}}),
    ],
)
def test_options_are_read_as_ollama_reads_them(given_options, expected):
    """Floats are float32, whole numbers are truncated, nulls are absent, the unknown stays."""
    found = canonical.options(given_options)

    assert found == expected
    assert {name: type(value) for name, value in found.items() if name != "temperature"} == {
        name: type(value) for name, value in expected.items() if name != "temperature"
    }
    assert str(found.get("temperature")) != "-0.0"


@pytest.mark.parametrize("given_options", [[], "x", 1, True])
def test_options_of_another_type_are_unkeyable(given_options):
    """Ollama refuses them."""
    with pytest.raises(UnkeyableError, match="options"):
        canonical.options(given_options)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x", "messages"),
        (None, "messages"),
        ({"role": 1}, "messages"),
        ({"role": "user", "content": ["part"]}, "messages"),
        ({"role": "user", "content": []}, "messages"),
        ({"role": "user", "content": 0}, "messages"),
        ({"role": "user", "content": False}, "messages"),
        ({"role": "user", "content": {}}, "messages"),
        ({"role": [], "content": "x"}, "messages"),
        ({"role": "user", "tool_calls": ""}, "messages"),
        ({"role": "user", "images": ""}, "messages"),
        ({"role": "user", "images": {}}, "messages"),
        ({"role": "user", "images": [1]}, "images"),
        ({"role": "user", "images": ["no base64!"]}, "images"),
        ({"role": "user", "images": ["QUI"]}, "images"),
        *(({"role": "user", "images": [text]}, "images") for text in ("QUJD=", "QUJD==", "QUJD===", "QUJD====")),
        *(({"role": "user", "images": [text]}, "images") for text in ("QUI==", "QQ===", "QUI=QUJD", "====", "QUJD\n=")),
        ({"role": "user", "images": ["data:image/png;base64,QUI="]}, "images"),
        ({"Role": "user"}, "ambiguous-keys"),
        ({"role": "user", "conten\u0074": "x", "Content": "y"}, "ambiguous-keys"),
        ({"role": "user", "image\u017f": []}, "ambiguous-keys"),
    ],
)
def test_a_message_ollama_would_refuse_or_read_otherwise_is_unkeyable(message, expected):
    """An empty value of a wrong type is refused by Ollama too, so it is not the same as an absent one."""
    with pytest.raises(UnkeyableError, match=expected):
        canonical.messages([message])


@pytest.mark.parametrize("value", [None, {}, "x", 1])
def test_messages_must_be_a_list(value):
    """Ollama says 400 to anything else."""
    with pytest.raises(UnkeyableError, match="messages"):
        canonical.messages(value)


def test_images_are_known_by_their_bytes():
    """Line breaks in the base64 say nothing, one other byte everything, and so does their order."""
    broken = IMAGE[:76] + "\r\n" + IMAGE[76:] + "\n"
    other = base64.b64encode(bytes(range(1, 256)) + b"\x00").decode()

    assert canonical.images([IMAGE]) == canonical.images([broken])
    assert canonical.images([IMAGE]) != canonical.images([other])
    assert canonical.images([IMAGE, other]) != canonical.images([other, IMAGE])
    assert canonical.images([]) == []


def test_partitions_are_apart_and_tell_nothing():
    """Equal pairs are one partition; a header's name counts as much as its value."""
    one = canonical.partition_hash([("authorization", "Bearer a")], SECRET)

    assert one == canonical.partition_hash([("authorization", "Bearer a")], SECRET)
    assert len(one) == 32
    assert "Bearer" not in one
    others = [
        canonical.partition_hash([("authorization", "Bearer b")], SECRET),
        canonical.partition_hash([("x-team", "Bearer a")], SECRET),
        canonical.partition_hash([("authorization", "Bearer a"), ("x-team", "")], SECRET),
        canonical.partition_hash([("authorization", "Bearer a")], b"another secret"),
        canonical.partition_hash([("authorization", "Bearer a\udce9")], SECRET),
        canonical.partition_hash([], SECRET),
    ]
    assert len({one, *others}) == 7
    assert others[-1] == ""


@given(
    one=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    other=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
)
def test_different_headers_never_share_a_partition(one, other):
    """Whatever stands in them."""
    same = canonical.partition_hash(one, SECRET) == canonical.partition_hash(other, SECRET)

    assert same == (one == other)


def test_a_scope_is_a_tag_of_fixed_length():
    """Safe in a search query whatever the setting was."""
    scopes = {canonical.scope_hash(material, SECRET) for material in (b"", b"a|b", b"*" * 10_000)}

    assert len(scopes) == 3
    assert all(len(scope) == 32 and int(scope, 16) >= 0 for scope in scopes)
