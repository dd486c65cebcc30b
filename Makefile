# make demo        install and show what it does
# make test        the test suite (make test-fast: its quick part; make test-all: everything)
# make check       style, types, layers
# make docs        the documentation site, in build/site
# make evidence    measure the default model on the Kodak set (KODAK=folder): table and plot of the README
# make library     libltn for C programs, in build/library
# make web         the package for browsers, in build/web; needs emscripten
# make wheel-test  build sdist and wheel, install the wheel into a clean environment, code a photograph
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Also for what builds the extension: newer versions of pip read the second for that, older ones the first.
SPACE := $(subst ,, )
export PIP_CONSTRAINT := file://$(subst $(SPACE),%20,$(CURDIR))/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export NO_MKDOCS_2_WARNING := 1
NATIVE := $(wildcard native/*.cpp native/*.hpp bindings/*.cpp bindings/*.hpp) CMakeLists.txt
CPP := $(wildcard native/*.cpp native/*.hpp native/library/*.cpp native/library/*.hpp native/library/ltn.h examples/ltn.c native/library/freedesktop/*.c native/fuzz/*.cpp tools/*.cpp native/tests/*.cpp native/tests/*.hpp bindings/*.cpp bindings/*.hpp)

.PHONY: demo install test test-fast test-all check format docs evidence library web wheel-test clean

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

install: $(VENV)/.installed-dev

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not long"

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow and not long"

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CPP)

# With the page for browsers, where it is built, at try/.
docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict
	[ ! -d build/web ] || cp -r build/web build/site/try

wheel-test: $(VENV)/.installed-dev
	$(BIN)/python tools/wheel_test.py

library:
	cmake -S native/library -B build/library
	cmake --build build/library --parallel $$(getconf _NPROCESSORS_ONLN)

web: library
	PYTHON=$(PYTHON) web/build.sh

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "Installing into $(VENV)."
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev,docs]"
	touch $@

evidence: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/kodak.py $(KODAK) --write

clean:
	rm -rf $(VENV) build demo
