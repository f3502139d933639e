# `make demo` and `make test` each work first and alone: both build the environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-exhaustive test-oldest mutate lint format docs audit clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[cpu,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/onebit demo --out demo

# One process per core, one thread each: most tests are too small for threads.
# `make test HYPOTHESIS_PROFILE=anew` draws other examples where hypothesis draws them.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not exhaustive"

# Every network with every binarizer, of which the slow tests have a covering sample.
test-exhaustive: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m exhaustive

# The fast tests with the oldest versions of everything that pyproject.toml allows: docs/testing.md.
OLDEST ?= .venv-oldest
$(OLDEST)/.installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --disable-pip-version-check -q -c tests/oldest.txt -e '.[cpu,dev]'
	touch $@

test-oldest: $(OLDEST)/.installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n auto --dist worksteal -m "not slow"

# Which single-point faults of the core the fast tests notice: docs/testing.md.
MUTANTS ?= 300
mutate: $(VENV)/.installed
	$(BIN)/python -m tests.mutants.run --sample $(MUTANTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.12

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir build/docs

audit: $(VENV)/.installed
	$(BIN)/python .ci/audit.py

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info demo
