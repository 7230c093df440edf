# Two commands on a fresh machine: `make demo` and `make test`. Each makes .venv if it is not there.

PYTHON     ?= python3
# The demo's, so that every target runs after `make demo`:
OUT        ?= outputs/demo
CONFIG     ?= configs/demo/ld_student.py
CHECKPOINT ?= $(OUT)/ld_student/last.pth
MODEL      ?= $(OUT)/ld_student.onnx
ENGINE     ?= $(MODEL:.onnx=.engine)
SOURCE     ?= $(OUT)/data/test
IMAGES     ?= $(SOURCE)
RESULTS    ?= $(OUT)/detections
GPUS       ?= 1
ARGS       ?=

VENV := .venv
BIN  := $(VENV)/bin
LD   := $(BIN)/ld-deploy
READY := $(VENV)/.ready

.PHONY: help setup demo train export engine bench verify detect publish test lint types clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-9s %s\n", $$1, $$2}'
	@echo
	@echo "  Variables, with their defaults (the demo's):"
	@echo "    CONFIG=$(CONFIG) CHECKPOINT=$(CHECKPOINT)"
	@echo "    MODEL=$(MODEL) SOURCE=$(SOURCE) IMAGES=$(IMAGES) RESULTS=$(RESULTS) GPUS=$(GPUS)"
	@echo "    ARGS: further options of the command, e.g. make train CONFIG=... ARGS='--resume --amp'"

setup: $(READY) ## make .venv and install everything (about 6 GB, a few minutes)

$(READY): pyproject.toml constraints.txt
	@echo "[1/5] $(VENV): a virtual environment of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/5] torch and torchvision (the largest part: several GB)"
	@$(BIN)/pip install -q -c constraints.txt torch torchvision
	@echo "[3/5] mmdet without compiled mmcv, onnx, onnxruntime and the tools"
	@$(BIN)/pip install -q -c constraints.txt -e ".[train,export,onnxruntime,openvino,tensorrt-rtx,gpu,video,draw,track,window,coco,report,dev,docs]"
	@echo "[4/5] the headless OpenCV in place of the one that needs a display"
	@$(BIN)/pip uninstall -q -y opencv-python
	@$(BIN)/pip install -q -c constraints.txt --no-deps --force-reinstall opencv-python-headless
	@echo "[5/5] checking"
	@$(LD) doctor
	@touch $@

demo: $(READY) ## the whole job on a synthetic data set: train, distil, export, verify, bench, report
	@$(LD) demo --output $(OUT) $(ARGS)

train: $(READY) ## train CONFIG (GPUS=8 for torchrun)
	@if [ "$(GPUS)" -gt 1 ]; then \
	  $(BIN)/torchrun --nproc-per-node $(GPUS) -m ld_runtime.cli train $(CONFIG) $(ARGS); \
	else $(LD) train $(CONFIG) $(ARGS); fi

export: $(READY) ## CONFIG + CHECKPOINT -> MODEL (ONNX)
	@$(LD) export $(CONFIG) $(CHECKPOINT) -o $(MODEL) $(ARGS)

engine: $(READY) ## MODEL -> ENGINE (TensorRT or TensorRT-RTX)
	@$(LD) build $(MODEL) -o $(ENGINE) $(ARGS)

verify: $(READY) ## AP and boxes of MODEL against CHECKPOINT
	@$(LD) verify $(CONFIG) $(CHECKPOINT) $(MODEL) $(ARGS)

bench: $(READY) ## latency and images a second of MODEL on IMAGES
	@$(LD) bench $(MODEL) --images $(IMAGES) $(ARGS)

detect: $(READY) ## run MODEL on SOURCE (image, folder, glob, video), into RESULTS
	@$(LD) detect $(MODEL) $(SOURCE) -o $(RESULTS) $(ARGS)

.PHONY: folder
folder: $(READY) ## 10,000 images killed and gone on with: nothing lost, memory constant (FOLDER_MODEL, FOLDER_IMAGES)
	@rm -rf outputs/folder
	@$(BIN)/python -m tests.runtime.folder_run $(FOLDER_MODEL) $(FOLDER_IMAGES) --folder outputs/folder \
	  -o docs/results/folder_10000.json && rm -rf outputs/folder
FOLDER_MODEL  ?= work_dirs/quantization/student.onnx
FOLDER_IMAGES ?= data/bccd/BCCD/JPEGImages

# What a GPU shows: the kernels, ONNX Runtime beside PyTorch and torch.compile, engines of each precision, their AP.
GPU_BACKEND    ?= tensorrt
GPU_PRECISIONS ?= fp32 fp16 bf16
GPU_OUT        ?= outputs/gpu
.PHONY: gpu
gpu: $(READY) gpu-kernels ## kernels, engines, their AP and times, on the GPU at hand (after make demo)
	@for precision in $(GPU_PRECISIONS); do \
	  $(LD) build $(MODEL) -o $(GPU_OUT)/$$precision.engine --backend $(GPU_BACKEND) --precision $$precision || exit; \
	done
	@$(LD) verify $(CONFIG) $(CHECKPOINT) $(MODEL) $(GPU_PRECISIONS:%=$(GPU_OUT)/%.engine) --device cuda \
	  -o $(GPU_OUT)/parity.json
	@$(LD) bench $(MODEL) $(GPU_PRECISIONS:%=$(GPU_OUT)/%.engine) --device cuda --images $(IMAGES) \
	  --against $(CHECKPOINT) --compile -o $(GPU_OUT)/bench.json

publish: $(READY) ## CHECKPOINT -> the student's weights alone, hash in the name
	@$(LD) publish $(CONFIG) $(CHECKPOINT) $(ARGS)

# The figures of docs/results on BCCD: put its folder BCCD at data/bccd/BCCD first.
BCCD := work_dirs/bccd
.PHONY: bccd
bccd: $(READY)
	@for role in teacher student ld_student; do \
	  $(LD) train configs/bccd/$$role.py --work-dir $(BCCD)/$$role --resume && \
	  $(LD) export configs/bccd/$$role.py $(BCCD)/$$role/best.pth -o $(BCCD)/$$role.onnx && \
	  $(LD) verify configs/bccd/$$role.py $(BCCD)/$$role/best.pth $(BCCD)/$$role.onnx -o docs/results/bccd_$$role.json \
	    || exit; \
	done
	@$(LD) bench $(BCCD)/teacher.onnx $(BCCD)/student.onnx $(BCCD)/ld_student.onnx --images data/bccd/BCCD/JPEGImages \
	  --against $(BCCD)/ld_student/best.pth --seconds 4 -o docs/results/bccd_bench.json

# The figures of docs/results on rotated SSDD: put its folders train and test at data/ssdd first.
SSDD := work_dirs/ssdd
.PHONY: ssdd
ssdd: $(READY)
	@for role in teacher student ld_student; do \
	  $(LD) train configs/ssdd/$$role.py --work-dir $(SSDD)/$$role --resume && \
	  $(LD) export configs/ssdd/$$role.py $(SSDD)/$$role/best.pth -o $(SSDD)/$$role.onnx && \
	  $(LD) verify configs/ssdd/$$role.py $(SSDD)/$$role/best.pth $(SSDD)/$$role.onnx -o docs/results/ssdd_$$role.json \
	    || exit; \
	done
	@$(LD) bench $(SSDD)/teacher.onnx $(SSDD)/student.onnx $(SSDD)/ld_student.onnx --images data/ssdd/test/all/images \
	  --against $(SSDD)/ld_student/best.pth --seconds 4 -o docs/results/ssdd_bench.json
	@$(BIN)/python docs/make_pictures.py --ships $(SSDD)/ld_student.onnx data/ssdd/test/all/images

# The figures of docs/results on recipes: after `make bccd` and `make demo`; hours on two cores.
.PHONY: compare
compare: $(READY)
	@for set in bccd demo; do $(LD) compare configs/compare/$$set.py -o docs/results/compare_$$set.json || exit; done
	@$(LD) bench-train configs/ld/ld_r18_r101_coco_1x.py --random-weights --size 320x416 --batch-size 2 \
	  --teacher-precision float32,bfloat16 -o docs/results/bench_train.json

# The figures of docs/results on quantization: after `make bccd` and `make compare`, which leave teacher and student.
QUANTIZED := work_dirs/quantization
QUANTIZED_STUDENT := work_dirs/compare/bccd/crosskd__cut_at_the_end_seed0/best.pth
CALIBRATIONS := max percentile_99.99 entropy mse
.PHONY: quantization
quantization: $(READY)
	@$(LD) export configs/compare/bccd_student.py $(QUANTIZED_STUDENT) -o $(QUANTIZED)/student.onnx
	@for precision in int8 fp8; do \
	  $(LD) quantize $(QUANTIZED)/student.onnx --config configs/compare/bccd_student.py --precision $$precision \
	    -o $(QUANTIZED)/student.$$precision.onnx && \
	  for role in student ld_student; do \
	    $(LD) train configs/bccd/$${role}_$$precision.py --work-dir $(QUANTIZED)/$${role}_$$precision && \
	    $(LD) export configs/bccd/$${role}_$$precision.py $(QUANTIZED)/$${role}_$$precision/best.pth \
	      -o $(QUANTIZED)/$${role}_trained.$$precision.onnx || exit; \
	  done || exit; \
	done
	@for method in $(CALIBRATIONS); do \
	  $(LD) quantize $(QUANTIZED)/student.onnx --config configs/compare/bccd_student.py --method $$method \
	    --float-budget 0 -o $(QUANTIZED)/student.$$method.onnx || exit; \
	done
	@$(LD) precision-report configs/compare/bccd_student.py \
	  $(QUANTIZED)/student.onnx $(CALIBRATIONS:%=$(QUANTIZED)/student.%.onnx) \
	  $(foreach precision,int8 fp8,$(foreach name,student student_trained ld_student_trained, \
	    $(QUANTIZED)/$(name).$(precision).onnx)) \
	  $(foreach name,student student_trained ld_student_trained,$(QUANTIZED)/$(name).int8.onnx@openvino) \
	  -o docs/results/quantization_bccd.json

# The figures of docs/results on speed: after `make quantization`. ResNet-18 at 640 x 480 is not trained: its boxes mean
# nothing, its time is that of a trained one.
.PHONY: speed
speed: $(READY)
	@$(LD) bench $(foreach name,student.onnx student.onnx@openvino student.onnx@openvino:bf16 \
	  ld_student_trained.int8.onnx ld_student_trained.int8.onnx@openvino,$(QUANTIZED)/$(name)) \
	  --images data/bccd/BCCD/JPEGImages --against $(QUANTIZED_STUDENT) -o docs/results/speed_bccd.json
	@$(LD) export configs/bccd/student_r18.py --random-weights -o $(QUANTIZED)/r18.onnx
	@$(LD) quantize $(QUANTIZED)/r18.onnx --images data/bccd/BCCD/JPEGImages --count 16 --method max \
	  --keep-float bbox_head.gfl_cls -o $(QUANTIZED)/r18.int8.onnx
	@$(LD) bench $(foreach name,r18.onnx r18.onnx@openvino r18.onnx@openvino:bf16 r18.int8.onnx r18.int8.onnx@openvino, \
	  $(QUANTIZED)/$(name)) --images data/bccd/BCCD/JPEGImages --batch-sizes 1 \
	  --against configs/bccd/student_r18.py -o docs/results/speed_r18.json

# A video's rate end to end beside the engine's own and mmdet's loop, and memory over 5,000 frames (the small student's,
# which is quick enough; the work on frames is the same). VIDEO_DATA is the folder of the videos.
VIDEO_DATA ?= ../shared/data/videos
VIDEOS = $(foreach name,car-detection mmdet_demo,--video $(VIDEO_DATA)/$(name).mp4)
.PHONY: video
video: $(READY)
	@$(LD) bench-video $(foreach name,r18.onnx r18.onnx@openvino:bf16 r18.int8.onnx@openvino student.onnx,$(QUANTIZED)/$(name)) \
	  $(VIDEOS) --against configs/bccd/student_r18.py --frames 100 --rounds 2 --against-frames 30 --max-detections 10 -o docs/results/video.json
	@$(LD) bench-video $(QUANTIZED)/r18.int8.onnx@openvino $(VIDEOS) --threads 1 --frames 100 --rounds 2 --max-detections 10 \
	  -o docs/results/video_one_thread.json
	@$(LD) bench-video $(QUANTIZED)/student.onnx --video $(VIDEO_DATA)/car-detection.mp4 --frames 5000 --rounds 1 -o docs/results/video_memory.json

# The figures of docs/results on start-up: after `make speed`, on a machine that does nothing else.
.PHONY: startup
startup: $(READY)
	@$(BIN)/python -m ld_runtime.startup $(foreach name,student.onnx ld_student_trained.int8.onnx r18.onnx,$(QUANTIZED)/$(name)) \
	  --image data/bccd/BCCD/JPEGImages/BloodImage_00000.jpg -o docs/results/startup.json

# docs/results/tiling.json: mosaics of the demo's test images, whole and in tiles; after `make demo`.
.PHONY: tiling
tiling: $(READY)
	@$(BIN)/python -m ld_runtime.tiling_bench $(MODEL) --images $(OUT)/data/test \
	  --annotations $(OUT)/data/annotations/instances_test.json -o docs/results/tiling.json

# Native code for GPUs. The CPU's is built by pip. CUDA_ARCHITECTURES=native is quicker and for this machine only.
NATIVE = cmake -S runtime/native -DLD_DEPLOY_HOST=OFF $(if $(CUDA_ARCHITECTURES),"-DLD_DEPLOY_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)")
INSTALL = cmake --install $(1) --prefix runtime
.PHONY: kernels plugin gpu-kernels
kernels: ## the CUDA kernels, into runtime/ld_runtime/lib (needs nvcc and cmake)
	@$(NATIVE) -B build/kernels -DLD_DEPLOY_CUDA=ON
	@cmake --build build/kernels
	@$(call INSTALL,build/kernels)

plugin: ## the TensorRT plugin, into runtime/ld_runtime/lib (TENSORRT_INCLUDE=folder of NvInfer.h)
	@if [ ! -f "$(TENSORRT_INCLUDE)/NvInfer.h" ]; then \
	  echo "make plugin: no NvInfer.h in TENSORRT_INCLUDE=\"$(TENSORRT_INCLUDE)\". TensorRT's wheels have no headers: take those of"; \
	  echo "  your version (python -c 'import tensorrt; print(tensorrt.__version__)'; 10.13 or later), here of 11.1:"; \
	  echo "    git clone --depth 1 --branch v11.1 https://github.com/NVIDIA/TensorRT build/TensorRT"; \
	  echo "    make plugin TENSORRT_INCLUDE=build/TensorRT/include"; exit 2; fi
	@$(NATIVE) -B build/plugin -DLD_DEPLOY_TENSORRT=ON "-DLD_DEPLOY_TENSORRT_INCLUDE=$(abspath $(TENSORRT_INCLUDE))"
	@cmake --build build/plugin
	@$(call INSTALL,build/plugin)

# The kernels on a GPU against the numpy twin; how fast they are; their memory and barriers. (Not racecheck: threads read
# bitsets that others add to, by design; see cluster_nms.h.)
gpu-kernels: $(READY) kernels
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/gpu $(ARGS)
	@PYTHONPATH=.:export:runtime $(BIN)/python -m tests.gpu.bench_nms -o docs/results/gpu_nms.json
	@for tool in memcheck synccheck; do \
	  compute-sanitizer --tool $$tool --error-exitcode 1 $(BIN)/python -m pytest -q tests/gpu -k "cuda and not every_run" || exit; \
	done

# docs/results/native_build.json: HEADERS are folders of NvInfer.h, of every version.
.PHONY: native-check
native-check: $(READY)
	@$(BIN)/python runtime/native/native_check.py --headers $(HEADERS)

.PHONY: browser
browser: $(READY)
	@tests/get_browser.sh $(BIN)/playwright

.PHONY: docs docs-serve pictures
docs: $(READY) ## the documentation, into build/docs: open build/docs/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict -f docs/mkdocs.yml

docs-serve: $(READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve -f docs/mkdocs.yml

pictures: $(READY) ## docs/pictures, from the finished demo in OUT
	@$(BIN)/python docs/make_pictures.py $(OUT) $(addprefix --report ,$(wildcard outputs/explain/report.html))

test: $(READY) browser ## the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy --strict on the three packages
	@$(BIN)/mypy

# docs/results/explain_bccd.json: which stage owns what each precision costs; after `make quantization`.
.PHONY: explain
explain: $(READY)
	@$(LD) verify configs/compare/bccd_student.py $(QUANTIZED_STUDENT) $(QUANTIZED)/student.onnx \
	  $(QUANTIZED)/student.int8.onnx $(QUANTIZED)/student.onnx@openvino:bf16 --no-mmdet --explain \
	  --tolerance-ap 0.01 --min-matched 0 -o outputs/explain/parity.json
	@$(BIN)/python -m ld_export.explain_summary outputs/explain/parity.json docs/results/explain_bccd.json
	@$(LD) report outputs/explain/parity.json docs/results/speed_bccd.json --title "BCCD: student in three precisions" \
	  -o outputs/explain/report.html

clean: ## remove .venv, outputs and caches
	rm -rf $(VENV) outputs work_dirs build dist .pytest_cache .mypy_cache .ruff_cache
