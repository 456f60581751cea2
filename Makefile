# make demo    install into .venv and run the demo sweep
# make test    install with the test needs and run the whole suite
# make check   lint, formatting and types
# make docs    build the documentation into site/; warnings are errors
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# results are never overwritten: a second demo gets a name of its own
ANOTHER = $(if $(wildcard results/demo),--name demo-$(shell date +%Y%m%d-%H%M%S))

.PHONY: demo test check docs clean

demo: $(VENV)/installed
	@echo "== running the demo sweep"
	$(BIN)/python tune_main.py --space sweeps/demo.yaml $(ANOTHER)

test: $(VENV)/installed-dev
	@echo "== running the tests"
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-dev
	@echo "== lint"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "== types"
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	@echo "== building the documentation"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# torch and what it needs are some gigabytes, so each step says what it is doing; pip shows its own progress
$(VENV)/bin/python:
	@echo "== making a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "== installing the project (torch and Ray: some gigabytes, a few minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check -e . -c constraints.txt
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "== installing the project with its test needs (torch and Ray: some gigabytes, a few minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/installed

$(VENV)/installed-docs: $(VENV)/installed-dev
	@echo "== installing MkDocs"
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev,docs]' -c constraints.txt
	@touch $@

clean:
	rm -rf $(VENV) site
