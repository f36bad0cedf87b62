# Everything from a fresh clone, with nothing but make and Python 3.11 or newer:
#
#   make run  ARGS="model.depth=50 model.activation=sigmoid model.init=xavier"
#   make test ARGS="-k clip"      make lint      make types      make bench ARGS="--peers loop"      make clean
#   make faults KILLS=100 LINES=10000  kills, fuzzed command lines and damaged folders: docs/reliability.md
#   make reproduce SEEDS="1000 2000"   every named experiment beside what its source says, on other seeds too: docs/reproductions.md
#
# Another Python: make run PYTHON=python3.12

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# One worker a core, eight at most; each computes with one thread, which is faster for small networks. A file stays with
# one worker, so that what its tests share is made once.
WORKERS ?= -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help run test lint scripts format types bench reproduce faults clean

help:
	@sed -n '2,9s/^# \{0,3\}//p' Makefile

run: $(VENV)/run.stamp
	@$(BIN)/gradlab run $(ARGS)

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(WORKERS) $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory scripts; else echo "no npm here: the types of the page's script are not checked"; fi

# The types of the script inside the report's page.
scripts: node_modules/stamp
	npm run --silent check

node_modules/stamp: package.json
	npm install --no-package-lock --no-audit --no-fund --silent
	@touch $@

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

bench: $(VENV)/bench.stamp
	$(BIN)/python -m benchmarks.grid $(ARGS)

reproduce: $(VENV)/run.stamp
	$(BIN)/python -m benchmarks.reproduce $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

KILLS ?= 100
LINES ?= 10000
SEED ?= 0

faults: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 GRADLAB_FUZZED_LINES=$(LINES) $(BIN)/python -m pytest -n 1 -o faulthandler_timeout=7200 tests/faults $(ARGS)
	$(BIN)/python -m tests.faults.campaign $(KILLS) $(SEED)

clean:
	rm -rf $(VENV) node_modules build dist .pytest_cache .mypy_cache .ruff_cache
	find gradlab tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# What each stamp installs: that of dev includes those of test and run. A stamp is older than pyproject.toml or constraints.txt exactly when one of them has changed.
$(VENV)/run.stamp: EXTRA :=
$(VENV)/test.stamp: EXTRA := [test]
$(VENV)/bench.stamp: EXTRA := [bench]
$(VENV)/dev.stamp: EXTRA := [dev]

$(VENV)/%.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "gradlab needs Python 3.11 or newer, and '$(PYTHON)' is not one; name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".$(EXTRA)"
	@touch $@ $(if $(filter dev,$*),$(VENV)/test.stamp $(VENV)/run.stamp)
