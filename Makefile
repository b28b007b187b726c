# Every target makes its own environment in .venv, so that a fresh clone needs one command.
PYTHON ?= python3
PY := .venv/bin/python
# One worker for each core, one thread each; a file's tests stay together, since they share its first training.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses auto --dist loadfile
JOBS ?= 2
ifneq ($(wildcard ../shared/data),)
export DATA_DIR ?= $(abspath ../shared/data)
endif

.PHONY: demo test test-all test-oldest lint experiments figures report gallery bench clean

demo: .venv/core              ## train the main job: an RNN on palindromes of 11 digits
	$(PY) part1/train.py --model_type RNN --input_length 10

test: .venv/test              ## the fast tests
	$(PYTEST) -m "not slow"

test-all: .venv/test          ## all tests
	$(PYTEST)

test-oldest: .venv-oldest/test  ## the fast tests at the lower bounds of pyproject.toml; needs Python 3.10 or 3.11
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

lint: .venv/test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

experiments: .venv/molecules  ## every run behind report/results/, resumable
	$(PY) -m part1.experiments.accuracy_by_length --jobs $(JOBS)
	$(PY) -m part1.experiments.gradient_flow --jobs $(JOBS)
	$(PY) -m part1.experiments.long_memory --jobs $(JOBS)
	$(PY) -m part1.experiments.optimizers --jobs $(JOBS)
	$(PY) -m part1.experiments.grads_over_time --jobs $(JOBS)
	$(PY) -m part1.experiments.variants --jobs $(JOBS)
	$(PY) -m part1.experiments.time_gate
	$(PY) -m part2.experiments.grimm --jobs $(JOBS)
	$(PY) -m part2.experiments.decoding --jobs $(JOBS)
	$(PY) -m part2.experiments.shakespeare
	$(PY) -m part2.experiments.poems --jobs $(JOBS)
	$(PY) -m part3.experiments.receptive_field
	$(PY) -m part3.experiments.citation --jobs $(JOBS)
	$(PY) -m part3.experiments.depth --jobs $(JOBS)
	$(PY) -m part3.experiments.bots
	$(PY) -m part3.experiments.convolution_attention --jobs $(JOBS)
	$(PY) -m part3.experiments.qm9 --jobs $(JOBS)
	$(PY) -m part4.experiments.numpy_network --jobs $(JOBS)
	$(PY) -m part4.experiments.robustness --jobs $(JOBS)

figures: .venv/core           ## report/figures/ from report/results/
	$(PY) -m part1.experiments.accuracy_by_length --draw_only
	$(PY) -m part1.experiments.gradient_flow --draw_only
	$(PY) -m part1.experiments.long_memory --draw_only
	$(PY) -m part1.experiments.optimizers --draw_only
	$(PY) -m part1.experiments.grads_over_time --draw_only
	$(PY) -m part1.experiments.variants --draw_only
	$(PY) -m part1.experiments.time_gate --draw_only
	$(PY) -m part2.experiments.grimm --draw_only
	$(PY) -m part2.experiments.decoding --draw_only
	$(PY) -m part2.experiments.shakespeare --draw_only
	$(PY) -m part2.experiments.poems --draw_only
	$(PY) -m part3.experiments.receptive_field --draw_only
	$(PY) -m part3.experiments.citation --draw_only
	$(PY) -m part3.experiments.depth --draw_only
	$(PY) -m part3.experiments.bots --draw_only
	$(PY) -m part3.experiments.convolution_attention --draw_only
	$(PY) -m part3.experiments.qm9 --draw_only
	$(PY) -m part4.experiments.numpy_network --draw_only
	$(PY) -m part4.experiments.robustness --draw_only
	$(PY) -m benchmarks.scaling --draw_only

report: figures               ## report/main.pdf from report/results/; needs TeX Live
	$(PY) report/build.py
	cd report && latexmk -pdf -interaction=nonstopmode -halt-on-error main.tex
	$(PY) report/check.py

RUNS := $(addprefix runs/gallery/,rnn lstm club gcn gat resnet18 numpy)
gallery: $(RUNS:=/result.json)  ## docs/gallery/: pages on which networks of every part can be looked at, in a browser
	$(PY) part1/explore.py --checkpoint $(filter %/rnn %/lstm,$(RUNS)) --page docs/gallery/memory.html
	$(PY) part2/explore.py --page docs/gallery/text.html
	$(PY) part3/explore.py --checkpoint $(filter %/club %/gcn %/gat,$(RUNS)) --page docs/gallery/graphs.html
	$(PY) part4/explore.py --checkpoint $(filter %/resnet18 %/numpy,$(RUNS)) --page docs/gallery/images.html

# All are trained in seconds but ResNet-18, which takes a quarter of an hour; it gets few epochs.
$(RUNS:=/result.json): | .venv/core
	$(PY) $(TRAIN) --run_dir $(@D)
runs/gallery/rnn/result.json: TRAIN := part1/train.py --model_type RNN --input_length 29 --preset long_memory
runs/gallery/lstm/result.json: TRAIN := part1/train.py --model_type LSTM --input_length 29 --preset long_memory
runs/gallery/club/result.json: TRAIN := part3/train.py
runs/gallery/gcn/result.json: TRAIN := part3/train.py --dataset cora
runs/gallery/gat/result.json: TRAIN := part3/train.py --dataset cora --model gat
runs/gallery/resnet18/result.json: TRAIN := part4/train.py --model_name resnet18 --dataset cifar10 --epochs 3
runs/gallery/numpy/result.json: TRAIN := part4/train_numpy.py

bench: .venv/molecules        ## speed beside what a user would take instead
	$(PY) -m benchmarks.part1
	$(PY) -m benchmarks.grid
	$(PY) -m benchmarks.part2
	$(PY) -m benchmarks.part3
	$(PY) -m benchmarks.part4
	$(PY) -m benchmarks.scaling

clean:
	rm -rf .venv .venv-oldest

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

# PyTorch is that of .venv, since its older releases are gigabytes each; TORCH=2.4.0 takes its own lower bound.
.venv-oldest/test: pyproject.toml .venv/core
	$(PYTHON) -m venv .venv-oldest
	grep -oE '"[A-Za-z_-]+>=[0-9.]+' pyproject.toml | sed 's/"//; s/>=/==/; /^torch==/d' > .venv-oldest/pins.txt
	$(PY) -c "import importlib.metadata as m; print('torch==' + ('$(TORCH)' or m.version('torch')))" >> .venv-oldest/pins.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint .venv-oldest/pins.txt --editable ".[test]"
	touch $@
