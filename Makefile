# make demo   the complete demo pipeline    make test   all tests    make test-fast   the quick ones    make check   lint and types
# Each of them completes the set-up first where it is missing.
# MACHINE=cpu|cuda chooses the pinned list (default: cuda where nvidia-smi finds a GPU); PYTHON=... names the interpreter for .venv
MACHINE ?= auto
PYTEST_ARGS ?=
export PYTHON TORCH_INDEX

.PHONY: demo test test-fast check bench lock clean setup
.NOTPARALLEL:

demo: setup
	.venv/bin/vcore run configs/demo.yaml

test: setup
	.venv/bin/python -m pytest $(PYTEST_ARGS)

test-fast: setup
	.venv/bin/python -m pytest -m "not slow" $(PYTEST_ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	.venv/bin/python -m pytest tests/performance -o "python_files=bench_*.py" -s $(PYTEST_ARGS)

lock: setup
	.venv/bin/python tools/lock.py

setup:
	@tools/setup.sh $(MACHINE)

clean:
	rm -rf .venv .setup.lock .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
