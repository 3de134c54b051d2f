# Two targets that set up all they need, in .venv, and a few that help along.
# Variables: make PYTHON=python3.12 book, make TORCH='torch --index-url ...' test

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
READY := .venv/ready

# Notebooks run in the kernel of .venv, whatever kernels the user has; nothing asks the hub.
export JUPYTER_PREFER_ENV_PATH := 1
export HF_HUB_OFFLINE := 1

.PHONY: help book test format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1:  /p' $(MAKEFILE_LIST) | expand -t 14

book: $(READY) ## run the notebooks at mini scale and build the book: book/_build/html/index.html
	$(BIN)/python book/prepare.py
	STABKIT_BOOK=1 $(BIN)/jupyter-book build --all -W -n --keep-going --path-output book .

test: $(READY) ## check style and types, run all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

format: $(READY) ## put the code into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the environment and all that was built; runs/ stays
	rm -rf .venv book/_build build *.egg-info

# Made anew when what is to be installed changes. torch comes first and alone: left to the others'
# requirements, pip may choose a build of another version with gigabytes of CUDA libraries.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or newer is needed, this is %d.%d; name one: make PYTHON=..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear .venv
	@echo 'installing into .venv: some minutes, once'
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --editable '.[book,test]'
	@touch $@
