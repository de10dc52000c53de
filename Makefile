# On a machine with Python 3.11 or later and make, nothing else:
#     make quickstart     install into .venv, classify 200 images, write quickstart.png
#     make test           install what tests need, run them
# Another interpreter: make test PYTHON=python3.12 VENV=.venv-3.12
# The lowest versions: make test CONSTRAINTS=constraints-lowest.txt VENV=.venv-lowest

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
RUN := $(VENV)/bin/python
PARALLEL := -n auto --maxprocesses 4

.PHONY: quickstart test test-slow test-browser fuzz lint docs test-site dist test-dist bench bench-accuracy bench-race train-embedded

quickstart: $(VENV)/.installed-plot
	$(RUN) examples/quickstart.py

test: $(VENV)/.installed-test
	$(RUN) -m pytest $(PARALLEL)

# The tests that are marked as slow.
test-slow: $(VENV)/.installed-dev
	$(RUN) -m pytest -m slow

# Pages in headless Chromium, which must be installed.
test-browser: $(VENV)/.installed-test
	$(RUN) -m pytest -m browser tests/evaluation tests/demo

# Files, pictures and tables that are made up, from another seed each time.
fuzz: SEED := $(shell date +%s)
fuzz: $(VENV)/.installed-test
	$(RUN) -m pytest --hypothesis-seed=$(SEED) tests/contracts/test_fuzz_*.py

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# The site, into build/docs: notebooks and gallery run, and warnings are errors.
docs: $(VENV)/.installed-docs
	$(RUN) -m sphinx -E -W --keep-going -q -b html docs build/docs

# Links, names and looks of the built site, in headless Chromium, which must be installed.
test-site: docs
	$(RUN) -m pytest -m site tests/contracts/test_site.py

# The source distribution and the wheel, into dist/.
dist: $(VENV)/.installed-dev
	rm -rf dist
	$(RUN) -m build --outdir dist .

# What users get: the wheel in an empty environment, and the tests of the unpacked source
# distribution, without its package, so that nothing but the wheel can be imported.
test-dist: dist
	rm -rf build/dist && mkdir -p build/dist
	tar -xzf dist/*.tar.gz -C build/dist --strip-components=1
	rm -r build/dist/diffusion_classifier
	$(PYTHON) -m venv build/dist/.venv
	build/dist/.venv/bin/python -m pip install -c $(CONSTRAINTS) "$$(ls dist/*.whl)[dev]"
	cd build/dist && .venv/bin/python -m pytest $(PARALLEL) tests
	cd build/dist && .venv/bin/python -m pytest -m slow tests/contracts/test_first_hour.py

# What races cost beyond the network, against the published search, and as they grow: 20 minutes.
bench: $(VENV)/.installed-test
	$(RUN) benchmarks/speed.py
	$(RUN) benchmarks/published.py
	$(RUN) benchmarks/growth.py

bench-accuracy: $(VENV)/.installed-test
	$(RUN) benchmarks/accuracy.py

bench-race: $(VENV)/.installed-test
	$(RUN) benchmarks/exact.py
	$(RUN) benchmarks/promise.py
	$(RUN) benchmarks/race.py
	$(RUN) benchmarks/mixture.py
	$(RUN) benchmarks/limit.py
	$(RUN) benchmarks/trials.py
	$(RUN) benchmarks/shortlist.py
	$(RUN) benchmarks/calibration.py
	$(RUN) benchmarks/rejection.py

train-embedded: $(VENV)/.installed-test
	$(RUN) examples/train_embedded.py --output build/scenes

# Stamps, so that nothing is installed twice; they go when .venv goes. Editable, so that a change
# of the sources needs no new installation.
$(VENV)/.installed-%: pyproject.toml $(CONSTRAINTS) | $(VENV)/.created
	$(RUN) -m pip install -c $(CONSTRAINTS) -e ".[$*]"
	touch $@

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@
