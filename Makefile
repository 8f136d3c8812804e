# Two commands do all the set-up: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Without an NVIDIA GPU take the CPU build of torch: the default wheel brings gigabytes of CUDA.
TORCH_INDEX := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo --extra-index-url https://download.pytorch.org/whl/cpu)
DEMO ?= demo

.PHONY: help demo test lint format install bench package clean

help:
	@echo "make demo     install and run the main job on built-in phantoms (under 5 minutes once installed)"
	@echo "make test     install, lint, type check, whole test suite"
	@echo "make bench    speed, as ratios within one run"
	@echo "make format   format the code"
	@echo "make package  build the wheel"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 1 $(TORCH_INDEX) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,tensorrt,dev]"
	@touch $@

demo: install
	$(BIN)/edgemamba demo --out $(DEMO) --force

lint: install
	$(BIN)/ruff check edgemamba tests
	$(BIN)/ruff format --check edgemamba tests
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

format: install
	$(BIN)/ruff check --fix edgemamba tests
	$(BIN)/ruff format edgemamba tests

bench: install
	OMP_NUM_THREADS=1 $(BIN)/python -m edgemamba.bench --out profiles/reports

package: install
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
