# make lab        set up .venv, check it, separate a first mixture, open JupyterLab on the first notebook
# make test       set up .venv, run every test, notebooks included
# make course     execute every notebook into build/
# make book       the course and the API reference as a web site, into build/book
# make soak       the tests that are too long for every run
# make clean      remove what was built (delete the folder .venv as well to begin anew)
#
# PYTHON=python3.12   the Python that .venv is made with (3.11 or newer)
# TORCH=auto          PyTorch's build: auto (CPU unless an NVIDIA GPU is found), cpu, cuda
# JUPYTER="--port 9"  further arguments for JupyterLab
# PYTEST="-k stft"    further arguments for pytest

PYTHON ?= python3
TORCH ?= auto
JUPYTER ?=
PYTEST ?=
SETUP := PYTHONPATH= $(PYTHON) -m avkit._environment
AVKIT := .venv/bin/avkit

.PHONY: lab first-light test course book soak clean environment

lab: first-light
	@.venv/bin/python -m avkit._environment lab $(JUPYTER)

first-light: environment
	@$(AVKIT) doctor
	@.venv/bin/python -m avkit._first_light build/first_light

test: environment
	@.venv/bin/python -m avkit._environment browser
	@.venv/bin/python -m avkit._environment interpreter
	.venv/bin/python -m pytest -n 2 --dist loadfile $(PYTEST)

soak: environment
	.venv/bin/python -m pytest -m soak $(PYTEST)

course: environment
	$(AVKIT) course run

book: environment
	$(AVKIT) course book build/book

environment:
	@$(SETUP) install --torch $(TORCH)

clean:
	rm -rf build dist avkit.egg-info .pytest_cache .ruff_cache .hypothesis lightning_logs
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
