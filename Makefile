# make demo   self-train on handwritten digits       make test   all checks and tests
# make fix    format and mend what ruff can mend     make bench  the benchmarks of docs/results.md
# make audit  known holes of the packages            make sbom   sbom.json, what is installed
# make docs   the pages of docs/ as a site in site/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

TOOLS := $(VENV)/tools
# Files of tests go where no disk is waited for, if 8 GB are free there: each is written for good.
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk '$$4 > 8e6 && NR == 2 {print "TMPDIR=/dev/shm"}')

.PHONY: demo test check audit sbom docs fix bench fuzz clean
demo: $(READY)
	$(BIN)/tutelage demo

test: check
	OMP_NUM_THREADS=1 $(IN_MEMORY) $(BIN)/pytest -n auto --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest tests/test_shape.py
	@if curl --silent --max-time 5 --output /dev/null https://api.osv.dev; \
	then $(MAKE) --no-print-directory audit; else echo "no audit: api.osv.dev can't be reached"; fi

audit: $(READY) $(TOOLS)/.ready
	$(TOOLS)/bin/pip-audit --vulnerability-service osv --skip-editable \
	  --path $(VENV)/lib/python*/site-packages

sbom: $(READY) $(TOOLS)/.ready
	$(TOOLS)/bin/cyclonedx-py environment --output-format JSON --output-file sbom.json $(BIN)/python

docs: $(VENV)/.docs-ready
	$(BIN)/zensical build --strict --clean
	@! grep -rlE '<(script|img|link|iframe)[^>]*(src|href)="?(https?:)?//' site --include=*.html
	@echo "to read them: python3 -m http.server --directory site"

fix: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python tests/commands_page.py

bench: $(VENV)/.bench-ready
	$(BIN)/python -m benchmarks.bench

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

$(VENV)/.bench-ready: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

$(VENV)/.docs-ready: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
