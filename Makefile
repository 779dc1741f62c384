# Everything runs in a virtual environment of its own; PYTHON is only used to make it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(DIFFUSERS_VILEARN_CACHE),$(HOME)/.cache/diffusers-vilearn)

.PHONY: install demo test lint train-tiny clean

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

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The shipped checkpoint from nothing: meshes, dataset, VAE, transformer, figures. Interrupt and repeat at will.
train-tiny: install
	PATH="$(abspath $(BIN)):$$PATH" DIFFUSERS_VILEARN_CACHE="$(CACHE)" bash training/tiny/train.sh

clean:
	rm -rf $(VENV) outputs build src/*.egg-info
