# Relay. `make help` lists the targets. CONFIG=FILE and SET="a.b=1 c=2" work on every target that reads a configuration,
# CLUSTER=PROFILE on those that submit or plan, FRESH=1 on those that submit: it starts over, beside what exists.
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
REPORT_LANG ?=
ONLY ?=
REPLICATIONS ?=

VENV := .venv
PY := $(VENV)/bin/python
INPUTS := $(shell cat requirements.lock pyproject.toml hpc/setup.sh | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.ready-$(INPUTS)-$(or $(TORCH_BACKEND),locked)
# A later call without TORCH_BACKEND keeps the torch build that an earlier one chose.
READY := $(if $(TORCH_BACKEND),$(STAMP),$(firstword $(wildcard $(VENV)/.ready-$(INPUTS)-*) $(STAMP)))

# Relay's own environment stays free of the frameworks.
FRAMEWORKS := .venv-frameworks
FRAMEWORKS_READY := $(FRAMEWORKS)/.ready-$(shell cat examples/*/requirements.txt tests/frameworks/requirements.txt \
	tests/frameworks/setup.sh requirements.lock | cksum | cut -d' ' -f1)

# Empty for FRESH=0 as for no FRESH.
on = $(filter-out 0 no false,$(1))
SETS = $(foreach value,$(SET),--set '$(value)')
OPTIONS = --config $(or $(CONFIG),configs/config.yaml) $(SETS)
PLACED = $(OPTIONS) $(if $(CLUSTER),--cluster $(CLUSTER))
ASKED = $(PLACED) $(if $(call on,$(FRESH)),--fresh)

.PHONY: help setup demo check format lint type test test-slurm test-frameworks slurm-install slurm-up slurm-down \
	train lr grid refine bench coverage evaluate compare aggregate report status tensorboard clean doctor plan retry \
	pipeline chaos reference

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do printf '  %-15s %s\n' "$$name" "$$text"; done

setup: $(READY) ## install .venv from requirements.lock with uv; TORCH_BACKEND=cpu|cu128|auto chooses the torch build

$(STAMP):
	@PYTHON="$(PYTHON)" TORCH_BACKEND="$(TORCH_BACKEND)" ./hpc/setup.sh $(VENV)
	@rm -f $(VENV)/.ready-*; touch $@

demo: $(READY) ## run a complete experiment on generated images: checks, LR sweep, grid, training, evaluation, report (about 2 minutes on 2 cores)
	@$(PY) -m src.demo --config $(or $(CONFIG),configs/demo.yaml) --cluster $(or $(CLUSTER),demo) $(SETS)

check: $(READY) ## check format, lint and types, and run the tests
	@$(VENV)/bin/ruff format --check .
	@$(MAKE) --no-print-directory lint type test

format: $(READY) ## format the code
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix-only -q .

lint: $(READY) ## run ruff
	@$(VENV)/bin/ruff check .

type: $(READY) ## run mypy in strict mode
	@$(VENV)/bin/mypy

test: $(READY) ## run the tests that need no SLURM (about 27 minutes on 2 cores)
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest --ignore=tests/slurm --ignore=tests/frameworks -n auto --dist worksteal $(ARGS)

test-slurm: $(READY) ## run the tests on a real SLURM, which they start on this machine
	@$(PY) -m pytest tests/slurm -n 2 --dist loadfile $(ARGS)

test-frameworks: $(READY) $(FRAMEWORKS_READY) ## run the examples of scripts, Hugging Face and Lightning on a real SLURM that interrupts them (about 7 minutes)
	@$(FRAMEWORKS)/bin/python -c 'from importlib.metadata import version; \
		print(*(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate", "lightning")), sep=", ")'
	@TEST_FRAMEWORKS=1 $(PY) -m pytest tests/frameworks $(ARGS)

$(FRAMEWORKS_READY): | $(READY)
	@tests/frameworks/setup.sh $(FRAMEWORKS) $(VENV)
	@touch $@

chaos: $(READY) ## inject faults into runs on a real SLURM; SEED=1 MINUTES=10
	@$(PY) -m tests.slurm.chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),10)

slurm-install: $(READY) ## install SLURM's Debian packages (as root)
	@$(PY) -m hpc.one_machine install

slurm-up: $(READY) ## start a real SLURM on this machine and print the export line for the shell
	@$(PY) -m hpc.one_machine up $(if $(NAME),--name $(NAME))

slurm-down: $(READY) ## stop the SLURM that slurm-up started
	@$(PY) -m hpc.one_machine down $(if $(NAME),--name $(NAME))

train: $(READY) ## train one model in full
	@$(PY) -m hpc.launch train $(ASKED)

doctor: $(READY) ## check this site: what fits the profile, what does not, and how to fix it
	@$(PY) -m hpc.launch doctor $(PLACED)

plan: $(READY) ## show what the grid would submit, and its forecast
	@$(PY) -m hpc.launch plan grid $(PLACED)

pipeline: $(READY) ## run LR sweep, grid, training of the best cell and evaluation, one after the other
	@$(PY) -m hpc.launch pipeline $(ASKED)

lr: $(READY) ## sweep the learning rate and suggest one
	@$(PY) -m hpc.launch lr-sweep $(ASKED)

grid: $(READY) ## train every cell of the grid as one array, or continue it; FRESH=1 starts over
	@$(PY) -m hpc.launch grid $(ASKED)

refine: $(READY) ## train the narrower grid around the best cell
	@$(PY) -m hpc.launch grid --refined $(ASKED)

evaluate: $(READY) ## evaluate artifacts/best.ckpt on the test split
	@$(PY) -m hpc.launch evaluate $(ASKED)

compare: $(READY) ## train the config's base and variants in full and compare them; without any, the best cell of the grid with its neighbours
	@$(PY) -m $(if $(SWEEP),src.compare_runs $(SWEEP) $(OPTIONS),hpc.launch compare $(ASKED))

aggregate: $(READY) ## write tables and figures of all sweeps; SWEEP=NAME for one
	@$(PY) -m hpc.aggregate $(SWEEP) $(OPTIONS)

bench: $(READY) ## measure against the conventional way and write the table into docs/performance.md; ONLY=NAME for a part
	@$(PY) -m tests.benchmarks.bench $(OPTIONS) $(if $(ONLY),--only $(ONLY),--write)

coverage: $(READY) ## simulate how often the statements about results are right (25 to 40 minutes) and write the tables into docs/statistics.md; ONLY=NAME for a part, REPLICATIONS=100 for a quick look that writes nothing
	@$(PY) -m tests.benchmarks.coverage $(if $(ONLY),--only $(ONLY)) $(if $(REPLICATIONS),--replications $(REPLICATIONS),--write)

reference: $(READY) ## write docs/reference.md, every key of configurations and profiles, from the schemas
	@$(PY) -m docs.reference

report: $(READY) ## write the report of the experiment from its runs; REPORT_LANG=fr for French, SET= and CONFIG= as with the runs
	@$(PY) -m src.report $(OPTIONS) $(if $(REPORT_LANG),--lang $(REPORT_LANG))

status: $(READY) ## show the state of the newest runs; SWEEP=NAME for others, WATCH=1 to refresh
	@$(PY) -m hpc.launch status $(SWEEP) $(OPTIONS) $(if $(call on,$(WATCH)),--watch)

retry: $(READY) ## submit failed runs of the newest sweep again; SWEEP=NAME for another, CAUSE=CRASHED for one cause
	@$(PY) -m hpc.launch retry $(SWEEP) --failed $(if $(CAUSE),--cause $(CAUSE)) $(PLACED)

tensorboard: $(READY) ## start TensorBoard on all runs; SWEEP=NAME for one sweep
	@$(PY) -m hpc.launch tensorboard $(SWEEP) $(OPTIONS)

clean: ## delete the environments and caches; runs, artifacts, logs and data stay
	rm -rf $(VENV) $(FRAMEWORKS) .uv .pytest_cache .mypy_cache .ruff_cache
	find relay hpc jobs src tests -name __pycache__ -type d -prune -exec rm -rf {} +
