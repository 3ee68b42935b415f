# Two commands do everything on a fresh machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Modules are compiled when they are first imported, which is faster than to have pip compile all of them. Where the
# environment forbids to keep what was compiled, every process would spend 20 seconds on it anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test lint install clean
install: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check "torch>=2.6,<2.14"
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e ".[test]"
	@touch $@

# Data, training, evaluation, an A/B test of V1 and V2, then the web page on http://127.0.0.1:8000 (not with SERVE=0).
SERVE ?= 1
demo: install
	$(BIN)/onesearch run configs/demo.yaml
	$(BIN)/onesearch abtest runs/demo:v1 runs/demo:v2 --page-views 2500 --out runs/demo/abtest
	@if [ "$(SERVE)" = "1" ]; then $(BIN)/onesearch serve runs/demo; fi

# On two processes; a test that waits or computes alone leaves a core to the other.
WORKERS ?= 2
test: install
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

lint: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
