# make demo   the complete demo pipeline    make test   all tests    make test-fast   the quick ones    make check   lint and types
# make real   the pipeline on a pretrained model and real benchmarks; VCORE_ARGS="--set ..." goes to `vcore run`
# Each of them completes the set-up first where it is missing.
# PYTEST_JOBS=N runs so many test files at once (default: one for each core, two at most; each may start engines that need gigabytes).
# MACHINE=cpu|cuda chooses the pinned list (default: cuda where nvidia-smi finds a GPU); PYTHON=... names the interpreter for .venv
MACHINE ?= auto
PYTEST_ARGS ?=
PYTEST_JOBS ?= $(shell n=$$(nproc); echo $$((n < 2 ? n : 2)))
TESTS = .venv/bin/python -m pytest -n $(PYTEST_JOBS) --dist loadfile
VCORE_ARGS ?=
MODELS = $(or $(VCORE_HOME),.vcore)/models
export PYTHON TORCH_INDEX

.PHONY: demo real test test-fast check bench gpu-check lock clean setup
.NOTPARALLEL:

demo: setup
	.venv/bin/vcore run configs/demo.yaml

# The data first, planned as if the model were made: what is missing is said before anything is fetched.
real: setup
	.venv/bin/vcore plan configs/smollm2-135m.yaml $(VCORE_ARGS) --set model=make --until data >/dev/null
	.venv/bin/python tools/fetch_model.py "$(MODELS)"
	.venv/bin/vcore run configs/smollm2-135m.yaml --set model="$(MODELS)/SmolLM2-135M-Instruct.Q4_1.gguf" $(VCORE_ARGS)

test: setup
	$(TESTS) $(PYTEST_ARGS)

test-fast: setup
	$(TESTS) -m "not slow" $(PYTEST_ARGS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	.venv/bin/python -m pytest tests/performance -o "python_files=bench_*.py" -s $(PYTEST_ARGS)

# Ten minutes on a machine with a GPU; docs/gpu.md says what each line means.
gpu-check: setup
	.venv/bin/python tools/gpu_check.py "$(or $(VCORE_HOME),.vcore)/gpu-check"

lock: setup
	.venv/bin/python tools/lock.py

setup:
	@tools/setup.sh $(MACHINE)

clean:
	rm -rf .venv .setup.lock .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
