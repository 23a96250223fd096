# Two commands do all the set-up: `make start` and `make test`. The rest is for developers.
#   make start   a cluster of one machine, in the foreground, on loopback
#   make test    every test; as root it fetches the programs that they use
#   make fresh   both commands on new machines, as root and as an ordinary user; needs root
#   make lint    ruff, mypy, import-linter, docutils
#   make soak    the long runs: hundreds of kills, gigabytes, thousands of connections
#   make bench   speed beside OpenSSH and others: prints a table, writes bench-results.json
#   make clean   forget .venv and everything that was built (var/, the cluster, stays)

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: start test fresh lint soak bench clean python
.SUFFIXES:

start: .venv/run
	@exec $(BIN)/python -m teleconch.cli.quickstart var

test: .venv/test
	@./tests/programs
	@./tests/run $(BIN)/python

fresh:
	@./tests/fresh $(RELEASE)

lint: .venv/lint .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	for file in README.rst docs/*.rst; do $(BIN)/docutils --writer=null --halt=warning $$file || exit 1; done

soak: .venv/test
	@./tests/programs
	$(PYTEST) -m soak --soak -o faulthandler_timeout=0

bench: .venv/bench
	@./tests/programs
	$(BIN)/python -m bench

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

python:
	@test -n "$(PYTHON)" || { \
	  echo "teleconch needs Python 3.11 or newer; on Debian 12 or later: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is no Python 3.11 or newer: name another with make PYTHON=..., or leave PYTHON away" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python has no venv or pip here; on Debian: apt-get install python3-venv" >&2; exit 1; }

# One virtual environment; a stamp per set of extras, so that `make start` fetches no test tools.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable
NOT_INSTALLED = { echo "The packages that teleconch needs could not be installed (see above; is there a network?)." \
	"Run make again, or make clean first." >&2; exit 1; }

.venv/bin/python: | python
	@$(PYTHON) -m venv .venv

.venv/run: setup.cfg pyproject.toml .venv/bin/python
	@echo "Installing teleconch into .venv ..."
	@$(INSTALL) . || $(NOT_INSTALLED)
	@touch $@

.venv/test .venv/lint .venv/bench: .venv/%: setup.cfg pyproject.toml .venv/bin/python
	@echo "Installing teleconch into .venv (with what '$*' needs) ..."
	@$(INSTALL) '.[$*]' || $(NOT_INSTALLED)
	@touch .venv/run $@
