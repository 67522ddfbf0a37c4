# What a developer types. Every target sets up what it needs in .venv; nothing is done twice.
VENV := .venv
BIN := $(VENV)/bin
export VENV
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Folders too: their time changes when a file is removed.
sources := CMakeLists.txt pyproject.toml README.md LICENSE \
  $(shell find cpp cuda bindings cmake python -name __pycache__ -prune -o ! -name '*.so' -print)
cxx_files := $(shell find cpp cuda bindings tests examples benchmarks/instructions.cpp -name build -prune -o \
  '(' -name '*.[ch]pp' -o -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' ')' -print)
requirements := $(VENV)/requirements
installed := $(VENV)/installed

.DEFAULT_GOAL := help
.NOTPARALLEL:  # setting up comes first; the builds use every core by themselves
.PHONY: help demo test build-cpp test-cpp docs-cpp instructions lint format types check bench sanitize sanitize-python cross clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-16s %s\n", $$1, $$2}'

demo: $(requirements)-demo $(installed) ## set up, build, and run the main job on real films
	@$(BIN)/recfuse demo

test: $(requirements)-dev $(installed) test-cpp ## set up, build, and run every test
	@$(BIN)/pytest -n 2 --dist loadfile --doctest-modules --pyargs recfuse tests/python

build-cpp: $(requirements)-dev
	@cmake -S . -B build/cpp -G Ninja -DRECFUSE_PYTHON=OFF -DRECFUSE_TESTS=ON -DRECFUSE_CUDA=OFF -DRECFUSE_EMULATE_CUDA=ON \
	  -Dpybind11_DIR="$$(python -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$$(command -v python)" >/dev/null
	@cmake --build build/cpp -- --quiet

test-cpp: build-cpp ## the C++ tests alone
	@ctest --test-dir build/cpp -j 2 --output-on-failure --no-tests=error

# The C ABI has a comment for everything; in C++ a name that says it all needs none.
docs-cpp: ## the public headers as HTML in build/docs-cpp (doxygen >= 1.9)
	@mkdir -p build/docs-cpp/c-only
	@(cat docs/Doxyfile; echo EXTRACT_ALL=NO; echo INPUT=cpp/include/recfuse/recfuse.h; \
	  echo OUTPUT_DIRECTORY=build/docs-cpp/c-only) | doxygen -
	@rm -r build/docs-cpp/c-only
	@doxygen docs/Doxyfile

instructions: build-cpp ## count the instructions of small calls, against the last counts (valgrind)
	@$(BIN)/python benchmarks/instructions.py build/cpp/benchmarks/recfuse_instructions

lint: $(requirements)-dev ## format and style of all files, changing nothing
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "make format puts this right"; exit 1; }
	@$(BIN)/clang-format --dry-run --Werror $(cxx_files)
	@$(BIN)/codespell
	@$(BIN)/python tests/tools/check_layers.py

format: $(requirements)-dev ## put the format of all files right
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .
	@$(BIN)/clang-format -i $(cxx_files)

types: $(requirements)-dev $(installed) ## mypy, and the stub against the compiled module
	@$(BIN)/mypy
	@$(BIN)/stubtest recfuse._core --allowlist tests/tools/stubtest_allowlist.txt --mypy-config-file pyproject.toml

check: $(requirements)-dev $(installed) ## what the compiled objects may contain
	@$(BIN)/python tests/tools/check_isa_symbols.py build/cp[0-9]*
	@$(BIN)/python tests/tools/check_cuda.py

bench: $(requirements)-bench $(installed) ## time the ops beside their peers, OP=fuse_topk for one
	@$(BIN)/recfuse bench $(OP)

sanitize: $(requirements)-dev ## every test under ASan + UBSan, and under TSan
	@tools/sanitize.sh address,undefined
	@tools/sanitize.sh thread

sanitize-python: $(requirements)-dev ## the same for the Python tests alone
	@tools/sanitize.sh address,undefined python
	@tools/sanitize.sh thread python

cross: $(requirements)-dev $(installed) ## tests for ARM and for an x86 CPU without AVX, emulated
	@tools/cross.sh

clean: ## remove everything that was built or installed here
	rm -rf build dist .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks demo-output bench-output

$(requirements)-%: pyproject.toml tools/setup.sh tools/requirements.py
	@tools/setup.sh requirements $*

$(installed): $(sources)
	@tools/setup.sh install
