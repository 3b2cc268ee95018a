"""README and docs are held to the code: what they tell people to type, set and look for exists."""

import ast
import asyncio
import re
import shlex
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from cacheproxy.app import App
from cacheproxy.cli import commands
from cacheproxy.config import Config, load
from cacheproxy.model import Outcome
from cacheproxy.rules import controls
from tests.fakes.house import House

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *(ROOT / name / "README.md" for name in ("benchmarks", "docker"))]
)
HEADERS_PAGE = ROOT / "docs" / "reference" / "headers.md"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page):
    """The page as text."""
    return page.read_text(encoding="utf-8")


def snippets(page, language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.DOTALL | re.MULTILINE)


def shell_lines(page):
    """The commands of its console blocks, continued lines joined, each as its words."""
    for block in snippets(page, "console"):
        lines = re.sub(r"\\\n|\n(?=  )", " ", block).splitlines()
        for line in lines:
            yield shlex.split(line.removeprefix("$ "), comments=True)


def commands_in(page):
    """What the page's text and blocks say after the word `cacheproxy` where that is a command, each as its words."""
    for words in shell_lines(page):
        names = [Path(word).name for word in words]
        if "cacheproxy" in names and "compose" not in names:
            yield words[names.index("cacheproxy") + 1 :]
    for quoted in re.findall(r"`cacheproxy ([a-z][^`]*)`", text_of(page)):
        yield shlex.split(quoted)


def known_settings():
    """Every `section.key` of the configuration."""
    return {f"{name}.{key}" for name, section in _sections().items() for key in section.model_fields}


def _sections():
    found = {name: getattr(field.annotation, "model_fields", None) for name, field in Config.model_fields.items()}
    return {name: Config.model_fields[name].annotation for name, fields in found.items() if fields}


@pages
def test_links_lead_somewhere(page):
    """Every relative link names a file that is in the repository."""
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text_of(page))

    assert [target for target in targets if not (page.parent / target).exists()] == []


@pages
def test_commands_in_the_text_exist_with_their_options(page):
    """Each is parsed by the command it names; nothing is run."""
    group = typer.main.get_command(commands)
    for words in commands_in(page):
        if words[0].startswith("--"):
            continue
        command = group.get_command(typer.Context(group), words[0])
        assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words[1:] if word.startswith("--")} <= known, words


@pages
def test_a_command_to_paste_is_found_where_the_readme_installs_it(page):
    """Nobody has it on the path after `make run`."""
    assert [words for words in shell_lines(page) if words[:1] == ["cacheproxy"]] == []


@pages
def test_make_targets_in_the_text_exist(page):
    """`make` alone lists them; a page may name no other."""
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    used = {words[1] for words in shell_lines(page) if len(words) > 1 and words[0] == "make"}
    used |= set(re.findall(r"`make ([a-z]+)", text_of(page)))

    assert used <= targets


@pages
def test_settings_in_the_text_exist(page):
    """Both as `section.key` and as CACHEPROXY_SECTION__KEY."""
    sections = "|".join(_sections())
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?=[` =])", text_of(page)))
    variables = re.findall(r"CACHEPROXY_([A-Z]+)__([A-Z_]+)", text_of(page))
    named |= {f"{section}.{key}".lower() for section, key in variables if (section, key) != ("SECTION", "KEY")}

    assert named - known_settings() == set()


@pages
def test_toml_in_the_text_is_a_configuration(page, tmp_path):
    """Each block alone is a file the program takes."""
    for number, block in enumerate(snippets(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(block)
        load(path, env={})


@pytest.mark.parametrize("page", [page for page in (*PAGES, ROOT / "config.toml") if page.name != "CHANGELOG.md"])
def test_nobody_is_told_to_install_what_no_index_has(page):
    """The package is installed from its folder; elsewhere a name of ours may be somebody else's."""
    assert re.findall(r"pip install [^`\n]*cacheproxy.*", text_of(page)) == []


@pages
def test_python_in_the_text_parses(page):
    """The calls of clients among it are run by tests/test_examples.py."""
    for block in snippets(page, "python"):
        ast.parse(block)


def test_config_toml_is_the_manual():
    """It loads, names every setting, gives each its default, and says something about each."""
    text = text_of(ROOT / "config.toml")
    given = tomllib.loads(text)
    defaults = Config()

    assert load(ROOT / "config.toml", env={}) == defaults
    assert {f"{section}.{key}" for section, keys in given.items() for key in keys} >= {
        setting for setting in known_settings() if not isinstance(_default(setting), dict)
    }
    lines = text.splitlines()
    bare = [line for above, line in pairwise(lines) if re.match(r"[a-z_]+ = ", line) and not above.startswith("#")]
    assert bare == []


def _default(setting):
    section, _, key = setting.partition(".")
    return getattr(getattr(Config(), section), key)


def test_each_client_of_the_readme_has_an_example():
    """The line of the table is the line of a file that tests/test_examples.py runs, but for the address."""
    examples = "".join(text_of(path) for path in ROOT.glob("examples/*.py"))
    shown = re.findall(r"`((?:ollama\.Client|ChatOllama|Ollama|openai\.OpenAI)\(.*?\))`", text_of(ROOT / "README.md"))
    address = 'os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435")'

    assert len(shown) == 4
    for call in shown:
        plain, below_v1 = '="http://127.0.0.1:11435"', '="http://127.0.0.1:11435/v1"'
        line = call.replace(plain, f"={address}").replace(below_v1, f'={address} + "/v1"')
        assert line in examples, call


async def test_the_readmes_first_question_is_a_miss_and_then_a_hit(house: House):
    """Its curl command, run as it is but for the port, says so in the header it tells people to look at."""
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = next(block for block in snippets(ROOT / "README.md", "console") if block.startswith("curl -si"))
    command = command.replace("http://127.0.0.1:11435", house.app.proxy_url)
    told = []
    for _ in range(2):
        process = await asyncio.create_subprocess_shell(command, stdout=subprocess.PIPE)
        told.append((await process.communicate())[0].decode().split("\r\n")[:2])
        await house.settled()

    assert told == [["HTTP/1.1 200 OK", "X-Cache: MISS"], ["HTTP/1.1 200 OK", "X-Cache: EXACT"]]


def test_the_page_on_the_admin_port_has_its_paths():
    """No more and no fewer than there are."""
    rows = re.findall(r"^\| `(/[a-zA-Z/]*)` \|", text_of(ROOT / "docs" / "reference" / "admin.md"), flags=re.MULTILINE)

    assert rows == list(App(Config()).admin.pages)


def bypass_reasons():
    """Every reason in the code: what cannot be keyed, what admission refuses, what is not even read."""
    found = set()
    for path in ROOT.glob("cacheproxy/wire/*.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UnkeyableError":
                given = node.args[0]
                choices = [given.body, given.orelse] if isinstance(given, ast.IfExp) else [given]
                found |= {choice.value for choice in choices}
    found |= _words_returned("rules/admit.py", "_refusal")
    found |= _words_returned("edge/admission.py", "unreadable")
    return found | _words_returned("edge/calls.py", "reason") | {"unknown-model"}


def _words_returned(file, function):
    tree = ast.parse(text_of(ROOT / "cacheproxy" / file))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    body = next(node for node in functions if node.name == function)
    values = [node.value for node in ast.walk(body) if isinstance(node, ast.Return)]
    return {value.value for value in values if isinstance(value, ast.Constant) and value.value}


def test_the_page_on_headers_explains_every_reason_for_a_bypass():
    """A reason without its sentence, or a sentence without a reason, fails."""
    section = text_of(HEADERS_PAGE).split("## Why an ask went around the cache")[1]
    explained = set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, flags=re.MULTILINE))

    assert explained == bypass_reasons()


def test_the_page_on_headers_has_every_outcome_and_every_control():
    """The words of `X-Cache` are the outcomes; each control's header and member is named."""
    text = text_of(HEADERS_PAGE)
    words = re.findall(r"^\| `([A-Z]+)` \|", text, flags=re.MULTILINE)

    assert sorted(words) == sorted(outcome.upper() for outcome in Outcome)
    for name in ["X-Cache-TTL", "X-Cache-Threshold", "X-Cache-Mode", "options.cache", *controls.MODES]:
        assert name in text
    for directive in ["no-store", "no-cache", "only-if-cached", "max-age", "stale-if-error"]:
        assert f"`Cache-Control: {directive}" in text


async def test_the_examples_of_headers_are_the_headers(house: House):
    """A hit and a miss carry what the page shows, member for member; a bypass says why."""
    miss = await house.chat(stream=False)
    await house.settled()
    hit = await house.chat(stream=False)
    fresh = await house.chat(stream=False, headers=[("Cache-Control", "no-cache")])
    away = await house.chat(stream=False, headers=[("Cache-Control", "no-store")])

    assert miss.header("cache-status") == "cacheproxy; fwd=miss; fwd-status=200"
    assert re.fullmatch(r'cacheproxy; hit; ttl=\d+; key="[0-9a-f]+"; detail=exact', hit.header("cache-status"))
    assert hit.header("age") == "0"
    assert hit.header("x-cache-entry") in hit.header("cache-status")
    assert fresh.header("cache-status") == "cacheproxy; fwd=request; detail=no-cache; fwd-status=200"
    assert away.header("cache-status") == "cacheproxy; fwd=bypass; detail=no-store"
    assert [one.header("x-cache") for one in (miss, hit, fresh, away)] == ["MISS", "EXACT", "MISS", "BYPASS"]
