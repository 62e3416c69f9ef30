# Everything here runs on a machine that has Python 3.11, make and pip. `make` alone lists the targets.
PYTHON ?= python3
EXTRAS ?= dev
ARGS ?=

comma := ,
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-input --no-compile -c constraints.txt
SOURCES := al_core vendored experiments conf tests docs $(wildcard benchmarks)

.DEFAULT_GOAL := help
.PHONY: help install demo annotate test test-live check format format-check lint types prose site constraints clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## build .venv with the pinned packages (EXTRAS=dev,slurm,ray for more)

# torch and its CUDA libraries are five of the six gigabytes, and pip works on one core: so they are
# unpacked in two processes, and the bytecode is compiled on all cores afterwards. The third call to
# pip is the one that counts: what the first two leave undone, for whatever reason, it does.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This project needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there). Name another one: make install PYTHON=python3.11" >&2; \
	  exit 1; }
	@echo "Installing into $(VENV) (about 6 GB with the CUDA libraries, one to three minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(PIP) --no-deps $$(grep -E '^nvidia-' constraints.txt) 2>/dev/null & \
	  $(PIP) --no-deps $$(grep -E '^(torch|triton)==' constraints.txt) 2>/dev/null; \
	  wait; \
	fi
	@$(PIP) -e ".[$(EXTRAS)]"
	@$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|testing/_internal)/' $(VENV)/lib || true
	@touch $@

demo: install  ## random, learning loss and margin on a skewed pool of digits, then a report
	$(BIN)/python -m experiments.run -m experiment=demo strategy=random,learning_loss,margin \
	  seed=0,1,2,3,4 hydra/launcher=joblib hydra.launcher.n_jobs=2
	$(BIN)/python -m experiments.report runs/demo

annotate: install  ## annotate FOLDER=photos CLASSES=cat,dog in Label Studio (TASK=detection, ARGS=...)
	@test -n "$(FOLDER)" && test -n "$(CLASSES)" || { \
	  echo "make annotate FOLDER=photos CLASSES=cat,dog [TASK=detection]" >&2; exit 1; }
	@$(BIN)/python -m experiments.annotate "$(FOLDER)" --classes "$(CLASSES)" $(if $(TASK),--task $(TASK)) $(ARGS)

# Rewriting the assertions of every test costs 10 s a process where the bytecode is not kept.
test: install  ## the test suite (ARGS='-m "not slow" -x' goes to pytest)
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $${PYTEST_WORKERS:-auto} --maxprocesses 8 --dist worksteal $(ARGS)

test-live:  ## tests with a real server of Label Studio (1 GB into .venv-label-studio, 10 minutes)
	@$(MAKE) --no-print-directory install EXTRAS=dev,live
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/live -m live $(ARGS)

check: install format-check lint types prose  ## format, lint, types and prose, changing nothing

format: install  ## put the code into the house's format
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

format-check: install
	@$(BIN)/ruff format --check $(SOURCES)

lint: install
	@$(BIN)/ruff check $(SOURCES)

types: install
	@$(BIN)/mypy

prose: install
	@$(BIN)/python -m tests.prose

site: install  ## the documentation as a site, with the docstrings of al_core: build/site/index.html
	@$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs/site . build/site

# A renewal: the newest versions that every extra together allows, in an environment of their own.
constraints:  ## renew constraints.txt (TORCH=2.14.0 holds torch back)
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip --disable-pip-version-check install --quiet \
	  $(if $(TORCH),torch==$(TORCH)) -e ".[dev,live,slurm,ray]"
	@{ sed -n '/^#/p' constraints.txt; \
	   build/constraints/bin/python -m pip --disable-pip-version-check freeze --all --exclude-editable \
	   | grep -E '^[A-Za-z0-9._-]+==' | grep -v '^pip=='; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/constraints
	@echo "constraints.txt: $$(grep -c == constraints.txt) packages"

clean:  ## remove caches and build products, keeping .venv, runs and data
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis outputs multirun *.egg-info
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
