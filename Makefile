# SPDX-License-Identifier: Apache-2.0
# Everything a newcomer, a developer and the continuous integration run. Needs GNU make and Python 3.11 or newer.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

# An environment without a PATH, as a bare container may have.
ifeq ($(PATH),)
export PATH := /usr/local/bin:/usr/bin:/bin
endif

# pip must neither ask nor tell about itself, whatever the machine's own settings are.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types sim soak mutants chaos attacks bench fuzz differential docs clean
.DELETE_ON_ERROR:

help: ## what can be made (this)
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(VENV)/.dev ## .venv with all that demo, tests and checks need

demo: $(VENV)/.demo ## four parties on this machine answer questions on real flights (ARGS=--json for JSON)
	@$(BIN)/junto demo $(ARGS)

test: $(VENV)/.dev ## all tests, three at once (ARGS=tests/link for some)
	@$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

lint: $(VENV)/.dev ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

sim: $(VENV)/.dev ## 300 simulated runs of 200 tasks and 14 faults (ARGS='--seeds 10 --from 301')
	@$(BIN)/python -m junto.testing.sim --seeds=300 --tasks=200 --fault-count=14 --jobs=2 $(ARGS)

soak: $(VENV)/.dev ## 10,000 simulated runs
	@$(BIN)/python -m junto.testing.sim --seeds=10000 --from=100001 --tasks=10 --fault-count=10 --seconds=10 --jobs=2 $(ARGS)

mutants: $(VENV)/.dev ## switch off one safeguard after the other: the simulator must find each
	@$(BIN)/python -m junto.testing.sim --mutants --seeds=300 --tasks=15 --fault-count=14 --seconds=12 --jobs=2 $(ARGS)

chaos: $(VENV)/.dev ## 500 tasks while nodes are killed and connections cut (ARGS='--seed 2 --tasks 1000')
	@$(BIN)/python tests/chaos/chaos_run.py $(ARGS)

attacks: $(VENV)/.dev ## attackers ask real nodes: how many people each recovers (ARGS=--mutants: with each defence switched off)
	@$(BIN)/python tests/attacks/attack_run.py $(ARGS)

bench: $(VENV)/.dev ## measure beside the peers: a table, and benchmarks/results.json
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(VENV)/.dev ## fuzz reviewer, frames, envelopes and settings, a minute each (ARGS=-max_total_time=7200)
	@$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@for target in reviewer frames envelopes settings; do \
	  $(BIN)/python tests/fuzz/coverage_guided.py $$target -max_total_time=60 $(ARGS) || exit 1; done

differential: $(VENV)/.dev ## compare the reviewer with DuckDB's binder (ARGS='--count 1000000 --jobs 2')
	@$(BIN)/python tests/fuzz/differential.py $(ARGS)

docs: $(VENV)/.dev ## write docs/cli.md anew from the commands' own help
	@$(BIN)/python scripts/cli_docs.py

clean: ## remove .venv and what the tools leave behind
	@rm -rf $(VENV) dist demo-run .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp says that its step ended well with the pyproject.toml of its time; a newer one runs the step again.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Junto needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Install one and name it: make PYTHON=python3.12 setup" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: python3-venv)." >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo "Installing Junto into $(VENV); the first time takes a minute or two."
	@$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	@echo "Installing what tests and checks need into $(VENV)."
	@$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	@touch $@
