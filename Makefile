# The two commands of the README, and the checks of CI. Needs Python 3.11 or newer, make and git; nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt
# Torch comes first and alone: with it in place no other package pulls another build of it.
INSTALL = $(PIP) "$$(grep '^torch==' constraints/cpu.txt)" && $(PIP) -e

.PHONY: demo test quality docs smoke clean

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

smoke:  ## sdist, and the wheel made from it, in an empty environment: does it hold all that it needs?
	rm -rf dist $(VENV)-smoke
	$(PYTHON) -m venv $(VENV)-smoke
	$(VENV)-smoke/bin/python -m pip install --quiet --disable-pip-version-check build
	$(VENV)-smoke/bin/python -m build --outdir dist .
	rm -rf $(VENV)-smoke
	$(PYTHON) -m venv $(VENV)-smoke
	$(VENV)-smoke/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt \
		"$$(grep '^torch==' constraints/cpu.txt)"
	$(VENV)-smoke/bin/python -m pip install --quiet --disable-pip-version-check -c constraints/cpu.txt \
		"$$(ls $(CURDIR)/dist/*.whl)[demo]"
	cd dist && $(abspath $(VENV)-smoke)/bin/python ../tests/installed_smoke.py

clean:
	rm -rf $(VENV) $(VENV)-smoke dist docs/_build docs/generated medwave-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
