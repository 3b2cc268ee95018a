"""Which prompts share an answer and which do not, by the numbered cases of the contract."""

import json

import pytest

from cacheproxy.errors import UnkeyableError
from cacheproxy.wire import generate

ABSENT = object()
BASE = {"model": "m", "prompt": "p"}


def parsed(**members):
    """The ask in a request like BASE with other members; ABSENT takes one away."""
    merged = {name: value for name, value in (BASE | members).items() if value is not ABSENT}
    return generate.parse(json.dumps(merged).encode())


SAME = [
    (64, [{name: value} for name in ("suffix", "system", "template") for value in (ABSENT, None, "")]),
    (61, [{"raw": value} for value in (ABSENT, None, False)]),
    (63, [{"context": value} for value in (ABSENT, None)]),
    (64, [{"images": value} for value in (ABSENT, None, [])]),
    (64, [{"images": ["QUJD"]}, {"images": ["QU\nJD"]}]),
    (64, [{"stream": False}, {"keep_alive": 0}, {"options": {}}, {"format": ""}]),
]


@pytest.mark.parametrize(
    "variants", [pytest.param(variants, marks=pytest.mark.case(number), id=f"{number}") for number, variants in SAME]
)
def test_requests_ollama_acts_on_alike_share_a_key(variants):
    """Null and empty are absent where Ollama says so."""
    assert len({parsed(**variant).canonical for variant in variants}) == 1


DIFFERENT = [
    (61, [{"raw": True}, {}]),
    (62, [{"context": value} for value in ([1, 2], [2, 1], [1], [])] + [{}]),
    (63, [{"context": []}, {}]),
    (64, [{"suffix": "x"}, {"template": "x"}, {"system": "x"}, {"prompt": "x"}, {}]),
    (64, [{"images": value} for value in (["QUJD"], ["QUJE"], ["QUJD", "QUJE"], ["QUJE", "QUJD"])] + [{}]),
    (64, [{"width": 1}, {"height": 1}, {"steps": 1}, {"member_of_tomorrow": 1}, {}]),
    (64, [{"think": True}, {"format": "json"}, {"logprobs": True}, {"truncate": False}, {"shift": False}, {}]),
    (64, [{"system": " "}, {"system": "\n"}, {"prompt": "p "}, {"prompt": " p"}, {}]),
    (64, [{"temperature": 1}, {"options": {"temperature": 1}}, {}]),
]


@pytest.mark.parametrize(
    "variants",
    [pytest.param(variants, marks=pytest.mark.case(number), id=f"{number}") for number, variants in DIFFERENT],
)
def test_requests_whose_answers_may_differ_never_share_a_key(variants):
    """Each variant has a key of its own."""
    assert len({parsed(**variant).canonical for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({"prompt": ABSENT}, "load", marks=pytest.mark.case(20)),
        pytest.param({"prompt": None}, "load", marks=pytest.mark.case(20)),
        pytest.param({"prompt": ""}, "load", marks=pytest.mark.case(20)),
        pytest.param({"prompt": "", "keep_alive": 0}, "load", marks=pytest.mark.case(22)),
        pytest.param({"prompt": "", "system": "s", "images": ["QUJD"]}, "load", marks=pytest.mark.case(20)),
        pytest.param({"_debug_render_only": True}, "debug", marks=pytest.mark.case(26)),
        ({"prompt": ["p"]}, "not-text"),
        ({"prompt": 5}, "not-text"),
        ({"system": []}, "not-text"),
        ({"template": {}}, "not-text"),
        ({"suffix": False}, "not-text"),
        ({"images": ""}, "images"),
        ({"images": {}}, "images"),
        ({"images": ["%"]}, "images"),
        ({"Prompt": "other"}, "ambiguous-keys"),
        ({"\u017fystem": "other"}, "ambiguous-keys"),
        ({"keep_alive": "ten minutes"}, "keep-alive"),
    ],
)
def test_a_request_without_a_certain_meaning_has_no_key(members, expected):
    """It goes to Ollama as it came; the reason is counted."""
    with pytest.raises(UnkeyableError) as caught:
        parsed(**members)

    assert caught.value.reason == expected


def test_an_ask_keeps_what_the_reply_needs():
    """A prompt never depends on the model's name."""
    ask = parsed(model="M:8b", stream=False)

    assert (ask.dialect, ask.family, ask.model, ask.stream) == ("generate", "generate", "M:8b", False)
    assert (ask.name_matters, ask.temperature, ask.logprobs) == (False, None, False)
