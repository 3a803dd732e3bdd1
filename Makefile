# `make demo` and `make test` work on a fresh machine: Python 3.10-3.13 with pip, and make.
PYTHON ?= $(shell for v in python3.12 python3.11 python3.10 python3.13 python3; do $$v -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$v && break; done)
BIN = .venv/bin
RUFF = $(BIN)/ruff
SOURCES = recall pipelines tests benchmarks examples docs
# A process for each core, as far as memory goes; each file of tests stays in one, for what its tests share.
PYTEST = $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

# Pinned versions for the Python at hand; `make lock` renews them.
CONSTRAINTS = .ci/constraints/$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').txt

.PHONY: install demo check quick all-tests test lint docs notebooks schema dist lock clean

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml $(wildcard .ci/constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "recall needs Python 3.10, 3.11, 3.12 or 3.13; found none of them (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) -e '.[test]'
	@touch $@

demo: install
	$(BIN)/recall simulate --out runs/demo-data
	$(BIN)/recall run examples/demo.yaml --out runs/demo --compare

lint: install
	$(RUFF) check --config .ci/ruff.toml $(wildcard $(SOURCES))
	$(RUFF) format --check --config .ci/ruff.toml $(wildcard $(SOURCES))
	$(BIN)/mypy recall pipelines

# Lint and types beside the tests: together they take less than three minutes of two cores.
check: install
	@$(MAKE) --no-print-directory --jobs=2 lint quick

quick: install
	$(PYTEST) -m "not slow"

all-tests: install
	$(PYTEST)

test: install
	@$(MAKE) --no-print-directory --jobs=2 lint all-tests

# The site, in build/site; no network. A broken link, anchor, figure or example fails.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f docs/mkdocs.yml

# Runs the notebooks of examples/ (about ten minutes of two cores) and writes them as pages, which `make docs` then takes.
notebooks: install
	$(BIN)/python -m docs.generate.execute

# What editors know of experiment files; tests compare it with the settings.
schema: install
	$(BIN)/recall schema --out examples/experiment.schema.json

# Source and wheel in dist/, tried in an environment of its own; no network but the package index.
dist: install
	rm -rf dist build/fresh build/tried
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
		"$$(echo dist/*.whl)[train,serve]"
	mkdir -p build/tried && cd build/tried && ../../.ci/try_installed $(CURDIR)/build/fresh/bin $(CURDIR)/examples/demo.yaml

# What is pinned stays, new packages are added; `make lock UPGRADE=--upgrade` raises everything.
lock: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	mkdir -p .ci/constraints
	for version in 3.10 3.11 3.12 3.13; do \
		$(BIN)/uv pip compile setup.cfg --extra test --python-version $$version $(UPGRADE) --quiet --no-annotate \
			--no-emit-index-url --custom-compile-command 'make lock' --output-file .ci/constraints/$$version.txt || exit 1; \
	done

clean:
	rm -rf .venv runs build *.egg-info
