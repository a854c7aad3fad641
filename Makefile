# Every command brings what it needs: the development environment, the Docker engine, the images.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

# As after `. .venv/bin/activate`, and portico.web is this very tree.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.venv/collections

# Compiled once, and not for each of the hundreds of runs of ansible-playbook, whatever this machine says of bytecode.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/bytecode

# The longest first, since two run at a time. The long ones are for `make test-all`.
SCENARIOS := sites apps published deploys trouble certificates installed default
LONG_SCENARIOS := faults renewal strangers processes judged

.PHONY: help
help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name does; do \
	  printf 'make %-11s %s\n' "$$name" "$$does"; done

.PHONY: demo
demo: environment ## deploy the example in a container on this machine, and visit it
	@tools/demo start

.PHONY: demo-stop
demo-stop: ## remove what `make demo` started
	@tools/demo stop

.PHONY: test
test: environment ## every check that a change must pass: lint, unit, molecule
	@tools/alone $(MAKE) lint unit molecule
	@echo "All tests passed."

.PHONY: test-all
test-all: export PORTICO_DEPLOYS_IN_A_ROW := 20
test-all: export PORTICO_LIVES := yes
test-all: test ## the same, and whatever takes long
	@PORTICO_HOSTILE_VALUES=10000 pytest tests/unit/test_injection.py tests/unit/test_app_injection.py tests/unit/test_streams.py
	@PORTICO_ALL_FAULTS=1 tools/alone tools/scenarios $(LONG_SCENARIOS)

.PHONY: lint
lint: environment ## yamllint, and ansible-lint with its profile for production
	@echo "yamllint"
	@yamllint --strict .
	@echo "ansible-lint"
	@ansible-lint

.PHONY: unit
unit: environment ## the unit tests
	@pytest --numprocesses 2 tests/unit

.PHONY: molecule
molecule: environment ## deploy to Debian 12 and 13 in containers, and verify
	@tools/alone tools/scenarios $(SCENARIOS)

.PHONY: bench
bench: environment ## measure what runs over SSH cost, for many sites, apps and certificates (minutes)
	@python tests/bench/sites.py
	@python tests/bench/apps.py
	@python tests/bench/certificates.py

.PHONY: environment
environment: ## make the development environment, .venv
	@tools/environment

.PHONY: lock
lock: environment ## renew requirements-dev.txt from requirements-dev.in
	@tools/lock
