# Every target makes its own environment in .venv, so that a fresh clone needs one command.
PYTHON ?= python3
PY := .venv/bin/python
# One worker for each core, one thread each; a file's tests stay together, since they share its first training.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile
JOBS ?= 2
ifneq ($(wildcard ../shared/data),)
export DATA_DIR ?= $(abspath ../shared/data)
endif

.PHONY: demo kernel test test-all lint experiments figures report bench clean

demo: .venv/core              ## train the main job: an RNN on palindromes of 11 digits
	$(PY) part1/train.py --model_type RNN --input_length 10

kernel: .venv/core            ## compile the LSTM's fast path; needs a C++ compiler
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[kernel]"
	$(PY) part1/lstm_kernel.py

test: .venv/test              ## the fast tests
	$(PYTEST) -m "not slow"

test-all: .venv/test          ## all tests
	$(PYTEST)

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

experiments: .venv/molecules  ## every run behind report/results/, resumable
	$(PY) part1/sweep.py --jobs $(JOBS)
	$(PY) part1/gradient_flow.py --jobs $(JOBS)
	$(PY) part1/long_memory.py --jobs $(JOBS)
	$(PY) part1/compare_optimizers.py --jobs $(JOBS)
	$(PY) part2/study_grimm.py --jobs $(JOBS)
	$(PY) part2/study_shakespeare.py
	$(PY) part2/compare_poems.py --jobs $(JOBS)
	$(PY) part3/receptive_field.py
	$(PY) part3/study_citation.py --jobs $(JOBS)
	$(PY) part3/qm9/compare.py --jobs $(JOBS)
	$(PY) part4/study_numpy.py --jobs $(JOBS)
	$(PY) part4/robustness.py --jobs $(JOBS)

figures: .venv/core           ## report/figures/ from report/results/
	$(PY) part1/sweep.py --draw_only
	$(PY) part1/gradient_flow.py --draw_only
	$(PY) part1/long_memory.py --draw_only
	$(PY) part1/compare_optimizers.py --draw_only
	$(PY) part2/study_grimm.py --draw_only
	$(PY) part2/study_shakespeare.py --draw_only
	$(PY) part2/compare_poems.py --draw_only
	$(PY) part3/receptive_field.py --draw_only
	$(PY) part3/study_citation.py --draw_only
	$(PY) part3/qm9/compare.py --draw_only
	$(PY) part4/study_numpy.py --draw_only
	$(PY) part4/robustness.py --draw_only
	$(PY) benchmarks/scaling.py --draw_only

report: figures               ## report/main.pdf from report/results/; needs TeX Live
	$(PY) report/build.py
	cd report && latexmk -pdf -interaction=nonstopmode -halt-on-error main.tex

bench: .venv/molecules        ## speed beside what a user would take instead
	$(PY) benchmarks/part1.py
	$(PY) benchmarks/part2.py
	$(PY) benchmarks/part3.py
	$(PY) benchmarks/part4.py
	$(PY) benchmarks/scaling.py

clean:
	rm -rf .venv

.venv/core: pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

.venv/molecules: .venv/core
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[molecules]"
	touch $@

.venv/test: .venv/core
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@
