# `make` alone lists what there is. Needs Python 3.11 to 3.13 and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# So many processes share the whole suite; a file, or a folder with dear fixtures, is one process's (tests/conftest.py).
PROCESSES ?= 2
# A client that the tests call the proxy with. It holds back libraries that the package needs, so it lives apart.
LITELLM := litellm==1.106.2
# A browser looks at the dashboard: the first of these that is there, else Debian's, where we may install it.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
# torch stays at the version whose CPU build is at hand in most places; a newer one brings gigabytes of CUDA.
LOCK := $(BIN)/python -m piptools compile --quiet --strip-extras --no-emit-index-url --no-emit-find-links \
    --no-emit-trusted-host --upgrade-package torch==2.13.0

PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: help run test demo bench check lint lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/.run  ## start the proxy with its own Redis: clients on 11435, operators on 11436
	@$(BIN)/cacheproxy serve $(ARGS)

demo: $(VENV)/.run  ## show what it does, with a simulated Ollama
	@$(BIN)/cacheproxy demo $(ARGS)

test: $(VENV)/.test  ## run all checks and tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder)

check: $(VENV)/.run  ## tell what is configured, reachable and missing
	@$(BIN)/cacheproxy check $(ARGS)

bench: $(VENV)/.test  ## measure hits, misses and starts beside nginx, Varnish and LiteLLM (benchmarks/README.md)
	@$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.test  ## the static checks alone
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

lock: | $(BIN)/python  ## write the lock files anew from pyproject.toml
	@$(BIN)/python $(PIP) pip-tools
	@$(LOCK) --output-file requirements.lock pyproject.toml
	@$(LOCK) --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	@sed -i -E 's/^(torch==[0-9.]+)\+cpu/\1/' requirements.lock requirements-dev.lock

clean:  ## remove the environment (not the data)
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else \
	    "cacheproxy needs Python 3.11 to 3.13, %s is %d.%d; try: make PYTHON=python3.11" % (sys.executable, *sys.version_info[:2]))'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (once; torch alone is several hundred MB)"
	@$(BIN)/python $(PIP) -r requirements.lock
	@$(BIN)/python $(PIP) --no-deps --editable .
	@touch $@

# Here the parts are installed side by side.
$(VENV)/.test: requirements-dev.lock pyproject.toml Makefile | $(BIN)/python
	@$(MAKE) --no-print-directory --jobs=3 $(VENV)/.packages $(VENV)/.litellm $(VENV)/.browser
	@touch $@

# First what the lock file names, which leaves nothing to resolve; then, in seconds, what a lock file cannot name: CUDA
# for a torch that wants it, setuptools. Bytecode of what no test imports is not worth its time.
$(VENV)/.packages: requirements-dev.lock pyproject.toml Makefile | $(BIN)/python
	@echo "installing into $(VENV) (once; torch alone is several hundred MB)"
	@$(BIN)/python $(PIP) --no-compile --no-deps -r requirements-dev.lock
	@$(BIN)/python $(PIP) --no-compile -r requirements-dev.lock
	@$(BIN)/python $(PIP) --no-deps --editable .
	@touch $@ $(VENV)/.run

$(VENV)/.litellm: Makefile | $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/litellm
	@$(VENV)/litellm/bin/python $(PIP) --no-compile $(LITELLM)
	@touch $@

$(VENV)/.browser: Makefile | $(BIN)/python
	@for name in $(BROWSERS); do command -v $$name >/dev/null && exit 0; done; \
	    if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	        echo "installing chromium, for the tests of the dashboard"; \
	        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	            chromium fonts-dejavu-core >/dev/null; \
	    fi || true
	@touch $@
