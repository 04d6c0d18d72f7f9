# Every chore in one place. `.venv` is made on first use; nothing outside it is touched.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A start imports thousands of files. They are compiled when they are first needed, and kept, also where the environment
# forbids it: without that every start takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo up test fuzz chaos fides-check fides-zip lint types imports format bench load clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[worker,embedded,dev]'
	@touch $@

install: $(INSTALLED) ## make .venv with everything in it

demo: $(INSTALLED) ## the whole service on this machine, one class and one subgroup forgotten over HTTP
	$(BIN)/efface demo

up: $(INSTALLED) ## the whole service on this machine, until Ctrl-C
	$(BIN)/efface up

test: $(INSTALLED) ## every test that this machine can run, two files at a time
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

fuzz: $(INSTALLED) ## schemathesis over the OpenAPI document, ten minutes at most
	EFFACE_FUZZ_EXAMPLES=100 EFFACE_FUZZ_PHASES=examples,coverage,fuzzing,stateful \
		$(BIN)/pytest --timeout 600 tests/integration/api/test_schemathesis.py

FIDES := .venv-fides/bin/python

$(FIDES):
	$(PYTHON) -m venv .venv-fides
	.venv-fides/bin/pip install --quiet --disable-pip-version-check 'ethyca-fides==2.78.2'

fides-check: $(INSTALLED) $(FIDES) ## the connector for Fides, judged by Fides' own models (downloads ethyca-fides)
	EFFACE_FIDES_PYTHON=$(CURDIR)/$(FIDES) $(BIN)/pytest tests/integration/api/test_fides_over_http.py

fides-zip: $(INSTALLED) ## efface-fides.zip, to upload into Fides
	$(BIN)/python -m integrations.fides efface-fides.zip

chaos: $(INSTALLED) ## 200 jobs while everything is killed, cut off, stopped and emptied, three times; half an hour at most
	$(BIN)/python -m tests.chaos.storm --seed 1 --seed 2 --seed 3

lint: $(INSTALLED) ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## the measurements behind the README's figures (needs bench-data, see benchmarks/README.md)
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.bench_requests

clean: ## remove what make and the commands above left behind
	rm -rf .venv .venv-fides efface-fides.zip .efface efface-demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
