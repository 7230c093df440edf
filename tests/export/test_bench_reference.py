"""PyTorch through torch.compile beside PyTorch. Its own compiler takes minutes here: its front end runs, not that."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from ld_deploy.bench_reference import CompiledRunner, PyTorchRunner, reference_runners
from ld_runtime.errors import BackendMissingError


def failing(_graph: Any, _inputs: Any) -> Any:
    raise RuntimeError("no compiler")


# This torch warns of a variable that its own libraries set.
@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning:torch")
def test_the_compiled_network_is_the_same(
    model: Any, config_file: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.fromfile(config_file)
    eager = PyTorchRunner(model, config, settings={"precision": "fp32"})
    compiled = CompiledRunner(model, config, settings={"precision": "fp32"}, backend="eager")
    assert (compiled.name, compiled.settings) == (
        "PyTorch torch.compile",
        {"precision": "fp32", "torch_compile": "eager, default"},
    )
    torch._dynamo.reset()
    counted = torch._dynamo.utils.counters
    counted.clear()
    prepared = [eager.preprocess(eager.decode(data_root / "0.png"))]
    expected = eager.engine(prepared)
    assert not counted["stats"]  # the model itself is left as it is
    found = compiled.engine(prepared)
    assert counted["stats"]["unique_graphs"] >= 2
    assert len(expected[0]) > 3
    for name in ("bboxes", "scores", "labels"):
        torch.testing.assert_close(found[0][name], expected[0][name])
    assert compiled.finish(found, prepared) == eager.finish(expected, prepared)

    torch._dynamo.reset()
    broken = CompiledRunner(model, config, settings={}, backend=failing)  # type: ignore[arg-type]
    with pytest.raises(BackendMissingError, match=r"torch.compile does not work here \(BackendCompilerFailed: .*C\+\+"):
        broken.engine(prepared)


def test_the_report_can_join_them_by_their_weights(model: Any, config_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "trained.pth"
    meta = {"cfg": Config.fromfile(config_file).pretty_text}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    runners = reference_runners(path, "cpu")
    assert [one.name for one in runners] == ["PyTorch", "mmdet inference_detector"]
    weights = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [one.settings["checkpoint_sha256"] for one in runners] == [weights, weights]
