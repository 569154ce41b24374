# Everything a developer or a user types. Each target installs what it needs.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Where no CUDA device is, the CPU build of torch is taken; TORCH names another requirement.
export VENV PYTHON TORCH TORCH_INDEX
# Compiled modules are kept: a lab is many processes, and each would compile them again.
export PYTHONDONTWRITEBYTECODE :=

# For `make run` and `make signin`: where the lab is served and where it keeps everything.
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= data

# Two test files at a time: much of the time of a test is waiting for processes and browsers.
SIDE_BY_SIDE ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run signin setup system test test-all test-matrix check bench clean

run:
	@./.ci/system run
	@LAB_DATA=$(abspath $(DATA)) $(MAKE) -s $(VENV)/.run
	@LAB_DATA=$(abspath $(DATA)) exec $(BIN)/python manage.py lab --host $(HOST) --port $(PORT)

signin: $(VENV)/.run
	@LAB_DATA=$(abspath $(DATA)) $(BIN)/python manage.py signin $(NAME)

setup: $(VENV)/.dev

$(VENV)/.run: pyproject.toml
	@./.ci/venv run

$(VENV)/.dev: pyproject.toml
	@./.ci/venv dev

system:
	@./.ci/system test

test: system setup
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

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
