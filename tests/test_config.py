"""What an operator writes is understood, or refused with the key, the value and the remedy."""

import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cacheproxy.config import (
    Cache,
    Config,
    ModelRule,
    Prompt,
    Redis,
    load,
    parse_duration,
    parse_size,
    split_listen,
)
from cacheproxy.errors import ConfigError

MANUAL = Path(__file__).parents[1] / "config.toml"


def refusal(tree, **arguments):
    """The text of the error that these settings cause."""
    with pytest.raises(ConfigError) as caught:
        load(None, tree, env=arguments.get("env", {}))
    return str(caught.value)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"cahce": {}}, 'config: unknown key "cahce" (did you mean "cache"?)'),
        ({"ttl": "1h"}, 'config: unknown key "ttl" (it belongs under [cache])'),
        ({"timeout": "1s"}, 'config: unknown key "timeout" (it belongs under [redis] or [embedding])'),
        ({"zzzzzz": {}}, 'config: unknown key "zzzzzz"; the tables are server, admin, '),
        ({"cache": {"tll": 1}}, 'command line: [cache] unknown key "tll" (did you mean "ttl"?)'),
        ({"cache": {"zzzzzz": 1}}, 'command line: [cache] unknown key "zzzzzz"'),
        ({"models": {"x*": {"cahce": 1}}}, '[models.x*] unknown key "cahce" (did you mean "cache"?)'),
        ({"semantic": {"prompts": {"a": {"patern": 1}}}}, '[semantic.prompts.a] unknown key "patern" (did you mean "p'),
        ({"cache": 5}, "config: cache = 5: Input should be a valid dictionary"),
        ({"cache": {"ttl": "soon"}}, "command line: cache.ttl = 'soon': 'soon' is not a duration; write \"50ms\""),
        ({"cache": {"ttl": True}}, "cache.ttl = True: True is not a duration"),
        ({"cache": {"ttl": -1}}, "cache.ttl = -1: Input should be greater than or equal to 0"),
        ({"cache": {"ttl": float("inf")}}, "cache.ttl = inf: Input should be a finite number"),
        ({"cache": {"ttl": float("nan")}}, "cache.ttl = nan: "),
        ({"cache": {"ttl": 10**400}}, "no duration is that long"),
        ({"cache": {"memory": "64 apples"}}, "cache.memory = '64 apples': '64 apples' is not a size; write \"64MiB\""),
        ({"cache": {"memory": 1.5}}, "cache.memory = 1.5: 1.5 is not a size"),
        ({"cache": {"memory": -1}}, "cache.memory = -1: Input should be greater than or equal to 0"),
        ({"cache": {"memory": "9" * 400 + "GiB"}}, "is not a size"),
        ({"cache": {"ttl_jitter": 0.6}}, "cache.ttl_jitter = 0.6: Input should be less than or equal to 0.5"),
        ({"cache": {"cache_control": "obey"}}, "cache.cache_control = 'obey': Input should be 'honor' or 'ignore'"),
        ({"semantic": {"threshold": 92}}, "semantic.threshold = 92: similarity is between 0 and 1, did you mean 0.92?"),
        ({"semantic": {"threshold": "92"}}, "threshold = '92': similarity is between 0 and 1, did you mean 0.92?"),
        ({"semantic": {"threshold": 1.5}}, "semantic.threshold = 1.5: similarity is between 0 and 1"),
        ({"semantic": {"threshold": 101}}, "semantic.threshold = 101: similarity is between 0 and 1"),
        ({"semantic": {"threshold": -0.1}}, "semantic.threshold = -0.1: Input should be greater than or equal to 0"),
        ({"semantic": {"threshold": "high"}}, "semantic.threshold = 'high': Input should be a valid number"),
        ({"semantic": {"threshold": 10**400}}, "semantic.threshold = "),
        ({"models": {"a*": {"threshold": 92}}}, "models.a*.threshold = 92: similarity is between 0 and 1"),
        ({"redis": {"prefix": "a:b"}}, "redis.prefix = 'a:b': String should match pattern"),
        ({"admin": {"listen": "foo"}}, "admin.listen = 'foo': expected HOST:PORT, for example \"127.0.0.1:11436\""),
        ({"server": {"listen": "a:70000"}}, "server.listen = 'a:70000': port 70000 is above 65535; expected HOST:PORT"),
        ({"redis": {"connections": 1}}, "redis.connections = 1: Input should be greater than or equal to 2"),
        ({"upstream": {"parallel": 0}}, "upstream.parallel = 0: Input should be greater than or equal to 1"),
        ({"server": {"workers": "two"}}, "server.workers = 'two': Input should be a valid integer"),
        ({"models": {"a*": {"keep_alive": "soon"}}}, "models.a*.keep_alive = 'soon': 'soon' is not a duration"),
        ({"models": {"a*": {"keep_alive": "--1m"}}}, "'-1m' is not a duration"),
        ({"models": {"a*": {"options": {"num_ctxt": 1}}}}, 'Ollama has no option "num_ctxt" (did you mean "num_ctx"?)'),
        ({"models": {"a*": {"options": {"zzz": 1}}}}, 'Ollama has no option "zzz"'),
        ({"models": {"a*": {"options": {"num_ctx": "4096"}}}}, "num_ctx = '4096' is not a whole number"),
        ({"models": {"a*": {"options": {"num_ctx": True}}}}, "num_ctx = True is not a whole number"),
        ({"models": {"a*": {"options": {"top_p": "1"}}}}, "top_p = '1' is not a number"),
        ({"models": {"a*": {"options": {"use_mmap": 1}}}}, "use_mmap = 1 is not true or false"),
        ({"tuning": {"predict": True}}, "predict = true needs memory, for example"),
        ({"log": {"level": "loud"}}, "log.level = 'loud': Input should be 'debug', 'info', 'warning' or 'error'"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_key_value_and_remedy(tree, expected):
    """Also deep inside."""
    assert expected in refusal(tree)


def test_all_problems_are_told_at_once():
    """One line each, so that nobody repairs them one start at a time."""
    lines = refusal({"cache": {"ttl": "soon", "tll": 1}, "log": {"level": "loud"}}).splitlines()

    assert len(lines) == 3
    assert all(line.startswith("command line: ") for line in lines)


@pytest.mark.fault(131)
@pytest.mark.parametrize(
    "tree", [{"admin": {"token": [31337]}}, {"redis": {"url": 31337}}, {"redis": {"url": ["31337"]}}]
)
def test_no_error_quotes_what_may_be_a_password(tree):
    """Errors end up in logs and issues."""
    assert "31337" not in refusal(tree)


@pytest.mark.fault(131)
def test_no_repr_shows_a_password():
    """Nor does a config that somebody prints."""
    shown = repr(load(None, {"admin": {"token": "31337"}, "redis": {"url": "redis://:31337@cache"}}, env={}))

    assert "31337" not in shown


@pytest.mark.fault(114)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[cache", "Expected ']'"),
        (b"a = \xff", "is no text in UTF-8"),
        (None, "mine.toml: No such file or directory"),
        (b"a=1\na=2", "overwrite"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, expected):
    """With the reason and, for TOML, the line."""
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
        load(path, env={})

    assert expected in str(caught.value)
    assert "Errno" not in str(caught.value)


def test_a_key_in_a_file_is_refused_under_the_files_name(tmp_path):
    """An operator has several."""
    path = tmp_path / "mine.toml"
    path.write_text("[cache]\ntll = 5\n")
    with pytest.raises(ConfigError, match=r'^mine.toml: \[cache\] unknown key "tll"'):
        load(path, env={})


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path):
    """Each fills in only what the stronger ones leave out."""
    path = tmp_path / "c.toml"
    path.write_text('[cache]\nttl = "1s"\nttl_max = "1s"\nremote_ttl = "1s"\n[log]\nlevel = "error"\n')
    env = {"CACHEPROXY_CACHE__TTL": "2s", "CACHEPROXY_CACHE__TTL_MAX": "2s"}
    config = load(path, {"cache": {"ttl": "3s"}}, env=env)

    assert (config.cache.ttl, config.cache.ttl_max, config.cache.remote_ttl) == (3.0, 2.0, 1.0)
    assert (config.log.level, config.cache.memory) == ("error", Cache().memory)


def test_what_is_given_is_not_changed():
    """The same flags are merged again at the next reload."""
    overrides = {"cache": {"ttl": "3s"}}
    load(None, overrides, env={"CACHEPROXY_CACHE__TTL_MAX": "2s"})

    assert overrides == {"cache": {"ttl": "3s"}}


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("UPSTREAM__PARALLEL", "2", lambda config: config.upstream.parallel == 2),
        ("upstream__parallel", "2", lambda config: config.upstream.parallel == 1),
        ("REDIS__URL", "redis://cache:6379", lambda config: config.redis.url == "redis://cache:6379"),
        ("CACHE__STORE_TRUNCATED", "true", lambda config: config.cache.store_truncated),
        ("CACHE__TTL_JITTER", "0.2", lambda config: config.cache.ttl_jitter == 0.2),
        ("CACHE__MEMORY", "1MiB", lambda config: config.cache.memory == 1024**2),
        ("CACHE__MEMORY", "1000", lambda config: config.cache.memory == 1000),
        ("CACHE__TTL", "90", lambda config: config.cache.ttl == 90),
        ("CACHE__PARTITION_HEADERS", "A, B,", lambda config: config.cache.partition_headers == ("A", "B")),
        (
            "UPSTREAM__OTHERS",
            "http://b:1,http://c:1",
            lambda config: config.upstream.urls[1:] == ("http://b:1", "http://c:1"),
        ),
        ("CACHE__PARTITION_HEADERS", "", lambda config: config.cache.partition_headers == ()),
        ("SEMANTIC__GUARDS", "numbers,dates", lambda config: config.semantic.guards == ("numbers", "dates")),
        ("SEMANTIC__THRESHOLD", "0.95", lambda config: config.semantic.threshold == 0.95),
    ],
)
def test_the_environment_sets_any_key(name, value, found):
    """In upper case with two underscores; lists are written with commas."""
    prefix = "CACHEPROXY_" if name.isupper() else "cacheproxy_"

    assert found(load(None, env={prefix + name: value}))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CACHE__TLL", "1s", "unknown variable {} (did you mean CACHEPROXY_CACHE__TTL?)"),
        ("SERVER__WORKRS", "2", "unknown variable {} (did you mean CACHEPROXY_SERVER__WORKERS?)"),
        ("SEVER__WORKERS", "2", "unknown variable {} (did you mean CACHEPROXY_SERVER__WORKERS?)"),
        ("CACHE__ZZZZZZ", "1", "unknown variable {} (settings are called CACHEPROXY_SECTION__KEY)"),
        ("FOO__PORT", "1", "unknown variable {} (settings are called CACHEPROXY_SECTION__KEY)"),
        ("SERVER__WORKERS", "two", "{} = 'two': Input should be a valid integer"),
        ("MODELS__X", "1", "{} = '1': Input should be a valid dictionary"),
        ("CACHE__PARTITION_HEADERS", "[1]", "{} = 1: Input should be a valid string"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_is_told_under_the_variables_name(tmp_path, name, value, expected):
    """A typo there is as easily made, and whoever is sent to the file for it finds nothing."""
    path = tmp_path / "mine.toml"
    path.write_text("[server]\nworkers = 1\n")
    with pytest.raises(ConfigError) as caught:
        load(path, env={f"CACHEPROXY_{name}": value})

    assert str(caught.value).startswith(f"environment: {expected.format(f'CACHEPROXY_{name}')}")


def test_settings_that_do_not_go_together_are_told_of_file_and_environment():
    """Each of the two alone may be right."""
    text = refusal({}, env={"CACHEPROXY_TUNING__PREDICT": "true"})

    assert text.startswith("config and environment: tuning = {'predict': 'true'}: predict = true needs memory")


def test_a_mistake_on_the_command_line_is_not_blamed_on_the_file(tmp_path):
    """Nor on the environment, which it overrules; what the file has wrong is the file's all the same."""
    path = tmp_path / "mine.toml"
    path.write_text('[embedding]\nthreads = "many"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, {"embedding": {"engine": "steam"}}, env={"CACHEPROXY_EMBEDDING__ENGINE": "auto"})

    starts = [line.partition(" = ")[0] for line in str(caught.value).splitlines()]
    assert sorted(starts) == ["command line: embedding.engine", "mine.toml: embedding.threads"]


def test_ollamas_own_variable_is_never_read():
    """Exported for clients, it names this very proxy."""
    assert load(None, env={"OLLAMA_HOST": "127.0.0.1:11435", "UNRELATED__X": "1"}) == Config()


UNITS = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)]


@given(parts=st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(UNITS)), min_size=1, max_size=4))
def test_durations_are_read_as_written(parts):
    """Any number of parts, added up."""
    text = "".join(f"{number}{unit}" for number, (unit, _) in parts)

    assert parse_duration(text) == pytest.approx(sum(number * seconds for number, (_, seconds) in parts))


@given(seconds=st.floats(0, 1e9) | st.integers(0, 10**9))
def test_numbers_are_seconds(seconds):
    """Bare, or as text without a unit."""
    assert parse_duration(seconds) == seconds
    assert parse_duration(f" {seconds:.6f} ") == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("value", ["", "s", "5x", "5 s", "-5s", "1h-", "h1", "1e3", "5ss", "1,5s", None, [], {}, True])
def test_what_is_no_duration_is_refused(value):
    """With examples of what is."""
    with pytest.raises(ValueError, match="is not a duration; write"):
        parse_duration(value)


SIZES = [("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30)]


@given(number=st.integers(0, 10**6), unit=st.sampled_from(SIZES), blank=st.sampled_from(["", " "]))
def test_sizes_are_read_as_written(number, unit, blank):
    """In powers of ten or of two; bare numbers are bytes."""
    assert parse_size(f"{number}{blank}{unit[0]}") == number * unit[1]
    assert parse_size(number) == parse_size(f" {number} ") == number
    assert parse_size(f"{number}.5{unit[0]}") == int((number + 0.5) * unit[1])


@pytest.mark.parametrize(
    "value", ["", "B", "5 apples", "5mb", "-5B", "5 M B", "\u00b2", "9" * 400 + "B", None, [], 1.5, True]
)
def test_what_is_no_size_is_refused(value):
    """With examples of what is."""
    with pytest.raises(ValueError, match="is not a size; write"):
        parse_size(value)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:11435", ("127.0.0.1", 11435)),
        (":11435", ("0.0.0.0", 11435)),
        ("[::1]:11435", ("::1", 11435)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_an_address_is_host_and_port(listen, expected):
    """As Ollama's own variable is written."""
    assert split_listen(listen) == expected


@pytest.mark.parametrize(
    "listen", ["", "11435", "localhost", "localhost:", "localhost:x", "localhost:65536", "a:-1", "a:\u00b2"]
)
def test_what_is_no_address_is_refused(listen):
    """With an example of one."""
    with pytest.raises(ConfigError, match=r'expected HOST:PORT, for example "127\.0\.0\.1:11435"'):
        split_listen(listen)


def test_the_first_pattern_that_matches_a_model_counts():
    """In the order of the file; names are as `ollama list` shows them."""
    config = load(None, {"models": {"llama3*": {"ttl": "1s"}, "*": {"ttl": "2s"}}}, env={})

    assert config.model_rule("llama3:latest").ttl == 1.0
    assert config.model_rule("mistral:7b").ttl == 2.0
    assert Config().model_rule("mistral:7b") == ModelRule()


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("llama3.2", "llama3.2:latest", True),
        ("llama3.2:latest", "llama3.2:latest", True),
        ("llama3.2", "llama3.2:1b", False),
        ("llama3.2*", "llama3.2:1b", True),
        ("*:latest", "llama3.2:latest", True),
    ],
)
def test_a_pattern_may_leave_out_latest(pattern, name, matches):
    """As everybody does who names a model."""
    assert (Config(models={pattern: ModelRule(ttl=1)}).model_rule(name) != ModelRule()) is matches


def test_a_config_cannot_be_changed():
    """Whoever holds one holds it as it was loaded."""
    with pytest.raises(ValueError, match="frozen"):
        Config().cache.ttl = 5


KEYS = [
    (section, key)
    for section, field in Config.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    for key in field.annotation.model_fields
]
TABLES = {"models": ModelRule, "semantic.prompts": Prompt}
"""Sections with names of the operator's own; the manual shows them commented out."""


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_stands_in_the_manual_with_its_default(section, key):
    """`config.toml` is the manual: a key that is not in it does not exist for anybody."""
    if f"{section}.{key}" in TABLES:
        assert re.search(rf"^# \[{section}\.{key}\.", MANUAL.read_text(encoding="utf-8"), re.MULTILINE)
        return
    written = tomllib.loads(MANUAL.read_text(encoding="utf-8"))

    assert key in written[section]
    assert getattr(getattr(load(MANUAL, env={}), section), key) == getattr(getattr(Config(), section), key)


@pytest.mark.parametrize(("table", "kind"), TABLES.items())
def test_every_key_of_a_table_stands_in_the_manual_as_an_example(table, kind):
    """Taken out of its comments, the example is a config that can be used."""
    text = MANUAL.read_text(encoding="utf-8")
    examples = re.findall(rf"^# (\[{re.escape(table)}\..*\]\n(?:#.*\n)+)", text, re.MULTILINE)
    tree = tomllib.loads("\n".join(re.sub("\n# ?", "\n", example) for example in examples))
    found = tree
    for part in table.split("."):
        found = found[part]

    assert {key for rule in found.values() for key in rule} == set(kind.model_fields)
    assert load(None, tree, env={}) != Config()


def test_the_manual_says_something_about_every_key():
    """A comment stands above each, or above the key before it for a pair."""
    lines = MANUAL.read_text(encoding="utf-8").splitlines()
    bare = [line for before, line in pairwise(lines) if re.match(r"\w+ = ", line) and not before.startswith("#")]

    assert bare == []


def test_the_manual_is_the_default():
    """Starting with it changes nothing."""
    assert load(MANUAL, env={}) == Config()
    assert Redis().url == "embedded"


@pytest.mark.parametrize("key", ["upstream.digest_ttl", "redis.timeout", "embedding.timeout"])
def test_periods_that_nothing_can_keep_to_are_refused(key: str) -> None:
    """Without a pause the list of models would be read all the time; without any time nothing answers in it."""
    section, name = key.split(".")

    with pytest.raises(ConfigError, match=key):
        load(overrides={section: {name: "0s"}}, env={})


@pytest.mark.parametrize(
    "text",
    ["Authorization,X-User", " Authorization , X-User ", '["Authorization","X-User"]', "['Authorization', 'X-User',]"],
)
def test_a_list_in_the_environment_is_written_with_commas_or_as_in_the_file(text: str) -> None:
    """Both are natural; one read as a single odd name would let callers share answers."""
    env = {"CACHEPROXY_CACHE__PARTITION_HEADERS": text, "CACHEPROXY_ADMIN__HOSTS": "[::1], proxy"}

    assert load(env=env).cache.partition_headers == ("Authorization", "X-User")
    assert load(env=env).admin.hosts == ("[::1]", "proxy")


@pytest.mark.parametrize("text", ['["Authorization"', "X User", "[1]", '["Authorization,X-User"]', '"X-User"'])
def test_what_is_no_header_name_parts_no_callers_and_is_refused(text: str) -> None:
    """A partition that never matches would vanish without a word."""
    with pytest.raises(ConfigError, match="CACHEPROXY_CACHE__PARTITION_HEADERS = "):
        load(env={"CACHEPROXY_CACHE__PARTITION_HEADERS": text})


@pytest.mark.parametrize(
    "origin", ["*", "https://chat.example.org", "http://[::1]:80", "https://*.example.org", "app://*"]
)
def test_origins_and_patterns_of_them_are_taken(origin: str) -> None:
    """The same values as OLLAMA_ORIGINS."""
    assert load(overrides={"server": {"origins": [origin]}}, env={}).server.origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["", "example.org", "https://example.org/", "https://*.*", "[*]", "https://a, https://b"]
)
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    """It could never match, and its page would be turned away without a reason."""
    with pytest.raises(ConfigError, match=r"server\.origins.*is no origin"):
        load(overrides={"server": {"origins": [origin]}}, env={})


@pytest.mark.parametrize("workers", [0, 65])
def test_a_number_of_workers_that_no_machine_wants_is_refused(workers: int) -> None:
    """Each is a process with memory of its own."""
    with pytest.raises(ConfigError, match=rf"server\.workers = {workers}: Input should be"):
        load(overrides={"server": {"workers": workers}}, env={})


def test_a_process_can_hand_its_configuration_to_another() -> None:
    """As the main process does with its workers: dumped as JSON and read again, it is the same."""
    config = load(Path(__file__).parent.parent / "config.toml", env={})

    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_port_out_of_range_is_named() -> None:
    """The rest of the address is right, so the port is what to look at."""
    with pytest.raises(ConfigError, match="port 70000 is above 65535"):
        split_listen("127.0.0.1:70000")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CACHEPROXY_CACHE_TTL", "did you mean CACHEPROXY_CACHE__TTL?"),
        ("CACHEPROXY_SERVER_LISTEN", "did you mean CACHEPROXY_SERVER__LISTEN?"),
        ("CACHEPROXY_FOO", "settings are called CACHEPROXY_SECTION__KEY"),
    ],
)
def test_a_variable_that_is_no_setting_is_an_error_with_the_nearest_one(name: str, hint: str) -> None:
    """One underscore too few would leave the default in force without a word; the value may be a secret."""
    with pytest.raises(ConfigError, match=re.escape(f"environment: unknown variable {name} ({hint})")) as caught:
        load(env={name: "s3cret"})

    assert "s3cret" not in str(caught.value)


def test_variables_of_other_tools_are_left_alone() -> None:
    """Ours, and those that Kubernetes and Docker set for a service of our name."""
    names = ["CONFIG", "URL", "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_11435_TCP_ADDR", "ADMIN_SERVICE_PORT"]

    assert load(env={f"CACHEPROXY_{name}": "x" for name in names}) == Config()
