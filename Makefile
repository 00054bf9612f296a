# Every target builds .venv by itself where it is missing or stale; `make` alone lists the targets.
#
#   PRESET=pqn-pong         what `make train` trains
#   ARGS="--seed 1"         passed on to the command behind a target
#   PYTHON=python3.12       the Python to build .venv with, else the first below that is 3.11 or newer
#   TORCH_INDEX=address     the package index to take torch from. A plain `torch` on Linux brings
#                           several GB of CUDA libraries; PyTorch's installation page gives the
#                           address of the CPU builds.

PRESET ?= pqn-pong
ARGS ?=
TORCH_INDEX ?=
PYTHONS = $(PYTHON) python3.13 python3.12 python3.11 python3

BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
TORCH = $(shell grep '^torch==' constraints.txt)

# .venv holds `.installing` while it is being changed, `.made-in` with the folder it was built in (it
# does not survive a move), and one stamp, written last, for each set of packages that is complete.
USABLE = [ ! -e .venv/.installing ] && $(BIN)/python -c 'import pip' 2>/dev/null \
	&& { [ ! -e .venv/.made-in ] || [ "$$(cat .venv/.made-in)" = "$(CURDIR)" ]; }
REBUILD := $(shell $(USABLE) || echo rebuild)

unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test check docs bench-layers bench-training evidence clean rebuild

help:
	@echo 'make train   train an agent: PRESET=pqn-pong (the default), ARGS="--seed 1"'
	@echo 'make test    run the tests: ARGS="-k layers"'
	@echo 'make check   lint, formatting, types and the import rule'
	@echo 'make docs    build the documentation into site/'
	@echo 'make bench-layers  time the layers against those of others: ARGS="--threads 2"'
	@echo 'make bench-training  time whole training loops against those of others'
	@echo 'make evidence  the runs behind docs/does-it-pay.md that are missing: ARGS="--left" lists them'
	@echo 'make clean   remove what make built: .venv, site, caches (runs/ stays)'

train: .venv/.has-train
	$(BIN)/noisynet train $(PRESET) $(ARGS)

test: .venv/.has-dev
	$(BIN)/python -X faulthandler -m pytest -n 2 --dist loadfile $(ARGS)

check: .venv/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

docs: .venv/.has-docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -E -b html -d docs/_build docs site
	@echo 'The documentation is in site/index.html.'

# Other libraries take part once they are there: .venv/bin/pip install torchrl tianshou pfrl
bench-layers: .venv/.has-dev
	$(BIN)/python -m benchmarks.layers.run $(ARGS)

# Needs OpenCV for the others' Atari wrappers: .venv/bin/pip install opencv-python-headless
# Tianshou and TorchRL take part once they are there: .venv/bin/pip install torchrl tianshou
bench-training: .venv/.has-dev
	$(BIN)/python -m benchmarks.training.run $(ARGS)

# Goes on where it stopped; a finished run is a line under benchmarks/results/study.
evidence: .venv/.has-dev
	$(BIN)/python -m benchmarks.study.evidence $(ARGS)

clean:
	rm -rf .venv site docs/_build .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

rebuild:

# What training needs; what `make check` and `make test` need, which includes it; what the pages need.
.venv/.has-train: EXTRAS = train,atari
.venv/.has-dev: EXTRAS = dev
.venv/.has-docs: EXTRAS = docs
.venv/.has-train .venv/.has-dev .venv/.has-docs: pyproject.toml constraints.txt $(REBUILD)
	@$(USABLE) || { \
	  rm -rf .venv; found=; \
	  for python in $(PYTHONS); do \
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'noisynet needs Python 3.11 or newer, with its venv module: none of $(strip $(PYTHONS)) is (PYTHON=… names another)' >&2; \
	    exit 1; \
	  fi; \
	  mkdir .venv && touch .venv/.installing && "$$found" -m venv .venv; \
	}
	@touch .venv/.installing
	@echo 'Installing noisynet[$(EXTRAS)] into .venv (minutes the first time) …'
	@$(PIP) $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') '$(TORCH)'
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation -e '.[$(EXTRAS)]'
	@printf '%s' '$(CURDIR)' > .venv/.made-in
	@rm .venv/.installing
	@touch $@ $(if $(filter dev,$(EXTRAS)),.venv/.has-train)
