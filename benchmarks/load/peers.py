"""What else could stand before Ollama, each configured for speed: no log, kept connections, one worker.

nginx with `proxy_cache`, nginx with Lua (a shared dictionary, or a Redis), Varnish, LiteLLM's proxy, and the bare
framework that this proxy is built on. All run in the foreground from a configuration in a temporary folder.
Raises UnavailableError where a peer is not installed; LiteLLM alone is installed here, into a folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load.processes import Cores, free_port, listens, program, started, wait_until
from benchmarks.load.servers import START_S_MAX, Origin, Target, get_json
from benchmarks.report.figures import UnavailableError

LITELLM = "litellm[proxy]==1.106.2"
LITELLM_KEY = "sk-benchmarks-of-cacheproxy-0123456789"
LITELLM_INSTALL_S_MAX = 900
LITELLM_START_S_MAX = 180.0
_LUA_MODULES = (
    Path("/usr/lib/nginx/modules/ndk_http_module.so"),
    Path("/usr/lib/nginx/modules/ngx_http_lua_module.so"),
)

_NGINX = """
{modules}
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_body_buffer_size 1m;
    client_max_body_size 16m;
    client_body_in_single_buffer on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 64; }}
    {outside}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /origin/ {{ internal; proxy_pass http://origin/; }}
        location / {{ {inside} }}
    }}
}}
"""
_PROXY_CACHE_OUTSIDE = "proxy_cache_path {folder}/answers keys_zone=answers:16m max_size=512m inactive=1h;"
_PROXY_CACHE_INSIDE = """
            proxy_pass http://origin;
            proxy_cache answers;
            proxy_cache_methods POST;
            proxy_cache_key "$request_uri $request_body";
            proxy_cache_valid 200 1h;
            add_header X-Cache $upstream_cache_status;
"""
_LUA_FETCH = """
    local function fetch(body)
        local reply = ngx.location.capture("/origin" .. ngx.var.uri, {method = ngx.HTTP_POST, body = body})
        if reply.status ~= 200 then ngx.exit(502) end
        return reply.body
    end
    local function reply(answer, found)
        ngx.header["X-Cache"] = found and "HIT" or "MISS"
        ngx.header["Content-Length"] = #answer
        ngx.print(answer)
    end
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
"""
_LUA_DICTIONARY = """
            content_by_lua_block {{
                {fetch}
                local key = ngx.var.uri .. body
                local found = ngx.shared.answers:get(key)
                local answer = found or fetch(body)
                if not found then ngx.shared.answers:set(key, answer, 3600) end
                reply(answer, found)
            }}
"""
_LUA_REDIS = """
            content_by_lua_block {{
                {fetch}
                local function command(socket, ...)
                    local words = {{...}}
                    local text = {{"*" .. #words .. "\\r\\n"}}
                    for _, word in ipairs(words) do text[#text + 1] = "$" .. #word .. "\\r\\n" .. word .. "\\r\\n" end
                    assert(socket:send(text))
                    local line = assert(socket:receive("*l"))
                    local size = line:sub(1, 1) == "$" and tonumber(line:sub(2)) or -1
                    if size < 0 then return nil end
                    return assert(socket:receive(size + 2)):sub(1, -3)
                end
                local key = ngx.md5(ngx.var.uri .. body)
                local socket = ngx.socket.tcp()
                assert(socket:connect("127.0.0.1", {redis}))
                local found = command(socket, "GET", key)
                local answer = found or fetch(body)
                if not found then command(socket, "SET", key, answer, "EX", "3600") end
                assert(socket:setkeepalive(600000, 256))
                reply(answer, found)
            }}
"""
_VARNISH = """
vcl 4.1;
import std;
import bodyaccess;
backend origin {{ .host = "127.0.0.1"; .port = "{origin}"; }}
sub vcl_recv {{
    std.cache_req_body(512KB);
    return (hash);
}}
sub vcl_hash {{ bodyaccess.hash_req_body(); }}
sub vcl_backend_fetch {{ set bereq.method = "POST"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; }}
sub vcl_deliver {{ if (obj.hits > 0) {{ set resp.http.X-Cache = "HIT"; }} else {{ set resp.http.X-Cache = "MISS"; }} }}
"""


@contextlib.contextmanager
def nginx_proxy_cache(folder: Path, cores: Cores, origin: Origin) -> Iterator[Target]:
    """What an operator would bolt together: `proxy_cache`, POST keyed by the body."""
    outside = _PROXY_CACHE_OUTSIDE.format(folder=folder)
    with _nginx("nginx proxy_cache", folder, cores, origin, outside=outside, inside=_PROXY_CACHE_INSIDE) as target:
        yield target


@contextlib.contextmanager
def nginx_lua(folder: Path, cores: Cores, origin: Origin) -> Iterator[Target]:
    """A limit: an in-process cache in C, keyed by the body's bytes."""
    inside = _LUA_DICTIONARY.format(fetch=_LUA_FETCH)
    with _nginx(
        "nginx + Lua", folder, cores, origin, outside="lua_shared_dict answers 64m;", inside=inside, lua=True
    ) as target:
        yield target


@contextlib.contextmanager
def nginx_lua_redis(folder: Path, cores: Cores, origin: Origin, redis_port: int) -> Iterator[Target]:
    """A limit: Redis behind C, one GET a request, keyed by a digest of the body."""
    inside = _LUA_REDIS.format(fetch=_LUA_FETCH, redis=redis_port)
    with _nginx("nginx + Lua + Redis", folder, cores, origin, outside="", inside=inside, lua=True) as target:
        yield target


@contextlib.contextmanager
def _nginx(
    name: str, folder: Path, cores: Cores, origin: Origin, *, outside: str, inside: str, lua: bool = False
) -> Iterator[Target]:
    binary = program("nginx", "nginx-light")
    missing = [path.name for path in _LUA_MODULES if lua and not path.is_file()]
    if missing:
        raise UnavailableError(f"{name} needs {', '.join(missing)}: apt-get install libnginx-mod-http-lua")
    port = free_port()
    folder = folder / f"nginx-{port}"
    folder.mkdir()
    config = _NGINX.format(
        modules="\n".join(f"load_module {path};" for path in _LUA_MODULES) if lua else "",
        user="user root;" if os.geteuid() == 0 else "",
        folder=folder,
        port=port,
        origin=origin.target.port,
        outside=outside,
        inside=inside,
    )
    (folder / "nginx.conf").write_text(config)
    with started([binary, "-p", folder, "-c", folder / "nginx.conf"], folder=folder, cores=cores.server) as running:
        wait_until(lambda: listens(port), running, seconds=START_S_MAX)
        yield Target(name, port, running.pid)


@contextlib.contextmanager
def varnish(folder: Path, cores: Cores, origin: Origin) -> Iterator[Target]:
    """Varnish with the body in its hash, answers in memory."""
    binary = program("varnishd", "varnish varnish-modules")
    if not list(Path("/usr/lib").glob("*/varnish/vmods/libvmod_bodyaccess.so")):
        raise UnavailableError("Varnish needs its module bodyaccess: apt-get install varnish-modules")
    port = free_port()
    folder = folder / f"varnish-{port}"
    folder.mkdir()
    (folder / "cache.vcl").write_text(_VARNISH.format(origin=origin.target.port))
    command: list[str | Path] = [binary, "-F", "-j", "none", "-n", folder / "run", "-a", f"127.0.0.1:{port}",
               "-f", folder / "cache.vcl", "-s", "malloc,128m"]  # fmt: skip
    with started(command, folder=folder, cores=cores.server) as running:
        wait_until(lambda: listens(port), running, seconds=START_S_MAX)
        yield Target("Varnish", port, running.pid)


@contextlib.contextmanager
def aiohttp_constant(folder: Path, cores: Cores, body_bytes: int) -> Iterator[Target]:
    """The framework's own cost: a reply of as many bytes, made from nothing."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.load.constant", str(port), str(body_bytes)]
    with started(command, folder=folder, cores=cores.server) as running:
        wait_until(lambda: listens(port), running, seconds=START_S_MAX)
        yield Target("aiohttp, constant", port, running.pid)


@contextlib.contextmanager
def aiohttp_forwarder(folder: Path, cores: Cores, origin: Origin) -> Iterator[Target]:
    """The framework's own cost of a miss: each request is passed on, and nothing else is done."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.load.forward", str(port), origin.url]
    with started(command, folder=folder, cores=cores.server) as running:
        wait_until(lambda: listens(port), running, seconds=START_S_MAX)
        yield Target("aiohttp, forwarding", port, running.pid)


@contextlib.contextmanager
def litellm(folder: Path, cores: Cores, origin: Origin, redis_port: int, cache_folder: Path) -> Iterator[Target]:
    """LiteLLM's proxy with its Redis cache, before the origin's OpenAI form."""
    binary = _install_litellm(cache_folder)
    port = free_port()
    params = {"model": "openai/llama3.2", "api_base": f"{origin.url}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "llama3.2", "litellm_params": params}],
        "general_settings": {"master_key": LITELLM_KEY},  # it does not start without one
        "litellm_settings": {
            "cache": True,
            "cache_params": {"type": "redis", "host": "127.0.0.1", "port": redis_port, "ttl": 3600},
        },
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    command: list[str | Path] = [binary, "--config", file, "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a list at start
        "LITELLM_LOG": "ERROR",
    }
    with started(command, folder=folder, cores=cores.server, environment=environment) as running:
        wait_until(lambda: _is_alive(port), running, seconds=LITELLM_START_S_MAX, every_s=0.5)
        yield Target("LiteLLM + Redis", port, running.pid, path="/v1/chat/completions")


def _is_alive(port: int) -> bool:
    try:
        return bool(get_json(f"http://127.0.0.1:{port}/health/liveliness"))
    except (OSError, ValueError):
        return False


def _install_litellm(cache_folder: Path) -> Path:
    """Its command, installed once into an environment of its own: it holds back libraries that we need newer."""
    home = cache_folder / "litellm"
    binary = home / "bin" / "litellm"
    done = home / "installed"
    if done.exists() and done.read_text() == LITELLM and binary.exists():
        return binary
    venv.create(home, with_pip=True)
    command: list[str | Path] = [
        home / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        LITELLM,
    ]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LITELLM_INSTALL_S_MAX
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"pip install '{LITELLM}' took more than {LITELLM_INSTALL_S_MAX} s") from None
    if result.returncode:
        raise UnavailableError(f"pip install '{LITELLM}' failed: {result.stderr.strip()[-200:]}")
    done.write_text(LITELLM)
    return binary
