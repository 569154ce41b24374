# Everything a developer or a user types. `make test` installs what it needs.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Where no CUDA device is, the CPU build of torch is taken if pip finds one; a plain requirement pulls gigabytes.
TORCH ?= torch==2.13.0

.PHONY: setup system test test-all test-matrix check bench clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

system:
	@./.ci/system

test: system setup
	$(BIN)/python -m pytest -m "not slow"

test-all: system setup
	$(BIN)/python -m pytest

test-matrix: system
	./.ci/matrix

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	LAB_HTTPS=1 $(BIN)/python manage.py check --deploy --fail-level WARNING

bench: setup
	@$(BIN)/pip install --quiet --disable-pip-version-check trackio
	@$(BIN)/python -m tests.bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
