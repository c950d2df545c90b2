# make demo:      four methods on the embedded model and data, in minutes
# make study:     the long form: learning rates searched, and seeds until each method has a verdict; hours
# make quick:     the fast tests: at least one of each public function and command
# make test:      all tests but the slow ones
# make slow:      the slow ones: launchers, installed packages, and what else imports PyTorch anew
# make lint:      style, types, and who may import whom
# make lines:     lines of code in src
# make docs:      the documentation as a site in docs/_build; prints its path
# make oldest:    the fast tests with the oldest accepted versions of the dependencies
# make hostile:   300 foreign folders that want to do harm, each with a command that opens it
# make families:  a tiny model of every family of transformers, and every chat template of TRL
# make wheel:     the built wheel in a clean environment
# make browser:   Chromium for the report's tests, if apt-get may install it; else they are skipped
# make quantised: the tests of 4-bit and 8-bit weights, whose packages slow down every other import
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := python -m pytest -n 2 --dist loadfile

.PHONY: demo study quick test slow lint lines docs oldest families hostile wheel browser quantised clean

demo: $(VENV)/.demo
	$(BIN)/iwlora compare recipes/compare/quickstart.yaml --jobs 2 --out runs/quickstart

study: $(VENV)/.demo
	$(BIN)/iwlora compare recipes/compare/study.yaml --jobs 2 --out runs/study-verdicts

quick: $(VENV)/.dev
	$(BIN)/$(PYTEST) -m quick

test: $(VENV)/.dev
	$(BIN)/$(PYTEST)

slow: $(VENV)/.dev
	$(BIN)/$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache
	PYTHONPATH=src:study/src $(BIN)/lint-imports --no-cache --config study/pyproject.toml

docs: $(VENV)/.docs
	rm -rf docs/_build
	$(BIN)/python -m sphinx -E -W --keep-going -q docs docs/_build
	$(BIN)/python docs/check_links.py docs/_build
	@echo "$(CURDIR)/docs/_build/index.html"

lines:
	$(PYTHON) tests/lines_of_code.py

oldest: $(VENV)/.oldest
	$(VENV)/oldest/bin/$(PYTEST) -m quick -W ignore

families: $(VENV)/.dev
	$(BIN)/python stress/architectures.py
	$(BIN)/python stress/chat_templates.py

hostile: $(VENV)/.dev
	$(BIN)/python stress/hostile_folders.py --cases 300

wheel:
	.ci/wheel $(PYTHON)

browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
			--no-install-recommends chromium chromium-driver; } >/dev/null 2>&1 \
		|| echo "apt-get cannot install chromium and chromium-driver: the tests in a browser skip"; \
	else echo "no chromium and chromedriver, and no apt-get as root: the tests in a browser skip"; fi

quantised: $(VENV)/.quantised
	PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest tests/training/model/test_quantized_weights.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[quickstart]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[quickstart,dev]'
	touch $@

$(VENV)/.docs: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -c constraints.txt -e '.[docs]'
	touch $@

$(VENV)/.oldest: pyproject.toml .ci/oldest.txt
	$(PYTHON) -m venv --clear $(VENV)/oldest
	$(VENV)/oldest/bin/python -m pip install -c .ci/oldest.txt -e '.[quickstart,generation]' \
		hypothesis pytest pytest-xdist torchmetrics
	touch $@

$(VENV)/.quantised: $(VENV)/.dev
	$(BIN)/python -m pip install -c constraints.txt --no-deps --target $(VENV)/quantised bitsandbytes torchao
	touch $@

clean:
	rm -rf $(VENV) runs docs/_build
