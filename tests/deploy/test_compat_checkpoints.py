"""`allow_checkpoint_classes`: mmengine's own checkpoints resume with `weights_only` on, and nothing else gets in."""

from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split
import io
import os
import pickle
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint

from ld_deploy.compat import allow_checkpoint_classes

if TYPE_CHECKING:
    from collections.abc import Iterator


class Toy(BaseModel):
    """One number, fitted to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: torch.Tensor, mode: str = "tensor") -> Any:
        return {"loss": (self.value - inputs).square().mean()} if mode == "loss" else self.value


def train_toy(folder: Path, *, epochs: int, resume: bool) -> Runner:
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader={
            "dataset": [{"inputs": torch.ones(1)}] * 4,
            "batch_size": 2,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        param_scheduler={"type": "LinearLR", "start_factor": 0.5, "end": 4, "by_epoch": False},
        resume=resume,
        experiment_name=f"{folder.name}-{epochs}",
        log_level="ERROR",
    )
    # What an evaluator leaves behind: a numpy scalar.
    runner.message_hub.update_info("best_score", np.float32(0.25))
    runner.train()
    return runner


@pytest.fixture
def allow_list() -> Iterator[None]:
    """The allow-list of this test: empty at the start, restored at the end."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


def test_a_real_checkpoint_resumes(tmp_path: Path, allow_list: None) -> None:
    train_toy(tmp_path / "two", epochs=1, resume=False)
    checkpoint = tmp_path / "two" / "epoch_1.pth"
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_checkpoint(Toy(), str(checkpoint))  # what torch says without our list
    allow_checkpoint_classes()
    allow_checkpoint_classes()
    resumed = train_toy(tmp_path / "two", epochs=2, resume=True)
    whole = train_toy(tmp_path / "one", epochs=2, resume=False)
    history = resumed.message_hub.get_scalar("train/loss")
    assert (resumed.epoch, resumed.iter) == (2, 4)
    np.testing.assert_array_equal(history.data[0], whole.message_hub.get_scalar("train/loss").data[0])
    assert history.statistics("min") == min(history.data[0])
    assert torch.equal(resumed.model.value, whole.model.value)
    assert torch.load(checkpoint)["message_hub"]["runtime_info"]["best_score"] == np.float32(0.25)


def test_a_checkpoint_of_another_numpy_loads(allow_list: None) -> None:
    allow_checkpoint_classes()
    file = io.BytesIO()
    torch.save(HistoryBuffer([1.0, 2.0], [1, 1]), file, _use_new_zipfile_serialization=False)
    raw = file.getvalue()
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        other = raw.replace(b"numpy._core.multiarray", name).replace(b"numpy.core.multiarray", name)
        assert name in other
        assert torch.load(io.BytesIO(other)).data[0].tolist() == [1.0, 2.0]


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def attacks(marker: Path) -> dict[str, Any]:
    command = f"touch {marker}"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, f"__import__('os').system({command!r})"),
        "subprocess": Call(subprocess.call, ["touch", str(marker)]),
        "numpy's file functions": Call(np.fromfile, str(marker)),
        "getattr on what __import__ gives": Call(getattr, Call(__import__, "os"), "system"),
        "getattr from a statistic to its globals": Call(getattr, Call(getattr, HistoryBuffer, "min"), "__globals__"),
        "getattr of a statistic's name on another class": Call(getattr, np.ndarray, "min"),
        "getattr of another method": Call(getattr, HistoryBuffer, "register_statistics"),
        "getattr of a private attribute": Call(getattr, HistoryBuffer, "__init__"),
        "calling a statistic": Call(HistoryBuffer.min, HistoryBuffer([1.0], [1])),
    }


@pytest.mark.parametrize("name", attacks(Path("marker")))
def test_a_malicious_checkpoint_is_still_refused(name: str, tmp_path: Path, allow_list: None) -> None:
    marker, checkpoint = tmp_path / "marker", tmp_path / "evil.pth"
    allow_checkpoint_classes()
    torch.save({"state_dict": {}, "evil": attacks(marker)[name]}, checkpoint)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_checkpoint(Toy(), str(checkpoint))
    assert not marker.exists()


def test_only_what_is_needed_is_allowed(allow_list: None) -> None:
    allow_checkpoint_classes()
    allowed = torch.serialization.get_safe_globals()
    names = {entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}" for entry in allowed}
    core = {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
    dtypes = {f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64", "Int32", "Bool")}
    others = {"builtins.getattr", "mmengine.logging.history_buffer.HistoryBuffer", "numpy.ndarray", "numpy.dtype"}
    assert names == core | dtypes | others
    assert getattr not in [entry[0] for entry in allowed if isinstance(entry, tuple)]
