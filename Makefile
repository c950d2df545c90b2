# make demo: the main job on the embedded model and data.  make test: everything the tests need.
# make quantised: the tests of 4-bit and 8-bit weights, whose packages slow every other import.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test quantised lint clean

demo: $(VENV)/.demo
	$(BIN)/iwlora compare recipes/compare/quickstart.yaml --out runs/quickstart

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

quantised: $(VENV)/.quantised
	PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest tests/test_quantised.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[quickstart,dev]'
	touch $@

$(VENV)/.quantised: $(VENV)/.dev
	$(BIN)/python -m pip install -c constraints.txt --no-deps --target $(VENV)/quantised bitsandbytes torchao
	touch $@

clean:
	rm -rf $(VENV) runs
