# Everything from a fresh clone: only Python 3.11+, make and git are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where Python may not keep what it compiles, as in many containers, every start would compile all libraries again.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile-bytecode)

.PHONY: install demo examples test test-slow test-gpu smoke lock clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(COMPILE) -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/fairtune demo --out runs/demo

# Tests run side by side, each on one thread: two trainings that both want every core slow each other many times over.
# They keep off a GPU, whose memory they would fill; `test-gpu` are those that need one.
PYTEST := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses=8 --dist=worksteal

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow and not gpu and not hub"

# Those of several machines want FAIRTUNE_POSTGRESQL (`.ci/postgresql start FOLDER` prints it) and are skipped without it.
test-slow: $(STAMP)
	$(PYTEST) -m "slow and not gpu and not hub"

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -q -m gpu

smoke: $(STAMP)
	$(BIN)/fairtune demo --out runs/smoke --trials 2 --epochs 1 --seeds 1 --overwrite

# The golden files of hub_cards/examples, from a new run of the demo; look at the difference before committing it.
examples: $(STAMP)
	$(BIN)/python recipes/checks/examples.py

lock:
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate \
		--python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) runs dist
