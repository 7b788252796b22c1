# Relay. `make help` lists the targets; CONFIG= and SET="a.b=1 c=2" work on all that read a configuration, CLUSTER= on
# all that submit or plan, FRESH=1 on all that ask for runs: anew, beside what exists.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON ?= python3
TORCH_BACKEND ?=
CLUSTER ?=
SET ?=
SWEEP ?=
CI ?=
CONFIG ?=
WATCH ?=
CAUSE ?=
SEED ?=
MINUTES ?=
FRESH ?=

VENV := .venv
PY := $(VENV)/bin/python
INPUTS := $(shell cat requirements.lock pyproject.toml hpc/setup.sh | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.ready-$(INPUTS)-$(or $(TORCH_BACKEND),locked)
# A later call without TORCH_BACKEND keeps the torch build that an earlier one chose.
READY := $(if $(TORCH_BACKEND),$(STAMP),$(firstword $(wildcard $(VENV)/.ready-$(INPUTS)-*) $(STAMP)))

SETS = $(foreach value,$(SET),--set '$(value)')
OPTIONS = --config $(or $(CONFIG),configs/config.yaml) $(SETS)
PLACED = $(OPTIONS) $(if $(CLUSTER),--cluster $(CLUSTER))
ASKED = $(PLACED) $(if $(FRESH),--fresh)

.PHONY: help setup demo check format lint type test test-slurm slurm-install slurm-up slurm-down train lr grid refine \
	evaluate compare aggregate status tensorboard clean doctor plan retry pipeline chaos

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

setup: $(READY) ## .venv from requirements.lock, through uv; TORCH_BACKEND=cpu|cu128|auto chooses the torch build

$(STAMP):
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" ./hpc/setup.sh $(VENV)
	@rm -f $(VENV)/.ready-*; touch $@

demo: $(READY) ## the whole way on images made here: checks, LR sweep, grid, training, evaluation (under 4 minutes)
	@$(PY) -m hpc.demo --config $(or $(CONFIG),configs/demo.yaml) --cluster $(or $(CLUSTER),local) $(SETS)

check: $(READY) ## format, lint, types, tests
	@$(VENV)/bin/ruff format --check .
	@$(MAKE) --no-print-directory lint type test

format: $(READY) ## rewrite the code in the project's format
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix-only -q .

lint: $(READY) ## what ruff finds
	@$(VENV)/bin/ruff check .

type: $(READY) ## mypy, strict
	@$(VENV)/bin/mypy

test: $(READY) ## the tests that need no SLURM (under 5 minutes on 2 cores)
	@$(PY) -m pytest --ignore=tests/slurm -n auto --dist worksteal $(ARGS)

test-slurm: $(READY) ## the tests on a real SLURM, started for them on this machine
	@$(PY) -m pytest tests/slurm -n 2 --dist loadfile $(ARGS)

chaos: $(READY) ## a campaign of faults on a real SLURM; SEED=, MINUTES=
	@$(PY) -m tests.slurm.chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),10)

slurm-install: $(READY) ## SLURM's Debian packages (root)
	@$(PY) -m hpc.one_machine install

slurm-up: $(READY) ## a real SLURM on this machine; prints the export line to use
	@$(PY) -m hpc.one_machine up $(if $(NAME),--name $(NAME))

slurm-down: $(READY) ## stop it
	@$(PY) -m hpc.one_machine down $(if $(NAME),--name $(NAME))

train: $(READY) ## one full training
	@$(PY) -m hpc.launch train $(ASKED)

doctor: $(READY) ## one page about this site: what fits, what does not, what to do
	@$(PY) -m hpc.launch doctor $(PLACED)

plan: $(READY) ## what the grid would submit, and what it will take
	@$(PY) -m hpc.launch plan grid $(PLACED)

pipeline: $(READY) ## LR sweep, grid, the best cell in full and its evaluation, as a chain of jobs
	@$(PY) -m hpc.launch pipeline $(ASKED)

lr: $(READY) ## the LR sweep
	@$(PY) -m hpc.launch lr-sweep $(ASKED)

grid: $(READY) ## every cell of the grid, as one array; again: continue it; FRESH=1: anew
	@$(PY) -m hpc.launch grid $(ASKED)

refine: $(READY) ## the narrower grid around the best cell
	@$(PY) -m hpc.launch grid --refined $(ASKED)

evaluate: $(READY) ## artifacts/best.ckpt on the test split
	@$(PY) -m hpc.launch evaluate $(ASKED)

compare: $(READY) ## what each hyperparameter changed, around the best cell
	@$(PY) -m src.compare_runs $(SWEEP) $(OPTIONS)

aggregate: $(READY) ## tables and figures of all sweeps; SWEEP=name for one
	@$(PY) -m hpc.aggregate $(SWEEP) $(OPTIONS)

status: $(READY) ## how the runs of the newest sweep stand; SWEEP=name for another
	@$(PY) -m hpc.launch status $(SWEEP) $(OPTIONS) $(if $(WATCH),--watch)

retry: $(READY) ## failed runs of the newest sweep again, their budgets given back; SWEEP=, CAUSE=
	@$(PY) -m hpc.launch retry $(SWEEP) --failed $(if $(CAUSE),--cause $(CAUSE)) $(PLACED)

tensorboard: $(READY) ## TensorBoard on all runs
	@$(PY) -m hpc.launch tensorboard $(OPTIONS)

clean: ## caches and .venv; runs, artifacts, logs and data stay
	rm -rf $(VENV) .uv .pytest_cache .mypy_cache .ruff_cache
	find hpc jobs src tests -name __pycache__ -type d -prune -exec rm -rf {} +
