# `make` lists what there is. Everything below works the same with `make -j`.

#: PYTHON     the Python, 3.11 or later, that .venv is made with (python3)
#: MODEL      a hub id or a local folder for the demo (Gemma 3 270M, from PyPI)
#: OUTPUT     where the demo's results go (results/demo.jsonl)
#: TESTS      which tests: a file, a folder, file::test (tests)
#: PROCESSES  tests that run at once: most of them wait for others (3)
#: FAULTS     short, or long: every moment, more rounds, longer pauses (short)
#: PIP_FLAGS  more options for pip install, such as another index
PYTHON ?= python3
MODEL ?=
OUTPUT ?= results/demo.jsonl
TESTS ?= tests
PROCESSES ?= 3
FAULTS ?= short
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
WEIGHTS := models/gemma3-270m
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
# Two pips must not write one environment at once.
.NOTPARALLEL:
.PHONY: help demo test test-faults bench check format clean

help: ## List the targets and what can be set
	@echo 'make TARGET [NAME=value …]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile
	@echo 'names:'
	@awk -F '#: ' '/^#: / {print "  " $$2}' Makefile

demo: $(VENV)/.demo $(if $(MODEL),,$(WEIGHTS)/config.json) ## Generate text for every prompt in examples/, with a real model
	@mkdir -p "$(dir $(OUTPUT))"
	$(BIN)/promptmill run examples/prompts.jsonl --model "$(or $(MODEL),$(WEIGHTS))" --output "$(OUTPUT)" --table

test: $(VENV)/.dev ## Run the tests
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal $(TESTS)

test-faults: $(VENV)/.dev ## Kill and starve real processes; nothing may be lost or done twice
	PROMPTMILL_TEST_FAULTS=$(FAULTS) $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal tests/faults --durations=10

# Some ten minutes with every peer, less without: those that are not installed are left out.
bench: $(VENV)/.bench $(WEIGHTS)/config.json ## A short pass of every benchmark; full ones: docs/performance.md
	$(BIN)/python benchmarks/generation.py --prompts 8 --rounds 1 --only promptmill --only "engine alone" --only vLLM
	$(BIN)/python benchmarks/overhead.py --prompts 8 --rounds 1
	$(BIN)/python benchmarks/limit.py --prompts 8
	$(BIN)/python benchmarks/operators.py --tries 3
	$(BIN)/python benchmarks/prefix.py --prompts 48 --rounds 1
	$(BIN)/python benchmarks/queues.py --jobs 20000 --peer-jobs 500
	$(BIN)/python benchmarks/submit.py --prompts 50000
	$(BIN)/python benchmarks/scaling.py --workers 1 --workers 4 --seconds 5
	$(BIN)/python benchmarks/depth.py --jobs 20000 --jobs 200000
	$(BIN)/python benchmarks/capacity.py --jobs 20000
	$(BIN)/python benchmarks/soak.py --jobs 50000
	$(BIN)/python benchmarks/plots.py --into results/benchmarks

check: $(VENV)/.dev ## Lint, formatting, types and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Mend what lint and formatting can mend by themselves
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the environment and every cache; weights and results stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./models -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Each of these files says that a step is done for the pyproject.toml and constraints.txt of its
# time, so that the next run skips it.

$(VENV)/.made:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "promptmill needs Python 3.11 or later, and '$(PYTHON)' is none: make PYTHON=/path/to/python3" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[worker,embedded,demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP_INSTALL) -e '.[worker,embedded,pandas,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev $(VENV)/.demo
	$(PIP_INSTALL) -e '.[worker,embedded,demo,dev,bench]'
	@touch $@

$(WEIGHTS)/config.json: | $(VENV)/.demo
	$(BIN)/python examples/fetch_weights.py $(WEIGHTS)
