# The two commands of README.md:  make run   and   make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run test check bench tree clean

run: $(STAMP)
	$(BIN)/compress run --sparsity 0.9

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# The static checks; .ci/run calls this, then `make test` (docs/decisions/0004-ci-lines.md).
check: $(STAMP)
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy
	$(BIN)/lint-imports

# bench/chunks.py is left out: it compares students that somebody has to train.
BENCHES := losses sparsity quantize seeds latency runtime decoding gate robustness endless forms

bench: $(STAMP)
	@set -e; for name in $(BENCHES); do echo "== $$name"; $(BIN)/python bench/$$name.py --quick; done

# Redraws the tree in README.md from the files' docstrings.
tree:
	$(PYTHON) docs/tree.py

clean:
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The stamp makes a second call instant; a changed pyproject.toml or constraints.txt installs again.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV), with torch: two to four minutes the first time"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,demo,mic,serve,dev]'
	touch $@
