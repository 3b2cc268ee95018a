"""The architecture is what `docs/architecture.md` says: one total order of files, and one home for each library."""

import ast
import functools
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import cacheproxy
import embeddings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("cacheproxy", "embeddings")
ALWAYS_ALLOWED = {"cacheproxy", "embeddings", *sys.stdlib_module_names}
FORBIDDEN = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib"}
"""Libraries whose reading of bytes runs code in them."""


def rows(heading):
    """The cells of the table under a heading of the page, without its two head lines."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in table[2:]]


def names(cell):
    """What stands in code quotes in a cell."""
    return re.findall(r"`([^`]+)`", cell)


ORDER = [name for _floor, file, _job in rows("One total order of files") for name in names(file)]
HOMES = [(name, names(home)) for libraries, home in rows("One home for each library") for name in names(libraries)]


@functools.cache
def tree(file):
    """The syntax tree of a file."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def is_plain_init(file):
    """A package's `__init__` that holds nothing but its docstring and a version."""
    return Path(file).name == "__init__.py" and all(
        (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant))
        for node in tree(file).body
    )


FILES = sorted(str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ORDERED = [file for file in FILES if not is_plain_init(file)]


def imports(file):
    """The dotted names a file imports, with their lines, wherever they stand: also for types and in functions."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            argument = node.args[0] if node.args else None
            yield node.lineno, str(argument.value) if isinstance(argument, ast.Constant) else "?"


def called(node):
    """The name of what a call calls: `b` for `a.b()`."""
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


def file_of(name):
    """Our file that a dotted name lies in; None for others' names."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        for candidate in ("/".join(parts[:end]) + ".py", "/".join(parts[:end]) + "/__init__.py"):
            if (ROOT / candidate).is_file():
                return candidate
    return None


def is_at_home(file, homes):
    """Whether a file is one of the homes or lies in one of them."""
    return any(file == home or (home.endswith("/") and file.startswith(home)) for home in homes)


def test_the_page_names_each_file_once():
    """A file that stood twice would stand nowhere."""
    assert sorted(ORDER) == sorted(set(ORDER))
    assert len(ORDER) > 30


def test_every_file_is_in_the_order():
    """A new file gets its place, and a line that says its job, with the change that adds it."""
    assert sorted(set(ORDERED) - set(ORDER)) == []


def test_every_file_in_the_order_exists():
    """The page does not promise."""
    assert [file for file in ORDER if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("file", ORDERED)
def test_a_file_imports_only_what_stands_lower(file):
    """So no circle can exist, and reading downward is reading the architecture."""
    if file not in ORDER:
        pytest.fail(f"{file} is not in the order of {PAGE.name}")
    own = ORDER.index(file)
    wrong = []
    for line, name in imports(file):
        other = file_of(name)
        if other is None or is_plain_init(other):
            assert name.split(".")[0] not in PACKAGES or other is not None, f"{file}:{line}: there is no {name}"
        elif other not in ORDER or ORDER.index(other) <= own:
            wrong.append(f"{file}:{line} imports {other}, which does not stand lower")

    assert wrong == []


@pytest.mark.parametrize("file", FILES)
def test_each_library_is_used_in_its_home_only(file):
    """What it is called and how it fails is known in one place."""
    wrong = []
    for line, name in imports(file):
        library = name.split(".")[0]
        if library in ALWAYS_ALLOWED:
            continue
        homes = [places for listed, places in HOMES if name == listed or name.startswith(f"{listed}.")]
        if not homes:
            wrong.append(f"{file}:{line}: {library} has no home in {PAGE.name}")
        elif not is_at_home(file, homes[0]):
            wrong.append(f"{file}:{line}: {name} is at home in {', '.join(homes[0])}")

    assert wrong == []


def test_the_longest_name_of_a_library_comes_first():
    """So that `aiohttp.web` is found before `aiohttp`."""
    listed = [name for name, _ in HOMES]

    assert [
        (one, other) for at, one in enumerate(listed) for other in listed[at + 1 :] if other.startswith(f"{one}.")
    ] == []


def test_embeddings_knows_nothing_of_cacheproxy():
    """It can be used alone."""
    assert [
        f"{file}:{line}"
        for file in FILES
        if file.startswith("embeddings/")
        for line, name in imports(file)
        if name.split(".")[0] == "cacheproxy"
    ] == []


@pytest.mark.parametrize("package", [cacheproxy, embeddings], ids=PACKAGES)
def test_the_packages_are_ours(package):
    """Others published packages of the same names; ours must be the ones that are imported."""
    assert Path(package.__file__ or "").is_relative_to(ROOT)
    assert set(packages_distributions().get(package.__name__, ["ollama-cacheproxy"])) == {"ollama-cacheproxy"}


@pytest.mark.parametrize("file", FILES)
def test_every_module_says_its_job(file):
    """In its docstring."""
    assert len(ast.get_docstring(tree(file)) or "") > 20


@pytest.mark.parametrize("file", FILES)
def test_no_bytes_from_outside_are_ever_run(file):
    """S13: no pickle, marshal, eval, exec or unsafe YAML, so whoever writes to Redis cannot run code here."""
    found = [f"{line}: {name}" for line, name in imports(file) if set(name.split(".")) & FORBIDDEN]
    for node in ast.walk(tree(file)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec", "compile"):
            found.append(f"{node.lineno}: {node.func.id}")
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "unsafe_load", "full_load"):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "yaml":
                found.append(f"{node.lineno}: yaml.{node.func.attr}")
        found += [
            f"{node.lineno}: {keyword.arg}"
            for keyword in node.keywords
            if keyword.arg in ("allow_pickle", "trust_remote_code", "shell") and not is_false(keyword.value)
        ]

    assert found == []


def is_false(node):
    """A literal False."""
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize(
    "file", [file for file in FILES if not is_at_home(file, ["cacheproxy/cli.py", "cacheproxy/demo/"])]
)
def test_only_the_commands_print(file):
    """Everything else speaks through the log, which keeps prompts out."""
    assert [
        node.lineno
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ] == []
