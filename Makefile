# make demo | test | slow | lint | bench | docs | clean        PYTHON=python3.12 make demo  uses another Python

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --timeout 15 --retries 2
CONSTRAINTS := -c constraints.txt

# Where there is no NVIDIA GPU, torch's CPU build: a tenth of the download. Its own index is asked only when
# the configured ones do not have it, and an index that does not answer is given up after seconds.
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu
GPU := $(shell command -v nvidia-smi)

DEMO := 'a cat left of a pizza on a blue background' 'three stars' 'an owl above a pine tree' 'a rocket on a yellow background'

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test slow lint bench docs clean

demo: $(VENV)/.local
	rm -rf out/demo
	$(BIN)/pictura generate $(DEMO) --seed 7 --show --out out/demo/
	@echo "The pictures are in $(CURDIR)/out/demo:" && ls out/demo

# Files run side by side in two processes, of one thread each: many tests wait for servers, and threads of small
# networks would wait for each other.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: $(VENV)/.dev $(VENV)/.dashai
	$(BIN)/python -m pytest -q -m slow || [ $$? = 5 ]  # 5: there is none at present

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.bench
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done
	$(BIN)/python benchmarks/_page.py

docs: $(VENV)/.dev
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pictura needs Python 3.11 or newer; PYTHON=... names one")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: constraints.txt | $(BIN)/python
ifeq ($(GPU),)
	$(PIP) install -q $(CONSTRAINTS) 'torch==$(TORCH_VERSION)+cpu' 2> $(VENV)/torch.log \
	|| { echo 'The configured index has no CPU build of torch; asking $(CPU_INDEX).'; \
	     $(PIP) install -q --timeout 5 --retries 0 --index-url $(CPU_INDEX) 'torch==$(TORCH_VERSION)+cpu' 2>> $(VENV)/torch.log; } \
	|| { echo 'No index at hand has it (see $(VENV)/torch.log); installing the large build, about 2 GB.'; \
	     $(PIP) install -q $(CONSTRAINTS) 'torch==$(TORCH_VERSION)'; }
else
	$(PIP) install $(CONSTRAINTS) 'torch==$(TORCH_VERSION)'
endif
	touch $@

$(VENV)/.local: pyproject.toml constraints.txt $(VENV)/.torch
	$(PIP) install -q $(CONSTRAINTS) -e '.[local,server]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(VENV)/.local
	$(PIP) install -q $(CONSTRAINTS) -e '.[dev]'
	$(PIP) install -q $(CONSTRAINTS) --no-deps keras-hub  # its TensorFlow is not needed
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(PIP) install -q $(CONSTRAINTS) -e '.[bench]'
	touch $@

# DashAI wants an older pandas and much else: it gets an environment of its own, which borrows the rest.
$(VENV)/.dashai: pyproject.toml constraints.txt constraints-dashai.txt $(VENV)/.dev
	rm -rf $(VENV)/dashai
	$(BIN)/python -m venv $(VENV)/dashai
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(VENV)/dashai/suite.pth
	mv $(VENV)/dashai/suite.pth $(VENV)/dashai/lib/python3*/site-packages/
	awk -F== '{name = tolower($$1); gsub(/[._]/, "-", name)} !seen[name]++' \
	    constraints-dashai.txt constraints.txt > $(VENV)/dashai/constraints.txt
	$(VENV)/dashai/bin/python -m pip --disable-pip-version-check install -q -c $(VENV)/dashai/constraints.txt \
	    -e '.[dashai]' 2> $(VENV)/dashai.log \
	|| { cat $(VENV)/dashai.log; rm -rf $(VENV)/dashai; echo 'DashAI cannot be installed; its tests are skipped.'; }
	touch $@
