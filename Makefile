# On a machine with Python 3.11 or later and make, nothing else:
#     make quickstart     install into .venv, classify 200 images, write quickstart.png
#     make test           install what tests need, run them
# Another interpreter: make quickstart PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test lint bench-accuracy bench-race train-embedded

quickstart: $(VENV)/.installed-plot
	$(RUN) examples/quickstart.py

test: $(VENV)/.installed-test
	$(RUN) -m pytest

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench-accuracy: $(VENV)/.installed-test
	$(RUN) benchmarks/accuracy.py

bench-race: $(VENV)/.installed-test
	$(RUN) benchmarks/exact.py
	$(RUN) benchmarks/promise.py
	$(RUN) benchmarks/race.py
	$(RUN) benchmarks/mixture.py
	$(RUN) benchmarks/calibration.py

train-embedded: $(VENV)/.installed-test
	$(RUN) examples/train_embedded.py --output build/scenes

# Stamps, so that nothing is installed twice; they go when .venv goes. Editable, so that a change
# of the sources needs no new installation.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.created
	$(RUN) -m pip install -c constraints.txt -e ".[$*]"
	touch $@

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@
