# `make demo` and `make test` are all the set-up there is: both install into .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
PACKAGES := pipelines tokenizer dedup shards trainer

.PHONY: install demo test lint types bench docs wheel clean

install: $(STAMP)

# The lock is a pip constraints file: versions only, no addresses.
$(STAMP): pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/assay demo --out demo

test: lint types
	$(BIN)/pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry .

types: install
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks.dedup --quick

clean:
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
