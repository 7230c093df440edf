"""Two processes on one CPU: the loss and the gradients of one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_deploy.checkpoint import load_model, read_checkpoint

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "export", "runtime")),
}

# One step of a distilled student on the images RANK, RANK + WORLD_SIZE, ... of a batch of four.
STEP = """
import os, sys
import torch
from ld_deploy import compat
compat.install()
import ld_deploy.models
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData

config, output = sys.argv[1:]
rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
torch.manual_seed(0)
model = MODELS.build(Config.fromfile(config).model).train()
for module in model.modules():  # a statistic of the process's own images would differ by nature
    if isinstance(module, torch.nn.BatchNorm2d):
        module.eval()
if world > 1:
    torch.distributed.init_process_group("gloo")
    model = MMDistributedDataParallel(model, device_ids=None)
generator = torch.Generator().manual_seed(1)
images = torch.randn(4, 3, 64, 96, generator=generator)
boxes = [
    torch.tensor([[8.0, 8.0, 40.0, 40.0], [30.0, 10.0, 90.0, 60.0]]), torch.zeros(0, 4),
    torch.tensor([[50.0, 20.0, 70.0, 44.0]]), torch.tensor([[0.0, 0.0, 95.0, 63.0]]),
]
mine = range(rank, 4, world)
samples = []
for i in mine:
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), pad_shape=(64, 96), batch_input_shape=(64, 96)))
    sample.gt_instances = InstanceData(bboxes=boxes[i], labels=torch.zeros(len(boxes[i]), dtype=torch.long))
    samples.append(sample)
losses = model(images[list(mine)], samples, mode="loss")
total = sum(value for name, value in losses.items() if "loss" in name)
total.backward()
losses = {name: value.detach() for name, value in losses.items()}
if world > 1:
    for value in losses.values():
        torch.distributed.all_reduce(value)
        value /= world
inner = model.module if world > 1 else model
gradients = {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}
if rank == 0:
    torch.save({"losses": losses, "gradients": gradients}, output)
"""

DISTILL = """
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
        dict(type='BinaryClassificationKD', region='full', weight=1),
        dict(type='IoULocalizationKD', region='score_gap', weight=4),
        dict(type='FeatureKD', region='gi', weight=2),
        dict(type='FeatureKD', region='foreground_background', weight=2),
        dict(type='PearsonKD', weight=10),
        dict(type='BinaryClassificationKD', region='full', weight=1, branch='cross'),
        dict(type='LocalizationKD', region='teacher_score', weight=68, temperature=1, branch='cross')],
"""


@pytest.fixture(scope="module")
def distilled_config(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    torch.manual_seed(3)
    torch.save({"state_dict": load_model(tiny_config, None).state_dict()}, folder / "teacher.pth")
    teacher = f"dict(config={str(tiny_config)!r}, checkpoint={str(folder / 'teacher.pth')!r})"
    path = folder / "distilled.py"
    path.write_text(
        f"_base_ = {str(tiny_config)!r}\nmodel = dict(type='DistilledDetector', teacher={teacher}, {DISTILL})\n",
        encoding="utf-8",
    )
    return path


def run(*command: str, cwd: Path) -> str:
    """What it prints to standard output."""
    result = subprocess.run(command, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def torchrun(*command: str, cwd: Path) -> str:
    return run(
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command, cwd=cwd
    )


def step(config: Path, folder: Path, *, processes: int) -> dict[str, Any]:
    script, output = folder / "step.py", folder / f"{processes}.pt"
    script.write_text(textwrap.dedent(STEP), encoding="utf-8")
    if processes == 1:
        run(sys.executable, str(script), str(config), str(output), cwd=folder)
    else:
        torchrun(str(script), str(config), str(output), cwd=folder)
    found: dict[str, Any] = torch.load(output, weights_only=True)
    return found


def test_two_processes_have_the_losses_and_gradients_of_one(distilled_config: Path, tmp_path: Path) -> None:
    one, two = (step(distilled_config, tmp_path, processes=count) for count in (1, 2))
    assert len([name for name in one["losses"] if name.startswith("loss_")]) == 13
    for name, value in one["losses"].items():
        assert value > 0, name
        torch.testing.assert_close(two["losses"][name], value, rtol=1e-4, atol=1e-5)
    assert set(two["gradients"]) == set(one["gradients"])
    largest = max(gradient.abs().max() for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(two["gradients"][name], gradient, rtol=1e-3, atol=1e-5 * float(largest))


def test_train_command_under_torchrun_on_the_cpu(distilled_config: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    command = ("-m", "ld_runtime.cli", "train", str(distilled_config), "--work-dir", str(work_dir), "--json")
    printed = torchrun(*command, cwd=tmp_path)
    # One object, by the first process.
    assert json.loads(printed) == {"config": str(distilled_config), "checkpoint": str(work_dir / "best.pth")}
    keys = set(read_checkpoint(work_dir / "best.pth")["state_dict"])
    student = {key for key in keys if not key.startswith("distillation.")}
    assert student == set(load_model(distilled_config, None).state_dict())
