# Two commands are all that a fresh machine with Python needs: `make demo` and `make test`.
#
#   make demo    makes .venv, installs lateral, schedules the IEEE 123 feeder and writes out/ieee123/
#   make areas   the same feeder (balanced) in four areas, a process for each, writes out/areas/
#   make test    makes .venv, installs lateral with its tools, runs the tests
#
# Variables: PYTHON (python3), VENV (.venv), OUT (out/ieee123), JOBS (2).

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/ieee123
JOBS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK = 1
INSTALL = $(VENV)/bin/python -m pip install --quiet

.PHONY: demo areas test docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(VENV)/bin/lateral solve ieee123 --out $(OUT)
	@echo "Open $(OUT)/report.html in a browser; $(OUT)/summary.json holds the numbers."

areas: $(VENV)/.installed
	$(VENV)/bin/lateral areas run ieee123-t24 --formulation nonlinear --executor process --out out/areas
	@echo "Open out/areas/report.html in a browser; out/areas/rounds.csv holds the rounds."

test: $(VENV)/.installed-dev
	$(VENV)/bin/python -m pytest -n $(JOBS)

docs: $(VENV)/.installed-dev
	$(VENV)/bin/python docs/generate.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "lateral needs Python 3.11 or later; say which with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Editable, so that a change of the sources needs no new installation; a change of the dependencies does.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
