# One command per habit, the same at the desk and in CI. Everything runs in .venv, which is made
# when it is first needed; PYTHON chooses the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-fast test-s3 storm lint types check bench bench-store format clean

help:
	@echo "make demo       make a small dataset, extract its features, write vlpipe-demo/report.html"
	@echo "make test       all tests"
	@echo "make test-fast  without those marked slow"
	@echo "make test-s3    the tests of the store again, on an S3 server of this machine"
	@echo "make storm      kills, damage and failing file operations at full size (20 minutes)"
	@echo "make lint       ruff, mypy"
	@echo "make check      what CI runs: lint and test"
	@echo "make bench      benchmarks, as ratios"
	@echo "make bench-store  the store beside npy, HDF5, Zarr, LMDB and a memory map (needs 30 GB of disk)"
	@echo "make format     let ruff format and fix"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/vlpipe demo --out vlpipe-demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

test-s3: $(VENV)/.installed
	VLPIPE_STORES_AT=s3 $(BIN)/python -m pytest tests/stores --ignore tests/stores/datasets \
	  --numprocesses 2 --dist loadfile -m "not folder" -k "not exchange" --timeout 900

storm: $(VENV)/.installed
	VLPIPE_KILLS=300 VLPIPE_KILLED_COMMANDS=10 VLPIPE_DAMAGED_PLACES=2000 VLPIPE_EXAMPLES=150 \
	  $(BIN)/python -m pytest --numprocesses 2 --timeout 3600 -o faulthandler_timeout=3600 \
	  tests/stores/test_concurrency.py tests/stores/test_damage.py tests/stores/test_model.py \
	  tests/stores/test_model_of_failures.py tests/pipelines/test_interruption.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

types: $(VENV)/.installed
	$(BIN)/mypy

check: lint test

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

bench-store: $(VENV)/.installed
	$(BIN)/python -m benchmarks store

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist vlpipe-demo
