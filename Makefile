# Targets make or refresh .venv by themselves: `make demo` and `make test` are all the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo/$(shell date +%Y%m%d-%H%M%S)
DEMO_SIZES ?= 16 32 64
DEMO_CHECK ?= 128
STEPS ?= 200
TEST_WORKERS ?= 2
# Errors alone: a build backend's warnings are about packages, not about what is done here.
QUIET := -qq --disable-pip-version-check

# Where Python is told to keep no compiled code, dozens of processes would each compile ours again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow test-all faults check clean

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip $(QUIET) install --upgrade pip
	$(BIN)/python -m pip $(QUIET) install -c constraints.txt --group dev -e .
	touch $@

# Sweep small sizes, freeze the forecast for a larger one, run that size, hold one against the other.
demo: $(VENV)/.ready
	$(BIN)/foretune sweep lr --sizes $(DEMO_SIZES) --set steps=$(STEPS) --out $(DEMO)/sweep
	$(BIN)/foretune predict $(DEMO)/sweep --size $(DEMO_CHECK) --save $(DEMO)/prediction.json
	$(BIN)/foretune sweep lr --sizes $(DEMO_CHECK) --set steps=$(STEPS) --out $(DEMO)/check
	$(BIN)/foretune report $(DEMO)/sweep --check $(DEMO)/prediction.json:$(DEMO)/check

test: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) -m "not slow"

# What `make test` leaves out, alone and with it.
test-slow: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n $(TEST_WORKERS) -m slow

test-all: test test-slow

# Everything that may happen to a sweep overnight, on real processes: tried, survived, lost.
faults: $(VENV)/.ready
	$(BIN)/python tests/faults/run.py $(FAULTS)

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/vulture

clean:
	rm -rf $(VENV) *.egg-info
