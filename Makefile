# From a bare clone: make demo | test | test-quick | lint | docs | clean. Needs Python 3.10 or newer and make; the rest goes into .venv.
VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
             $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
ARGS   ?=
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help demo test test-quick lint docs install clean

help:
	@echo "make demo     pick simulated micrographs, score the picks, draw them (into demo/)"
	@echo "make test     run the tests             (make test ARGS='tests/test_images.py -k mrc')"
	@echo "make test-quick  the tests that are not slow by design: two minutes on two cores"
	@echo "make lint     ruff and mypy"
	@echo "make docs     build the documentation into site/"
	@echo "make install  only make $(VENV), where the others run"
	@echo "make clean    remove all that make has made, $(VENV) included"

demo: $(READY)
	@$(BIN)/cryoemmae demo --out demo $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest $(ARGS)

test-quick: $(READY)
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(READY)
	@NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet --strict
	@echo "Documentation: site/index.html"

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "cryoemmae needs Python 3.10 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV), once; this takes a minute or a few"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	    rm -rf $(VENV); echo "No virtual environment: is Python's venv module there? (Debian: apt install python3-venv)" >&2; exit 1; }
	@{ while sleep 5; do echo "still installing"; done; } & tick=$$!; trap 'kill $$tick' EXIT INT TERM; \
	    $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	@rm -rf $(VENV) demo site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
