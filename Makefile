# `make demo` and `make test` need nothing but Python 3.11 or newer. VENV=… uses another environment.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check drills chaos bench schema setup clean
.DEFAULT_GOAL := help

# Tests run side by side, for much of their time is waiting; those of a file in one process. K=word runs a part.
WORKERS ?= 4
K ?=
SIDE_BY_SIDE = -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
PYTEST = $(BIN)/python -m pytest -q --durations=15 --durations-min=5 $(if $(K),-k "$(K)",$(SIDE_BY_SIDE))

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: $(READY)  ## the environment in .venv, installed once

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)  ## pictures from prompts, captions of them, edits of them; about two minutes
	$(BIN)/python -m unipic.jobs.shapes.demo

test: $(READY)  ## all tests but the drills; K=ledger runs those with ledger in a name
	$(PYTEST)

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# More Rays at once than that start too slowly on two cores.
drills: WORKERS = 3
drills: $(READY)  ## the long tests: whole runs of the command line, killed workers, what the model has learned
	$(PYTEST) -m slow

RUNS ?= 200
OVERLAPS ?= 300
REAL ?= 25
SEED ?= 1
chaos: $(READY)  ## seeded faults until done: RUNS=200 alone, OVERLAPS=300 of processes that overlap, REAL=25 with Ray
	$(BIN)/python -m tests.chaos.command --runs $(RUNS) --overlaps $(OVERLAPS) --real $(REAL) --seed $(SEED)

bench: $(READY)  ## speed of the pipeline, of planning and of one replica
	$(BIN)/unipic bench pipeline
	$(BIN)/unipic bench plan
	$(BIN)/unipic bench model

schema: $(READY)  ## writes configs/job.schema.json anew
	$(BIN)/unipic schema > configs/job.schema.json.new
	mv configs/job.schema.json.new configs/job.schema.json

clean:  ## removes the environment and the demo's output
	rm -rf $(VENV) demo-output
