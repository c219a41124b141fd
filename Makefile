# Everything one does with this project. Each target makes or refreshes the environment it needs.

PYTHON ?= python3
VENV ?= .venv
PRESET ?= paper
CHROMIUM ?= chromium
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)

ifneq ($(PRESET),sample)
ifneq ($(PRESET),paper)
$(error PRESET is '$(PRESET)', and must be sample (seconds, embedded sample data) or paper (the paper's own setting))
endif
endif

# One thread for each process: the numbers depend on it, and notebooks run side by side.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
# A hundred processes import the library: let Python keep what it has compiled.
unexport PYTHONDONTWRITEBYTECODE

ENV := $(VENV)/up-to-date
RUN := $(VENV)/bin/python
# As many tests at a time as there are processors; those of a file, or a notebook, in their order.
PYTEST := $(RUN) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
SOURCES := revlib tests book notebooks
LIBRARY := $(shell find revlib -name '*.py')
# The longest texts first, which take longest: so that none of them is left at the end.
CHAPTERS := $(patsubst notebooks/%.md,book/chapters/%.ipynb,$(shell ls -S notebooks/*.md))
RESULTS := $(shell find book/results -name '*.parquet' -o -name '*.json' 2>/dev/null)
PAGES := $(wildcard book/*.yml book/*.md book/api/*.md book/_static/*)
# What every page may depend on.
SHARED := book/_config.yml book/_toc.yml book/references.bib book/links.py $(LIBRARY) $(ENV)
INDEX := book/_build/html/index.html

.PHONY: help
help: ## list the targets (this)
	@echo "make TARGET [PRESET=sample|paper] [JOBS=n] [PYTHON=python3] [VENV=.venv]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: book
book: notebooks ## run the notebooks and build the book, warnings being errors
	@$(MAKE) --no-print-directory book/_build/checked
	@echo "The book is built; open $(CURDIR)/$(INDEX)"

.PHONY: pdf
pdf: book ## print the whole book as a PDF (needs Chromium, which no package of Python brings)
	@command -v $(CHROMIUM) >/dev/null || { echo "There is no program $(CHROMIUM). Install" \
	    "Chromium, or name a browser of its family: make pdf CHROMIUM=google-chrome" >&2; exit 1; }
	$(VENV)/bin/jupyter-book build -q --builder singlehtml book
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --no-pdf-header-footer \
	    --virtual-time-budget=100000 --print-to-pdf=book/_build/book.pdf \
	    "file://$$(pwd | sed 's/ /%20/g')/book/_build/singlehtml/intro.html"
	@echo "The PDF is book/_build/book.pdf"

.PHONY: notebooks
notebooks: $(ENV) ## run all notebooks in parallel, one thread each, into book/chapters
	@$(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) $(CHAPTERS)

.PHONY: check
check: $(ENV) ## check style and run the quick tests of the library: about a minute
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)
	$(PYTEST) -m "not slow" revlib tests

.PHONY: test
test: $(ENV) ## run all tests, and the notebooks against their stored outputs
	$(PYTEST)

# Sums are then done in another order. PyTorch, oneDNN and MKL each have a switch of their own.
.PHONY: portability
portability: $(ENV) ## compare the notebooks (or DRAWN=n of them) as computed on an older processor
	env ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE \
	    $(PYTEST) $$($(RUN) -c "import random, sys; names = sys.argv[2:]; \
	    print(*random.sample(names, int(sys.argv[1] or 0) or len(names)))" \
	    "$(DRAWN)" notebooks/*.ipynb)

.PHONY: lint
lint: $(ENV) ## check style and docstrings, and that each .ipynb mirrors its .md
	$(RUN) -m ruff check $(SOURCES)
	$(RUN) -m ruff format --check $(SOURCES)
	$(RUN) book/pair.py check

.PHONY: format
format: $(ENV) ## format the code, that of the notebooks' .md included
	$(RUN) -m ruff check --fix-only revlib tests book
	$(RUN) -m ruff format revlib tests book
	$(RUN) book/pair.py format

.PHONY: sync
sync: $(ENV) ## rewrite the .ipynb whose .md changed, and run those whose code or library did
	$(RUN) book/pair.py sync --jobs $(JOBS)

.PHONY: bench
bench: $(ENV) ## time backward runs against the plain loop (on a machine that does nothing else)
	env -u OMP_NUM_THREADS -u MKL_NUM_THREADS -u OPENBLAS_NUM_THREADS $(VENV)/bin/revlib bench

.PHONY: verdicts
verdicts: $(ENV) ## judge the claims from the stored results, and draw the advice, for the front page
	$(VENV)/bin/revlib claims --write

.PHONY: picture
picture: $(ENV) ## redraw the pictures of the README and of the book's front page
	$(RUN) -c "from revlib import figures, runs; figures.theme(); \
	    burst = runs.stored('figure-7').query('1900 <= step < 1908'); \
	    figures.curves(burst, ['test_loss']).savefig('book/_static/figure-7.png')"
	$(RUN) -c "from revlib import orders; from revlib.figures import drawings; \
	    print(drawings.runs([orders.forward(), orders.backward()]))" > book/_static/orders.svg
	$(RUN) -c "from revlib import figures; from revlib.verdicts import front_page; figures.theme(); \
	    front_page.picture().savefig('book/_static/opening.png')"

.PHONY: env
env: $(ENV) ## make the virtual environment, or bring it up to date

.PHONY: constraints
constraints: ## resolve the version ranges anew and pin the outcome in constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install -e ".[test,lint]"
	(sed '/^[^#]/,$$d' constraints.txt; $(RUN) -m pip freeze --exclude-editable \
	    | grep -Ev '^(cuda|nvidia|triton)') > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt
	touch $(ENV)

.PHONY: clean
clean: ## remove what was built, but not the environment and the results
	rm -rf book/_build book/chapters build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find revlib tests book -name __pycache__ -prune -exec rm -rf {} +

$(ENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=.")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); PyTorch alone can be several GB, so this takes minutes."
	$(RUN) -m pip install --quiet -c constraints.txt -e ".[test,lint]"
	@touch $@

# What an executed chapter was run with; changes only when that changes, so that a new PRESET or
# data folder runs the chapters again and nothing else does.
book/chapters/setting: FORCE
	@mkdir -p $(@D)
	@echo "$(PRESET) $(REVLIB_DATA)" | cmp -s - $@ || echo "$(PRESET) $(REVLIB_DATA)" > $@

.PHONY: FORCE
FORCE:

# Where nothing but a chapter's text is newer ($? is what is), its outputs are kept if it has the
# same code as before.
book/chapters/%.ipynb: notebooks/%.md book/execute.py book/chapters/setting $(LIBRARY) $(RESULTS) $(ENV)
	@$(RUN) book/execute.py $< $@ --preset $(PRESET) $(if $(filter-out $<,$?),,--keep)

# Sphinx reads again only the pages that changed, and all pages are written: a broken reference is
# found wherever it stands, and numbers are right everywhere. After a change to what all pages
# depend on it begins with nothing; also after a build that failed, whose warnings it would not
# repeat: without the target, $? is everything.
book/_build/checked: $(CHAPTERS) $(PAGES) $(SHARED) tests/test_book.py
	$(if $(filter $(SHARED),$?),rm -rf book/_build)
	rm -rf $@ book/_build/html
	$(VENV)/bin/jupyter-book build -q -W -n --keep-going book
	$(RUN) -m pytest -q --noconftest -o addopts= tests/test_book.py
	@touch $@
