# Two commands: `make matrix` measures this machine, `make test` checks the project itself.
# Written for GNU make 3.81 and the tools of Linux and macOS.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MATRIX_OPTIONS ?=
# Small and with weights that know their task: every family's, pinned.
QUICK_MODELS := whisper-nano,wav2vec2-nano,silero-vad,resemblyzer,segmentation-3.0,diarization-synthetic

# Short processes by the hundred: each would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help matrix quick test check end-to-end lint bench speed browsers clean

help:
	@echo "make matrix   measure what is on this machine: a first matrix in minutes, then the rest"
	@echo "make quick    its first look alone, in minutes: one small variant of each family, in fp32"
	@echo "make extras   install and run subsets of the runtimes, each in its own environment"
	@echo "make test     linters, type check, tests of compat, a quick core of the suites"
	@echo "make check    linters, types and the tests that need no runtime, in a minute"
	@echo "make end-to-end  the wheel in an environment of its own, and browsers"
	@echo "make bench    benchmarks of the project itself"
	@echo "make speed    every runtime of a processor against openai-whisper, with beams and batches too"
	@echo "make browsers what the web columns need: npm packages, with a Chromium among them"
	@echo "make clean    remove the virtual environment and local reports"

$(STAMP): pyproject.toml ci/constraints.txt fixtures/packages.toml ci/bootstrap.sh
	@sh ci/bootstrap.sh $(VENV)
	@touch $(STAMP)

# Subsets of the extras, each installed and run on its own: minutes and gigabytes.
.PHONY: extras
extras:
	@sh ci/extras.sh $(VENV)-extras

matrix: $(STAMP)
	@$(BIN)/compat matrix $(MATRIX_OPTIONS)

quick: $(STAMP)
	@$(BIN)/compat matrix --quick $(MATRIX_OPTIONS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# What an edit is checked by, again and again: tests that open no model, run no suites and start no
# process, and those of the house.
UNIT := tests/test_house.py $(shell grep -LE \
	'suites: |import torch|transformers|open_model|pruning\.|faulty_catalog|forks|sys\.executable' tests/test_*.py)
# Linters take one processor, and tests wait now and then: both together end sooner.
check: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 lint units

test: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 lint tests
	$(BIN)/pytest suites -q --quick --models $(QUICK_MODELS) --recipes fp32,int8-dynamic --targets cpu-torch,cpu-onnxruntime,openvino-cpu --require cpu,openvino --strict-expectations --results reports/local/test

.PHONY: units tests
units: $(STAMP)
	$(BIN)/pytest $(UNIT) -q -n 2 --dist loadfile -m "not end_to_end"

tests: $(STAMP)
	$(BIN)/pytest tests -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20 -m "not end_to_end"

# What a person installs and opens: the wheel in a new environment, and pages in browsers.
end-to-end: $(STAMP)
	$(BIN)/pytest tests -q -n 2 --dist loadfile --durations=5 -m end_to_end

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench.py

speed: $(STAMP)
	@$(BIN)/pip install --quiet --disable-pip-version-check -c ci/constraints.txt -e ".[openai-whisper]"
	$(BIN)/python tests/benchmarks/speed.py
	$(BIN)/compat experiment beams --save

browsers:
	@sh ci/browsers.sh

clean:
	rm -rf $(VENV) reports/local
