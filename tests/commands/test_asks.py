"""Files of asks are read in every form in which asks are recorded."""

from __future__ import annotations

import pytest

from cacheproxy.commands import asks
from cacheproxy.errors import ConfigError

CHAT = {"model": "m", "messages": [{"role": "user", "content": "why?"}]}


@pytest.mark.parametrize(
    ("line", "path", "body"),
    [
        ("why?", "/api/chat", CHAT | {"stream": False}),
        ('{"question": "why?"}', "/api/chat", CHAT | {"stream": False}),
        ('{"asked": "why?", "model": "n", "at": 7}', "/api/chat", CHAT | {"model": "n", "stream": False}),
        ('{"model": "n", "prompt": "why?"}', "/api/generate", {"model": "n", "prompt": "why?"}),
        ('{"prompt": "why?", "label": "a", "time": 3}', "/api/generate", {"model": "m", "prompt": "why?"}),
        (
            '{"path": "/v1/completions", "body": {"prompt": "why?"}}',
            "/v1/completions",
            {"model": "m", "prompt": "why?"},
        ),
    ],
)
def test_a_line_becomes_a_request(line, path, body):
    """The model given stands in where the line names none."""
    assert asks.as_request(asks.parse(line, "f:1"), "m") == (path, body)


def test_what_a_record_tells_besides_is_kept_apart():
    """Time and label are not the body's; numbers are fine as labels."""
    body = asks.parse('{"prompt": "why?", "label": 7, "time": 3.5}', "f:1")
    question = asks.parse('{"question": "why?", "setting": "s", "key": "k"}', "f:1")

    assert (body.body, body.label, body.time) == ({"prompt": "why?"}, "7", 3.5)
    assert (question.question, question.scope, question.label) == ("why?", "s", "k")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"model": "m"}',
        '{"question": []}',
        '{"question": "q", "time": "now"}',
        '{"path": 3, "body": {"prompt": "x"}}',
        '{"path": "/api/ch\u00e4t", "body": {"prompt": "x"}}',
        '{"path": "/api/chat HTTP/1.1", "body": {"prompt": "x"}}',
    ],
)
def test_any_other_line_is_an_error_that_names_it(tmp_path, line):
    """With the file, the number of the line, and an example or the member at fault."""
    file = tmp_path / "asks.jsonl"
    file.write_text(f"fine\n\n{line}\n")

    with pytest.raises(ConfigError, match=r"asks\.jsonl:3: "):
        list(asks.read(file))


def test_a_file_that_cannot_be_read_or_is_too_long_is_told(tmp_path):
    """Neither is a traceback."""
    file = tmp_path / "asks.txt"
    file.write_text("a\nb\n")

    with pytest.raises(ConfigError, match="more than 1 asks"):
        list(asks.read(file, lines_max=1))
    file.write_bytes(b"why?\n\x89PNG\xff")
    with pytest.raises(ConfigError, match=r"asks\.txt: is no text in UTF-8; expected a file of lines"):
        list(asks.read(file))
    with pytest.raises(ConfigError, match="No such file"):
        list(asks.read(tmp_path / "absent"))
