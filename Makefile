# make demo and make test are all that a newcomer needs; both do all of their set-up, in .venv and nowhere else
# (make test asks apt for Prometheus and database servers too, and npm for a Dagu in .tools, where it may: see scripts/).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Another Python's paths must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ENVIRONMENT := .venv/.installed

##@ For everyone

.PHONY: help
help: ## say what there is
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "%s%s\n", (seen++ ? "\n" : ""), substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(ENVIRONMENT) ## watch a small supervisor being broken, and see what jobwarden says; needs no set-up
	@$(BIN)/jobwarden demo

.PHONY: test
test: $(ENVIRONMENT) system-packages lint ## prove the product: lint, types, and every test that is not slow; under 10 minutes
	@$(PYTEST) -m "not slow"

##@ For contributors

.PHONY: check
check: $(ENVIRONMENT) lint ## the quick part of test, under a minute: lint, types, tests without real processes and servers
	@$(PYTEST) -m "not slow" $(wildcard tests/unit tests/golden tests/config tests/architecture)

.PHONY: test-all
test-all: $(ENVIRONMENT) system-packages lint ## test, and the slow ones
	@$(PYTEST)

.PHONY: bench
bench: $(ENVIRONMENT) ## measure what docs/performance.md promises
	@scripts/system-packages.sh test bench
	@$(BIN)/python benchmarks/run.py

.PHONY: fmt
fmt: $(ENVIRONMENT) ## format the code and mend what ruff can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

.PHONY: lock
lock: ## refresh requirements/*.lock (needs uv; UPGRADE=--upgrade takes newer versions)
	@scripts/lock.sh $(UPGRADE)

# ---------------------------------------------------------------------------------- parts of the above

.PHONY: lint
lint: $(ENVIRONMENT)
	@echo "ruff: lint";   $(BIN)/ruff check --quiet
	@echo "ruff: format"; $(BIN)/ruff format --check --quiet || { echo "run: make fmt" >&2; exit 1; }
	@echo "mypy: types";  $(BIN)/mypy --no-error-summary

.PHONY: system-packages
system-packages:
	@scripts/system-packages.sh test
	@scripts/dagu-binary.sh

$(ENVIRONMENT): requirements/dev.lock pyproject.toml scripts/make-venv.sh
	@scripts/make-venv.sh $@
