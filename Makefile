# `make demo` and `make test` do all the set-up themselves; see README.md.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_PRODUCTS ?= 1600
# A number of steps, not of minutes: the demo then ends with the same model on a fast and on a slow machine.
DEMO_STEPS ?= 900
DEMO_ALIGN_STEPS ?= 900
DEMO_OUT ?= runs/demo
DEMO_ALIGN := $(DEMO_OUT)-align
DEMO_INDEX := $(DEMO_OUT)-index
DEMO_QUERIES ?= 300
# Matching takes a forward for each of 2 x 101 pairs a query, the cosine none.
DEMO_MATCHING_QUERIES ?= 100
# Two workers of one thread each do half as much again as one worker with two threads: small matrices gain little from threads.
DEMO_WORKERS ?= 2
# What finds products in minutes: contrast first. Matching and masked words take longer than a demo to learn.
DEMO_QUICK := model.layers=2 train.learning_rate=2e-3 train.warmup_steps=50 \
	train.task_weights.itc=8 train.task_weights.itm=2 train.task_weights.amlm=0.5
# Of `make test`; each takes a file of tests at a time, with one thread.
TEST_PROCESSES ?= 2
CATALOGUE := runs/demo-data/catalogue-$(DEMO_PRODUCTS)
SHARDS := runs/demo-data/shards-$(DEMO_PRODUCTS)

# Idle OpenMP threads sleep instead of spinning: on a shared machine spinning makes two threads slower than one.
export OMP_WAIT_POLICY := passive

.PHONY: install demo lint test test-slow bench clean

install: $(VENV)/installed

# What the installation is made of; the code itself is read where it lies.
$(VENV)/installed: setup.py pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: install
	$(BIN)/kaleido-fast generate --products $(DEMO_PRODUCTS) --out $(CATALOGUE)
	test -f $(SHARDS)/manifest.json || $(BIN)/kaleido-fast prepare --catalog $(CATALOGUE)/styles.csv \
		--images $(CATALOGUE)/images --out $(SHARDS)
	OMP_NUM_THREADS=1 $(BIN)/kaleido-fast encode configs/demo.yaml data.shards=$(SHARDS)
	rm -rf $(DEMO_OUT) $(DEMO_ALIGN) $(DEMO_INDEX)
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node $(DEMO_WORKERS) -m kaleido_fast align \
		configs/demo.yaml data.shards=$(SHARDS) align.mode=forced align.steps=$(DEMO_ALIGN_STEPS) align.replace=true \
		run.out=$(DEMO_ALIGN)
	$(BIN)/kaleido-fast align-eval $(DEMO_ALIGN) --truth $(CATALOGUE)/truth.jsonl --samples 500 --out $(DEMO_ALIGN)/align-eval.json
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node $(DEMO_WORKERS) -m kaleido_fast pretrain \
		configs/demo.yaml data.shards=$(SHARDS) data.alignment=aag-forced model.features=stored \
		train.minutes=0 train.steps=$(DEMO_STEPS) train.micro_batch=16 train.itc_block=32 data.mine_every=4 $(DEMO_QUICK) \
		run.out=$(DEMO_OUT)
	$(BIN)/kaleido-fast evaluate $(DEMO_OUT) eval.queries=$(DEMO_QUERIES) eval.matching_queries=$(DEMO_MATCHING_QUERIES)
	$(BIN)/kaleido-fast index $(DEMO_OUT) --shards $(SHARDS) --splits test --out $(DEMO_INDEX)
	$(BIN)/kaleido-fast report $(DEMO_OUT) --index $(DEMO_INDEX) \
		--queries "Red and pink dress for women. Made with dots" "Black and orange boots for men. Made with dots" \
		"Navy and grey backpack for women. Made with stripes and a front pocket"
	@echo "a page to search in: $(BIN)/kaleido-fast serve $(DEMO_INDEX)"

# mypy sees the package as it is installed, with kernels/ as kaleido_fast/kernels, through links; benchmarks/ beside it.
lint: install
	$(BIN)/ruff check
	$(BIN)/isort --check-only --quiet .
	rm -rf build/types && mkdir -p build/types/kaleido_fast
	ln -s $(CURDIR)/kaleido_fast/* $(CURDIR)/kernels build/types/kaleido_fast/
	ln -s $(CURDIR)/benchmarks build/types/
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p kaleido_fast -p benchmarks

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not slow" -n $(TEST_PROCESSES) --dist loadfile --max-worker-restart 0

test-slow: install
	$(BIN)/python -m pytest tests -m slow

# bench.md from the result files; the figures come from the commands that it names
bench: install
	$(BIN)/python benchmarks/render.py

clean:
	rm -rf runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
