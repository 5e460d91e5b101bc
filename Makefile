# Everything runs in .venv, which the first target that needs it makes. `make help` lists the targets.
# PYTHON=/path/to/python3.12 chooses the interpreter; by default the first of these that is 3.11 or newer.

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
SUITABLE = 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c $(SUITABLE) 2>/dev/null && echo $(p))))

VENV := .venv
BIN := $(VENV)/bin
EXAMPLE := examples/wordcount

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
TORTURE ?= --seconds 300
MINUTES ?= 30
BENCH ?= --json docs/benchmarks.json --svg docs/benchmarks.svg
SEEDS ?= 2000
FROM ?= 1
JOBS ?= 2
IMAGE ?= wattle
BASE ?= python:3.11-slim-bookworm
IMAGE_PYTHON ?= 3.11
MACHINE := $(shell uname -m)
ENGINE ?= true # waits for a container engine that is being made ready (.ci/run)

# What Python has compiled is kept, also where the surroundings say otherwise: tests start hundreds of processes, and each compiled everything.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test sim torture cuts soak groups bench fuzz check format reference image wheels cluster clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/installed ## run the example on a network of its own
	WATTLE_DATA=$(CURDIR)/.wattle $(BIN)/wattle run $(EXAMPLE)/wordcount.yaml --param texts=$(CURDIR)/$(EXAMPLE)/texts

test: $(VENV)/installed-dev ## run all tests, in lanes (tests/lanes.py); TESTS="tests/core -x" for some of them, one after the other
	$(BIN)/python -m $(if $(TESTS),pytest $(TESTS),tests.lanes)
	$(if $(TESTS),,$(ENGINE) && $(BIN)/python -m pytest -rs tests/cluster)

sim: $(VENV)/installed-dev ## run the simulator on SEEDS seeds from FROM on, in JOBS processes
	$(BIN)/python -m tests.sim --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)

torture: $(VENV)/installed-dev ## real processes under faults for five minutes; TORTURE="--seconds 60 --seed 7" says otherwise
	$(BIN)/python -m tests.torture $(TORTURE)

cuts: $(VENV)/installed-dev ## machines cut off from each other (network namespaces: root, iproute2): what users see, then how long it takes
	WATTLE_CUTS=1 $(BIN)/python -m pytest tests/namespaces
	$(BIN)/python -m tests.namespaces

soak: $(VENV)/installed ## half an hour under load: does anything leak? MINUTES=5 says otherwise
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

groups: $(VENV)/installed-dev ## limits under control groups of version 2, on a kernel that runs as a process (root; linux.uml: Debian's user-mode-linux)
	sh tests/runtime/version2.sh $(BIN)/python

bench: $(VENV)/installed-bench ## measure Wattle beside xargs, make and other schedulers; BENCH="fan --rounds 3" for less
	$(BIN)/python -m benchmarks $(BENCH)

fuzz: $(VENV)/installed-dev ## try INPUTS=100000 made-up inputs on each way in (TARGETS="keys documents" for some of them)
	$(BIN)/python -m tests.fuzz $(TARGETS) --inputs $(or $(INPUTS),100000)

check: $(VENV)/installed-dev ## lint, formatting, types, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheels: build/wheels/fetched build/wattle/built ## fetch and build what the container image is made of

image: wheels ## build the container image IMAGE (wattle) on BASE of the wheels, without a network
	docker build --quiet --build-arg BASE=$(BASE) --build-arg PACKAGES="$(PACKAGES)" --tag $(IMAGE) .

cluster: $(VENV)/installed-dev ## the cluster of docker-compose.yml under faults, as one table (a container engine with compose)
	$(BIN)/python -m pytest -rs tests/cluster

reference: $(VENV)/installed ## write docs/settings.md, config/ and the rules in docs/security.md anew from the code
	$(BIN)/python -m wattle.settings.reference
	$(BIN)/python -m wattle.security.reference

clean: ## remove .venv, caches and the example's data
	rm -rf $(VENV) .wattle build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: setup is repeated only when pyproject.toml changes. With the dev stamp there, the plain one follows from it.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@$(BIN)/python -m compileall -q wattle agents
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@$(BIN)/python -m compileall -q wattle agents
	@touch $@ $(VENV)/installed

$(VENV)/installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(BIN)/python -m compileall -q wattle agents
	@touch $@ $(VENV)/installed

# Wattle as a wheel, and what it needs, for the image's Python and machine whatever this one's are.
build/wattle/built: pyproject.toml README.md LICENSE $(shell find wattle agents -name '*.py') | $(BIN)/python
	rm -rf build/wattle
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wattle .
	@touch $@

build/wheels/fetched: pyproject.toml | build/wattle/built
	rm -rf build/wheels
	$(BIN)/python -m pip download --quiet --only-binary :all: --python-version $(IMAGE_PYTHON) \
	  --platform manylinux_2_28_$(MACHINE) --platform manylinux2014_$(MACHINE) --dest build/wheels build/wattle/*.whl
	rm build/wheels/wattle-*.whl
	@touch $@

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'Wattle needs Python 3.11 or newer: install one, or give PYTHON=/path/to/python' >&2; exit 1; }
	@'$(PYTHON)' -c $(SUITABLE) || { echo '$(PYTHON) is not Python 3.11 or newer' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
