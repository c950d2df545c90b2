# make demo: the main job on the embedded model and data.  make test: everything the tests need.
# make browser: the Chromium of the report's tests, where apt-get may install it; without it they skip.
# make quantised: the tests of 4-bit and 8-bit weights, whose packages slow every other import.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test browser quantised lint clean

demo: $(VENV)/.demo
	$(BIN)/iwlora compare recipes/compare/quickstart.yaml --out runs/quickstart

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
			--no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 \
		|| echo "apt-get cannot install chromium and chromium-driver: the tests in a browser skip"; \
	else echo "no chromium and chromedriver, and no apt-get as root: the tests in a browser skip"; fi

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
