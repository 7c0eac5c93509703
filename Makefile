# make demo   self-train on handwritten digits       make test   all checks and tests
# make fix    format and mend what ruff can mend     make bench  the benchmarks of docs/results.md
# make audit  known holes of the packages            make sbom   sbom.json, what is installed
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

TOOLS := $(VENV)/tools
DATABASE := https://pypi.org/pypi/pip/json

.PHONY: demo test check audit sbom fix bench fuzz clean
demo: $(READY)
	$(BIN)/tutelage demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest tests/test_shape.py tests/test_security.py
	$(MAKE) --no-print-directory audit

audit: $(READY)
	@if timeout 10 $(BIN)/python -c \
	  "import urllib.request as ask; ask.urlopen('$(DATABASE)', timeout=5)" 2>/dev/null; \
	then $(MAKE) --no-print-directory $(TOOLS)/.ready && \
	  timeout 600 $(TOOLS)/bin/pip-audit --progress-spinner off --timeout 10 --skip-editable \
	  --path $(VENV)/lib/python*/site-packages; \
	else echo "audit skipped: no database of known holes can be reached ($(DATABASE))"; fi

sbom: $(READY) $(TOOLS)/.ready
	$(TOOLS)/bin/cyclonedx-py environment --output-format JSON --output-file sbom.json $(BIN)/python

fix: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(READY)
	$(BIN)/python -m benchmarks.loop
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.digits

fuzz: $(READY)
	$(BIN)/python -m benchmarks.fuzz --inputs 100000

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	touch $(READY)

$(TOOLS)/.ready: constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom pip-audit
	touch $@
