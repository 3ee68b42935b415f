# On a fresh machine with Python >= 3.11, `make demo` and `make test` do everything. All targets:
#
#   demo      data, V1 and V2 trained and measured, an A/B test, then the web page on http://127.0.0.1:8000 (not with SERVE=0)
#   test      fast and end-to-end tests, about fifteen minutes on two cores
#   check     everything there is: lint, all tests, all mutants, the other Python versions, the documentation
#   lint      rules, layout, types, arrows of import
#   format    lay the code out
#   long      tests of up to minutes each; PART=3/10 takes every tenth, beginning with the third
#   mutants   do the tests notice one-line faults? PART as above
#   docs      the documentation as a web site, in site/
#   install   the environment, in .venv; CONSTRAINTS=constraints.txt takes the exact versions that we test with
#   clean     remove what the targets made
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))
CODE := src tests benchmarks examples

# Modules are compiled when they are first imported, which is faster than to have pip compile all of them. Where the
# environment forbids to keep what was compiled, every process would spend 20 seconds on it anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test long check lint format mutants docs install clean
install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "torch>=2.6,<2.14"
	$(PIP) -e ".[test]"
	@touch $@

SERVE ?= 1
demo: install
	$(BIN)/onesearch run configs/demo.yaml
	$(BIN)/onesearch abtest runs/demo:v1 runs/demo:v2 --page-views 1500 --out runs/demo/abtest
	@if [ "$(SERVE)" = "1" ]; then $(BIN)/onesearch serve runs/demo; fi

# On two processes; a test that waits or computes alone leaves a core to the other.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
test: install
	$(PYTEST) -m "not long and not hours" --durations=25

PART ?= 1/1
long: install
	$(PYTEST) -m long --part $(PART) --durations=25

check: lint test long
	$(PYTEST) -m hours
	$(MAKE) mutants docs
	PATH="$(abspath $(BIN)):$$PATH" .ci/other-pythons

lint: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --select I --fix $(CODE)
	$(BIN)/ruff format $(CODE)

mutants: install
	$(BIN)/python tests/mutants/run_mutants.py --part $(PART) --workers $(WORKERS)

docs: install
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-3.* runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
