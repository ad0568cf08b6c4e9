# Each target makes its own virtual environment when there is none: Python 3.11 or newer and make are all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format lock fuzz clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tidegate needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) (about a minute, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)  ## the main job, live: four simulated servers behind a real Envoy, round robin beside tidegate's pick
	@$(BIN)/tidegate bench demo

test: $(READY)  ## run the tests
	@$(BIN)/pytest -n 4 --dist worksteal

check: $(READY)  ## lint, format, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(READY)  ## rewrite the code in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(READY)  ## write the installed versions to constraints.txt
	@$(BIN)/python -m pip freeze --exclude-editable > constraints.txt
	@touch $(READY)

FUZZ := .venv-fuzz
FUZZ_S ?= 60

$(FUZZ)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt 'atheris>=3,<4' msgspec
	@$(FUZZ)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

fuzz: $(FUZZ)/.ready  ## fuzz what reads a server's answers with atheris, FUZZ_S=60 seconds for each of its five readers
	@for target in signals readers rules statistics orca; do \
	  echo "$$target:"; \
	  $(FUZZ)/bin/python tests/fuzz/run.py $$target $(FUZZ)/corpus/$$target -max_total_time=$(FUZZ_S) -max_len=8192 \
	    -timeout=20 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 -artifact_prefix=$(FUZZ)/found-$$target- || exit 1; \
	done

clean:  ## remove the virtual environment and the caches
	rm -rf $(VENV) $(FUZZ) .venv-triton .venv-triton.lock .mypy_cache .ruff_cache .pytest_cache .hypothesis
