# `make demo` and `make test` are all the set-up there is: both install into .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
PACKAGES := pipelines tokenizer dedup shards trainer
BENCHMARKS := dedup quality loader tokenize trainer study_stats pipeline

.PHONY: install demo test lint types bench docs wheel clean

install: $(STAMP)

# The lock is a pip constraints file: versions only, no addresses.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,web,lang]'
	touch $(STAMP)

demo: install
	$(BIN)/assay demo --out demo

# Two processes: what a test file makes once (kernels, a dataset) is made once.
test: lint types
	$(BIN)/pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry .

types: install
	$(BIN)/mypy

bench: install
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

wheel: install
	rm -rf build  # or setuptools would pack modules that are gone
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

docs: install
	$(BIN)/pdoc --output-directory docs/api $(PACKAGES)
	@echo "API reference: docs/api/index.html"

clean:
	rm -rf demo build dist docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
