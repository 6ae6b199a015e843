# The commands of this repository. Each sets up what it needs in .venv; a second run finds the stamps and starts at once.

.DEFAULT_GOAL := help

VENV := .venv
TORCH ?= auto

# The first of these that is recent enough; PYTHON=/path/to/python3.12 takes another.
PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
NO_PYTHON = Python 3.11 or newer is needed, and neither python3 ($(shell python3 --version 2>&1)) nor python3.11 to \
	python3.14 is one; install it, or say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12
SET_UP = $(or $(PYTHON),$(error $(NO_PYTHON))) scripts/setup_environment.py --venv $(VENV) --torch $(TORCH)

# What serving needs, and everything. Whoever has everything can serve, so that set-up touches both stamps.
SERVE_STAMP := $(VENV)/.set-up-to-serve
DEVELOP_STAMP := $(VENV)/.set-up-to-develop

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1  \t\2/p' Makefile

.PHONY: serve
serve: $(SERVE_STAMP) ## serve on http://127.0.0.1:8000 (RESTORE_HOST and RESTORE_PORT say where)
	$(VENV)/bin/python -m service

# A thread for each of the two processes: with two each, they would wait for one another.
.PHONY: test
test: $(DEVELOP_STAMP) ## run the tests, in two processes (PYTEST_ARGS="-k tiles" for some of them)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadgroup $(PYTEST_ARGS)

.PHONY: check
check: $(DEVELOP_STAMP) ## lint, check the formatting, the types, and what is installed for known vulnerabilities
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/python scripts/audit_dependencies.py

.PHONY: format
format: $(DEVELOP_STAMP) ## format the code and mend what the linter can mend
	$(VENV)/bin/python -m ruff check --fix .
	$(VENV)/bin/python -m ruff format .

.PHONY: setup
setup: $(DEVELOP_STAMP) ## install everything: serving, training, tests (TORCH=cpu, cuda or pypi forces a build)

$(SERVE_STAMP): pyproject.toml scripts/setup_environment.py
	$(SET_UP) $(SERVE_STAMP)

$(DEVELOP_STAMP): pyproject.toml scripts/setup_environment.py
	$(SET_UP) --extras archive,benchmarks,ray,training,tracing,dev $(SERVE_STAMP) $(DEVELOP_STAMP)

# A build named on the command line is a wish to change it, whatever the stamps say.
ifeq ($(origin TORCH),command line)
$(SERVE_STAMP) $(DEVELOP_STAMP): FORCE
endif

.PHONY: FORCE
FORCE:
