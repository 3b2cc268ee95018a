"""What both native requests share: the cache's own controls in the body, and what is sent upstream instead."""

import json

import pytest

from cacheproxy.wire import chat, generate

PLAIN = {"model": "m", "prompt": "p", "options": {"seed": 1}}


def parsed(options, **members):
    """A prompt with these options."""
    return generate.parse(json.dumps(PLAIN | members | {"options": options}).encode())


def test_controls_are_taken_out_of_the_key_and_of_what_is_forwarded():
    """Ollama never sees `options.cache`, and an ask with it shares the answer of one without."""
    ask = parsed({"seed": 1, "cache": {"ttl": "1h"}}, stream=False, tomorrow=[1])

    assert ask.controls == {"ttl": "1h"}
    assert ask.canonical == parsed({"seed": 1}, tomorrow=[1]).canonical
    assert json.loads(ask.forward or b"") == PLAIN | {"stream": False, "tomorrow": [1]}


@pytest.mark.parametrize(
    ("value", "expected"), [(False, {"mode": False}), ("off", {"mode": "off"}), (None, {"mode": None})]
)
def test_a_control_that_is_no_object_is_the_mode(value, expected):
    """`"cache": false` is what people write first."""
    ask = parsed({"seed": 1, "cache": value})

    assert ask.controls == expected
    assert json.loads(ask.forward or b"") == PLAIN


def test_only_options_that_came_with_nulls_are_forwarded_with_them():
    """What the client sent besides its controls is not cleaned up on the way."""
    ask = parsed({"seed": None, "cache": {}}, think=None)

    assert json.loads(ask.forward or b"") == PLAIN | {"options": {"seed": None}, "think": None}


@pytest.mark.parametrize("options", [{"Cache": {"ttl": 1}}, {"cache ": 1}])
def test_other_spellings_are_options_like_any(options):
    """They stay in the key and go upstream as they came."""
    ask = parsed(options)

    assert ask.controls == {}
    assert ask.forward is None
    assert ask.canonical != parsed({}).canonical


@pytest.mark.parametrize("dialect", [chat, generate])
def test_a_dialect_is_found_by_its_path(dialect):
    """Its asks carry its name."""
    from cacheproxy.wire import dialects

    assert dialects.BY_PATH[dialect.PATH] is dialect
    assert (
        dialect.parse(b'{"model":"m","prompt":"p","messages":[{"role":"user","content":"p"}]}').dialect == dialect.NAME
    )
