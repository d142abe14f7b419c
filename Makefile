# Everything happens in .venv, which holds exactly what the lock files say. A second time costs
# nothing: what is set up is remembered by files in .venv that are newer than the lock files.
#
#   make study                      the full search on the embedded digits
#   make study DATA=mnist           on other data: mnist, or the path of a file or folder
#   make study SPACE=my.toml NAME=mine
#   make study SAMPLER=race         ends when it is sure, or its budget of epochs is spent
#   make setup PYTHON=python3.12    with another Python than python3
#   make setup GPU=1                with CUDA, to train on an NVIDIA GPU
#   make bench BENCH="--log without --rounds 3"

SHELL := bash
PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
COMPILE := $(UV) pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-annotate \
	--custom-compile-command 'make lock'

PYTHON_FITS = $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	{ echo "Python 3.11, 3.12 or 3.13 is needed: make setup PYTHON=python3.12" >&2; exit 1; }

# Installs what a lock file says. pip's line for each package moves a bar where there is a terminal;
# what goes wrong it says on stderr.
define INSTALL
@set -o pipefail; $(PIP) --progress-bar off --only-binary :all: --require-hashes -r $(lastword $^) | { \
	[ -t 1 ] || exec cat >/dev/null; \
	all=$$(grep -c == $(lastword $^)); n=0; bar=$$(printf '#%.0s' {1..30}); \
	while read -r word name _ there _; do \
		case $$word in \
			Collecting | Processing | Ignoring) n=$$((n + 1)); name=$${name##*/} ;; \
			Requirement) n=$$((n + 1)); name=$$there ;; \
			Installing) name='installing' ;; \
			*) continue ;; \
		esac; \
		printf '\r\033[K[%-30s] %s of %s %s' "$${bar:0:30 * n / all}" $$n $$all "$${name%:}"; \
	done; printf '\r\033[K'; }
endef

# A word that was given to make itself. One of the environment is none of ours (WSL has a NAME).
given = $(if $(filter command,$(origin $1)),$2"$$$1")

.PHONY: help setup study test torture check pictures docs dashboard mlflow bench bench-mnist lock clean

help: ## this list
	@grep -E '^[a-z-]+:.* ## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.* ## /: /'

setup: .venv/locked $(if $(GPU),.venv/locked-gpu) ## .venv with what a study needs; GPU=1 adds CUDA

study: .venv/locked ## run or continue a study; DATA=, SPACE=, NAME=, SAMPLER= choose
	@$(BIN)/python -m study run $(call given,SPACE) $(call given,DATA,--data ) $(call given,NAME,--name ) $(call given,SAMPLER,--sampler )

test: .venv/locked-dev ## the tests; they need no network
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

torture: .venv/locked-dev ## 126 kills, 36 changes from outside, 150,000 damaged files, 50 starts at once, a cluster of three hosts (needs root)
	@$(BIN)/python tests/torture.py --whole
	@$(BIN)/python tests/outside.py --rounds 36
	@$(BIN)/python tests/starts.py --rounds 50
	@$(BIN)/python tests/mutations.py --each 10000
	@$(BIN)/python -m pytest -m hosts

check: .venv/locked-dev ## formatter, linter, types
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

pictures: .venv/locked-dev ## the README's pictures, of a real study (needs Chromium)
	@PYTHONPATH=.:tests $(BIN)/python docs/pictures.py

docs: .venv/locked-docs ## the documentation as a site, in build/site; a dead link is an error
	@NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --quiet --strict

dashboard: .venv/locked ## the studies of study.db in the browser
	@$(BIN)/python -m study dashboard

mlflow: .venv/locked ## an MLflow server on this machine, kept in mlflow.db
	@$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///mlflow.db

bench: .venv-bench/locked ## study, tutorial and peers side by side on the digits; BENCH= takes options
	@.venv-bench/bin/python benchmarks/peers.py --space digits $(BENCH)

bench-mnist: .venv-bench/locked ## the same on MNIST, over hours; continues where it was stopped
	@.venv-bench/bin/python benchmarks/peers.py --space mnist --stages 1 $(BENCH)

lock: ## settle the versions anew (needs uv)
	$(COMPILE) --upgrade --group build --output-file requirements.lock
	$(COMPILE) --upgrade --group dev --constraints requirements.lock --output-file requirements-dev.lock
	$(COMPILE) --upgrade --extra gpu --extra jax --group build --constraints requirements.lock --output-file requirements-gpu.lock
	$(COMPILE) --upgrade --group docs --constraints requirements-dev.lock --output-file requirements-docs.lock
	$(COMPILE) --upgrade --group bench --constraints requirements.lock --output-file requirements-bench.lock

clean: ## remove .venv and all caches; studies stay
	rm -rf .venv .venv-bench .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/locked: requirements.lock
	@$(PYTHON_FITS)
	@echo "Setting up .venv, once: about 0.8 GB are fetched, most of it TensorFlow"
	@$(PYTHON) -m venv .venv
	$(INSTALL)
	@$(PIP) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/locked-dev: .venv/locked requirements-dev.lock
	@echo "Adding what tests need to .venv, once: about 130 MB are fetched"
	$(INSTALL)
	@touch $@

.venv/locked-docs: .venv/locked requirements-docs.lock
	@echo "Adding what the site needs to .venv, once: about 20 MB are fetched"
	$(INSTALL)
	@touch $@

.venv/locked-gpu: .venv/locked requirements-gpu.lock
	@echo "Adding CUDA to .venv, once: about 3.4 GB are fetched"
	$(INSTALL)
	@touch $@

# Apart from .venv: what is compared with is no part of the program.
.venv-bench/locked: requirements-bench.lock
	@$(PYTHON_FITS)
	@echo "Setting up .venv-bench (once; TensorFlow again, and what is compared with)"
	@$(PYTHON) -m venv .venv-bench
	$(subst .venv,.venv-bench,$(INSTALL))
	@touch $@
