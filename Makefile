# Every target sets up what it needs: a virtual environment in .venv, made again when the dependencies change.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= out/quickstart
SEED ?= 0
PYTEST_ARGS ?=

# Idle OpenMP threads sleep: spinning ones make a training step several times slower on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
# DeepSpeed compiles its operators when they are first used, never at installation.
export DS_BUILD_OPS ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install quickstart smoke test test-all mutants check format report clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

# Torch first, at the tested version, so that a CPU-only build offered by the index in use is kept by what follows.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python >= 3.11 is needed, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[official,dev]'
	@touch $(STAMP)

install: $(STAMP) ## make the environment in .venv

quickstart: $(STAMP) ## the whole chain on the bundled sample, on a CPU: SFT, reward model, PPO, DPO, evaluation, report
	$(BIN)/vlm-rlhf quickstart --seed $(SEED) --out $(OUT)

smoke: $(STAMP) ## the same chain on very small input
	$(BIN)/vlm-rlhf quickstart --smoke --seed $(SEED)

report: $(STAMP) ## write the HTML report of the last quickstart again
	$(BIN)/vlm-rlhf report $(OUT)

test: $(STAMP) ## the default tests: no network, no data from outside
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: check ## style, types, layers, and every test that this machine can run
	$(BIN)/python -m pytest -m "not gpu and not network" --durations=15 $(PYTEST_ARGS)

mutants: $(STAMP) ## break each invariant by a small patch, one after the other: its test must fail (4 minutes)
	$(BIN)/python tests/mutants/mutants.py

check: $(STAMP) ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP) ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and the caches, keep out/
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
