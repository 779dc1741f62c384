# Everything runs in a virtual environment of its own; PYTHON is only used to make it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(DIFFUSERS_VILEARN_CACHE),$(HOME)/.cache/diffusers-vilearn)

.PHONY: install demo test conformance conformance-folders lint train-tiny clean

install: $(VENV)/.installed

# torch comes first: asked for by version, it is the CPU build wherever one is offered.
$(VENV)/.installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,test]"
	touch $@

demo: install
	mkdir -p outputs
	$(BIN)/diffusers-vilearn generate docs/images/demo.png --output outputs/demo.glb --preview outputs/demo.png

# A worker with one thread for each core; a file stays with its worker, so that what it prepares is made once.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist loadfile

# diffusers' own tests on our classes; docs/conformance.md. DIFFUSERS_CHECKOUT is a git checkout of diffusers, HARNESS
# the folder of the harness; ARGS go to pytest, and with QUANT=1 the tests of quantisation run as well.
conformance: conformance-folders install
	$(BIN)/python -m pip install --quiet "parameterized>=0.9"
ifeq ($(QUANT),1)
	test -d build/torchao || $(BIN)/python -m pip install --quiet --no-deps --target build/torchao "torchao>=0.18"
endif
	DIFFUSERS_CHECKOUT="$(abspath $(DIFFUSERS_CHECKOUT))" HARNESS_ADAPTER="$(CURDIR)/tests/conformance/adapter.py" \
	PYTHON="$(CURDIR)/$(BIN)/python" PKG_PATH="$(CURDIR)/src" HARNESS_QUANT="$(QUANT)" \
	PYTHONPATH="$(if $(filter 1,$(QUANT)),$(CURDIR)/build/torchao)" "$(HARNESS)/run.sh" $(ARGS)

conformance-folders:
	@test -d "$(HARNESS)" || { echo "HARNESS must be the folder of the conformance harness, but is '$(HARNESS)'"; exit 2; }
	@test -d "$(DIFFUSERS_CHECKOUT)/tests" || { echo "DIFFUSERS_CHECKOUT must be a checkout of huggingface/diffusers" \
		"with its tests, but is '$(DIFFUSERS_CHECKOUT)'"; exit 2; }

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The shipped checkpoint from nothing: meshes, dataset, VAE, transformer, figures. Interrupt and repeat at will. The result
# takes the place of checkpoints/vilearn-tiny in the tree.
train-tiny: install
	PATH="$(abspath $(BIN)):$$PATH" DIFFUSERS_VILEARN_CACHE="$(CACHE)" bash training/tiny/train.sh

# Its held-out set and image encoder alone.
tiny-heldout: install
	PATH="$(abspath $(BIN)):$$PATH" DIFFUSERS_VILEARN_CACHE="$(CACHE)" bash training/tiny/train.sh heldout

clean:
	rm -rf $(VENV) outputs build src/*.egg-info
