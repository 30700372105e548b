# The two commands of the README, and the checks of CI. Needs Python 3.11 or newer, make and git; nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt
# Torch comes first and alone: with it in place no other package pulls another build of it.
INSTALL = $(PIP) "$$(grep '^torch==' constraints/cpu.txt)" && $(PIP) -e

.PHONY: demo test quality docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints/cpu.txt | $(BIN)/python
	$(INSTALL) ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints/cpu.txt | $(BIN)/python
	$(INSTALL) ".[dev]"
	touch $@

demo: $(VENV)/.demo  ## install, then register the built-in sample; ends with the path of the report
	$(BIN)/medwave demo brains -o medwave-demo

test: $(VENV)/.dev  ## install with the test extras, then run the whole suite
	$(BIN)/python -m pytest -n auto --dist loadfile

quality: $(VENV)/.dev  ## style, types of the mathematical rooms, import floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev  ## the documentation in docs/_build/html; a warning, such as a link that leads nowhere, is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf $(VENV) docs/_build docs/generated medwave-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
