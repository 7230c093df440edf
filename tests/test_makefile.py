"""What `make help` promises is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = {
    *("help", "setup", "demo", "train", "export", "engine", "bench", "verify"),
    *("detect", "folder", "publish", "kernels", "plugin", "gpu", "docs", "pictures", "test", "lint", "types", "clean"),
}


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_help_lists_every_target() -> None:
    assert set(re.findall(r"^  make (\w+)", make("help"), flags=re.MULTILINE)) == TARGETS


def test_variables_reach_the_commands() -> None:
    ready = ["-o", ".venv/.ready"]
    assert "ld-deploy train a.py --resume" in make("-n", *ready, "train", "CONFIG=a.py", "ARGS=--resume")
    assert "torchrun --nproc-per-node 8 -m ld_runtime.cli train" in make("-n", *ready, "train", "GPUS=8")
    assert "ld-deploy verify a.py b.pth c.onnx" in make(
        "-n", *ready, "verify", "CONFIG=a.py", "CHECKPOINT=b.pth", "MODEL=c.onnx"
    )
    assert "ld-deploy build c.onnx -o c.engine" in make("-n", *ready, "engine", "MODEL=c.onnx")
    gpu = make(
        "-n", *ready, "gpu", "MODEL=c.onnx", "CHECKPOINT=b.pth", "GPU_PRECISIONS=fp16", "GPU_BACKEND=tensorrt-rtx"
    )
    assert "for precision in fp16" in gpu
    assert "--backend tensorrt-rtx --precision $precision" in gpu
    assert "ld-deploy bench c.onnx outputs/gpu/fp16.engine --device cuda" in gpu
    assert "--against b.pth --compile" in gpu


def test_native_targets() -> None:
    text = make("-n", "kernels", "CUDA_ARCHITECTURES=native")
    assert '"-DLD_DEPLOY_CUDA_ARCHITECTURES=native"' in text
    assert "--prefix runtime" in text
    assert "tests.gpu.bench_nms -o docs/results/gpu_nms.json" in make("-n", "-o", ".venv/.ready", "gpu-kernels")


def test_plugin_says_where_headers_come_from(tmp_path: Path) -> None:
    for arguments in ([], [f"TENSORRT_INCLUDE={tmp_path}"]):
        command = ["make", "--no-print-directory", "plugin", *arguments]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert "no NvInfer.h in TENSORRT_INCLUDE" in done.stdout
        assert "git clone --depth 1 --branch v11.1 https://github.com/NVIDIA/TensorRT" in done.stdout


def test_defaults_are_the_demo_and_its_configs_are_there() -> None:
    text = make("help")
    config = re.search(r"CONFIG=(\S+)", text)
    assert config is not None
    assert (ROOT / config[1]).is_file()


def test_continuous_integration_runs_the_readme_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "make test" in script
    assert "    make test" in "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines())
