# `make demo`, `make test` and `make reproduce` need Python, a C++ compiler and make; each sets up its own environment
# first.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
SOURCES := $(shell find csrc -type f)

# mini-batches of 16 take a third less time with a second thread, and crawl where another program holds its core
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS

.PHONY: demo test reproduce lint

demo: .venv/ready
	rm -rf $(DEMO)
	$(BIN)/python train_aae.py --dataset photos --limit 10000 --epochs 1 --instances 2 --output-dir $(DEMO)/aae
	$(BIN)/python mask_dataset.py --dataset digits --encoder $(DEMO)/aae/0/encoder.pt --output $(DEMO)/digits.pt
	$(BIN)/python classify.py --masked $(DEMO)/digits.pt --classes 3 --repeats 10 --epochs 20 --output-dir $(DEMO)/classify
	$(BIN)/python crosspair.py --models $(DEMO)/aae --dataset photos --limit 10000 --output-dir $(DEMO)/crosspair
	$(BIN)/python crosspair.py --audit --models $(DEMO)/aae --dataset photos --limit 400 --masks identity \
		--release $(DEMO)/digits.pt --recipient "a demonstration" --most-ssim 0.7 --most-named 0.5 --output-dir $(DEMO)/audit
	@echo "a report for the person who signs: $(DEMO)/audit/release.html; pictures:" && find $(DEMO) -name '*.png' | sort

# the many processes of the tests read the bytecode that the first one wrote, whatever else is set
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# hours: the paper's tables and figures on the real data; a stopped run resumes
reproduce: .venv/ready
	$(BIN)/python -m maskbench.reproduce

lint: .venv/packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cpp %.cu,$(SOURCES) $(wildcard tests/*))

# the tested versions; made again when they change. pip would compile them to bytecode on one core
.venv/packages: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --requirement requirements.txt
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # some files are of other versions of Python
	touch $@

# maskbench itself, in place, with its kernels; made again when their sources change
.venv/ready: .venv/packages pyproject.toml setup.py $(SOURCES)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@
