# Every chore has one name, on a laptop and in CI.
PYTHON ?= python3
VENV ?= .venv
HELM ?= helm
BIN := $(VENV)/bin

.PHONY: ask serve test lint contracts protos chart bench clean

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Antiphon needs Python 3.11 or newer; this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# What running needs, and what developing needs: installed once, and again when pyproject.toml or protos change.
$(VENV)/.runs: pyproject.toml hatch_build.py $(wildcard protos/antiphon/v1/*.proto) | $(VENV)/bin/python
	$(BIN)/pip install --editable '.[gateway,model]'
	@touch $@

$(VENV)/.develops: pyproject.toml hatch_build.py $(wildcard protos/antiphon/v1/*.proto) | $(VENV)/bin/python
	$(BIN)/pip install --editable '.[dev]'
	@touch $@ $(VENV)/.runs

ask: $(VENV)/.runs ## ask the spoken question that ships with the repository
	$(BIN)/antiphon ask --speak answer.wav

serve: $(VENV)/.runs ## the whole platform on port 8000
	$(BIN)/antiphon serve

test: $(VENV)/.develops ## every test that a CPU can run
	$(BIN)/pytest -n 2 --dist loadscope

lint: $(VENV)/.develops
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint protos

contracts: $(VENV)/.develops ## the architecture, as import-linter sees it
	$(BIN)/lint-imports

protos: $(VENV)/.develops ## regenerate antiphon/v1 after editing protos/
	$(BIN)/pip install --quiet --no-deps --editable .

chart: ## the chart, as helm sees it; needs helm
	$(HELM) lint charts/antiphon
	$(HELM) template antiphon charts/antiphon > /dev/null

bench: $(VENV)/.develops ## voice turns on this machine, beside plain transformers
	$(BIN)/antiphon bench --baseline transformers

clean:
	rm -rf $(VENV) antiphon/v1 build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
