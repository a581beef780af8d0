# Two commands: make course, make test. Both build the environment on first use and start at once afterwards.
PYTHON ?= python3
PILOT ?= data/inbox
PROFILE ?=
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: course bar test fast lint lock lock-check study lab check colab smoke clean
course: ready
	@$(PY) -m helpers.course --pilot "$(PILOT)" $(if $(PROFILE),--profile $(PROFILE))

bar: ready
	@$(PY) -m helpers.course --pilot "$(PILOT)" --only 02 $(if $(PROFILE),--profile $(PROFILE))

# Two at a time, one thread each: with two threads each they would wait for one another.
test: ready
	@COURSE_QUIET=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

# The tests without the slow ones (training, whole chapters): a few minutes.
fast: ready
	@COURSE_QUIET=1 OMP_NUM_THREADS=1 $(PY) -m pytest tests -n 2 --dist loadfile -m "not slow"

# Style, arrows between folders, types of the public face, spelling.
lint: $(VENV)/installed
	@$(PY) -m ruff check helpers benchmarks tests
	@$(PY) -m ruff format --check helpers benchmarks tests
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(PY) -m mypy
	@$(VENV)/bin/typos

# requirements.lock: every package with its version, for all systems and Pythons, without addresses.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header requirements.txt
lock: $(VENV)/installed
	@$(PY) -m $(LOCK) -o requirements.lock

lock-check: $(VENV)/installed
	@for version in 3.11 3.12 3.13; do \
	  $(PY) -m uv pip compile --quiet --no-header --python-version $$version requirements.lock -o /dev/null && echo "requirements.lock resolves for Python $$version" || exit 1; done

smoke: ready
	@$(PY) -m helpers.course --pilot "$(PILOT)" --profile smoke --fresh

# The long comparisons behind the chapters: an hour or more each on two cores; a kill loses one student at most.
# 03 asks the 1.5B model again for everything that is recorded of it (1.1 GB to fetch, 12 GB of memory, half an hour).
study: ready
ifeq ($(STUDY),03)
	@$(PY) -m helpers.choose.models qwen2.5-coder-1.5b
	@COURSE_ASK_AGAIN=1 $(PY) -m helpers.course --pilot "$(PILOT)" --profile cpu --only 03 --fresh
else
	@COURSE_PILOT="$(abspath $(PILOT))" $(PY) -m helpers.studies $(STUDY)
endif

lab: ready
	@COURSE_PILOT="$(abspath $(PILOT))" $(PY) -m jupyterlab notebooks

# Chapters 00 and 05 alone on a machine with Colab's packages: network, Python 3.13, 12 GB of disk, a quarter of an hour.
colab: ready
	@$(PY) -m benchmarks.colab_run

check: $(VENV)/installed
	@$(PY) -m helpers.check

.PHONY: ready
ready: $(VENV)/installed
	@$(PY) -m helpers.choose.models > /dev/null

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'This course needs Python 3.11 or newer; run make PYTHON=python3.11 (or newer) with one that is.')"
	@echo "Installing the environment into $(VENV)/ (once, some minutes) ..."
	@$(PYTHON) -m venv $(VENV) 2> /dev/null || \
	  { echo "$(VENV)/ could not be made: this folder cannot be written, or $(PYTHON) comes without venv (Debian: apt-get install python3-venv). Name a folder of your own: make course VENV=/tmp/venv" >&2; exit 1; }
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt || \
	  { echo "The packages could not be installed: no network, or a full disk. Put that right and run the same command again." >&2; exit 1; }
	@touch $(VENV)/installed

clean:
	rm -rf $(VENV)
