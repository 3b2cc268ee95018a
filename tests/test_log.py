"""One event is one line, whatever it tells of; prompts stay out; a dead standard error hurts nobody."""

import contextlib
import io
import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.config import Log
from cacheproxy.errors import StoreUnavailableError
from cacheproxy.log import VALUE_MAX, Prompt, configure, escape

OURS = logging.getLogger("cacheproxy.store.connection")
FOREIGN = logging.getLogger("somelibrary")


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        """Unix time in seconds."""
        return self.seconds

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return self.seconds


@contextlib.contextmanager
def log_to(stream):
    """A function that configures the log onto `stream`; what was before comes back at the end."""
    root, ours = logging.getLogger(), logging.getLogger("cacheproxy")
    handlers, level, our_level, loud = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    try:
        yield lambda **options: configure(Log(**options), stream)
    finally:
        root.handlers[:], logging.raiseExceptions = handlers, loud
        root.setLevel(level)
        ours.setLevel(our_level)


@pytest.fixture
def lines():
    """A function that starts a log of given settings and returns one that reads the lines written so far."""
    stream = io.StringIO()
    with log_to(stream) as start:

        def begin(**options):
            start(**options)
            return lambda: stream.getvalue().splitlines()

        yield begin


def test_a_text_line_has_time_level_place_event_and_fields(lines):
    """What a person reads first comes first; a field with blanks is quoted."""
    written = lines()
    OURS.warning("redis at %s gave no answer", "HOST:1", extra={"waited_s": 0.05, "next": "in a while"})

    (line,) = written()
    time, rest = line.split(" ", 1)
    assert len(time) == len("2026-11-20T10:00:00.000Z")
    assert time.endswith("Z")
    assert rest == 'warning store.connection: redis at HOST:1 gave no answer waited_s=0.05 next="in a while"'


def test_a_json_line_is_one_flat_object(lines):
    """Numbers stay numbers, except those JSON does not have."""
    written = lines(format="json")
    OURS.error("gone", extra={"waited_s": 0.05, "rate": float("nan"), "open": True, "level": "mine", "who": None})

    found = json.loads(written()[0])
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "error", "logger": "store.connection", "event": "gone",
        "waited_s": 0.05, "rate": "nan", "open": True, "who": None,
    }  # fmt: skip


@pytest.mark.fault(78)
@pytest.mark.parametrize("style", ["text", "json"])
@given(
    text=st.text(st.characters(exclude_categories=())), name=st.text(st.characters(exclude_categories=()), min_size=1)
)
@settings(max_examples=60)
def test_nothing_a_client_sends_can_break_or_forge_a_line(style, text, name):
    """Any text, lone surrogates and line ends included, gives exactly one line that UTF-8 can carry."""
    stream = io.StringIO()
    with log_to(stream) as start:
        start(format=style)
        OURS.warning("header %s", text, extra={"x" + name: text})
        OURS.warning("header %s", Prompt(text), exc_info=StoreUnavailableError(text))

    written = stream.getvalue()
    assert len(written.splitlines()) == 2 == written.count("\n")
    written.encode("utf-8")
    if style == "json":
        assert [json.loads(line)["level"] for line in written.splitlines()] == ["warning", "warning"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[31mred\x00", r"\x1b[31mred\x00"),
        ("caf\udce9", r"caf\udce9"),
        ("\u202etxt.exe\u2028", r"\u202etxt.exe\u2028"),
        ("Grüße, 世界 👋", "Grüße, 世界 👋"),
    ],
)
def test_only_what_could_do_harm_is_escaped(text, expected):
    """Controls, line separators, reordering marks and surrogates are escaped; other scripts stay readable."""
    assert escape(text) == expected


def test_a_long_value_is_cut_and_says_so():
    """No line grows with what a client sent."""
    assert escape("a" * (VALUE_MAX + 7)) == "a" * VALUE_MAX + "[+7 characters]"


@pytest.mark.parametrize("style", ["text", "json"])
def test_prompt_text_stays_out_unless_asked_for(lines, style):
    """A prompt shows as its length in event, field and error; with `log.prompts` it shows as it is."""
    written = lines(format=style)

    def tell():
        OURS.warning("asked %s", Prompt("canary"), extra={"question": Prompt("canary")})
        try:
            {}["canary"]
        except KeyError:
            OURS.exception("lost")

    tell()
    assert not any("canary" in line for line in written())
    assert "[6 characters]" in written()[0]

    lines(format=style, prompts=True)
    tell()
    assert [line.count("canary") for line in written()[2:]] == [2, 1]


def test_an_error_of_a_library_gives_its_type_and_place_but_not_its_words(lines):
    """Its message may quote a prompt; ours and the system's are told in full, the whole chain on one line."""
    written = lines()
    try:
        try:
            int("canary")
        except ValueError as error:
            raise StoreUnavailableError("redis at HOST:1 gave no answer") from error
    except StoreUnavailableError:
        OURS.exception("store")

    (line,) = written()
    assert "StoreUnavailableError: redis at HOST:1 gave no answer (tests/test_log.py:" in line
    assert " from ValueError (tests/test_log.py:" in line
    assert "canary" not in line


def test_of_a_library_only_the_first_line_is_told(lines):
    """What asyncio puts below the first line is the repr of a lost task's exception, which may quote a prompt."""
    written = lines()
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task KeyError('canary')>")

    assert written()[0].endswith("error asyncio: Task exception was never retrieved")


def test_libraries_are_heard_from_warning_up_whatever_the_level(lines):
    """Debug is ours alone: what a library says there may quote a request."""
    written = lines(level="debug")
    FOREIGN.info("canary")
    FOREIGN.warning("heard")
    OURS.debug("heard too")

    assert [line.split(" ", 1)[1] for line in written()] == [
        "warning somelibrary: heard",
        "debug store.connection: heard too",
    ]


def test_configuring_again_replaces_what_was_before(lines):
    """A reload changes level and format without a second copy of each line."""
    written = lines(level="info")
    lines(level="error", format="json")
    OURS.warning("not heard")
    OURS.error("heard")

    (line,) = written()
    assert json.loads(line)["event"] == "heard"


@pytest.mark.fault(119)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_the_program_goes_on_when_standard_error_is_closed_or_full(redirection):
    """Logging to nowhere neither raises nor ends the process."""
    program = (
        "import logging; from cacheproxy.config import Log; from cacheproxy.log import configure; configure(Log());"
        "[logging.getLogger('cacheproxy').warning('line %d', n) for n in range(1000)]; print('still here', flush=True)"
    )
    command = f'exec "$0" -c "$1" {redirection}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, program], stdout=subprocess.PIPE, timeout=60, check=False
    )

    assert done.stdout == b"still here\n"
