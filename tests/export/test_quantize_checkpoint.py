"""A quantization-aware checkpoint becomes a file that computes what PyTorch computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from ld_export import deployed_file
from ld_export.quantize import quantize
from ld_export.quantize_report import report_path
from ld_runtime.onnx_file import INPUT

KEPT = "bbox_head.gfl_cls"


@pytest.fixture(scope="module")
def post_training(student: Path, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("calibrated") / "student.int8.onnx"
    images = sorted(data_root.glob("?.png"))
    options: dict[str, Any] = {"methods": ("max",), "keep_float": (KEPT,), "threads": 1}
    quantize(student, output=output, calibration=images, compared=images[:1], **options)
    return output


@pytest.fixture(scope="module")
def config(post_training: Path, config_file: Path) -> Path:
    path = post_training.parent / "int8.py"
    path.write_text(
        f"_base_ = {str(config_file)!r}\n"
        f"model = dict(type='QuantizedDetector', quantization=dict(scales={str(report_path(post_training))!r}))\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def trained(config: Path, checkpoint: Path) -> Path:
    """As after a training of no steps: the float weights, folded, and the scales."""
    from ld_deploy import compat

    compat.install()
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    from ld_deploy.checkpoint import read_checkpoint
    from ld_deploy.config import load_config

    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(load_config(config).model)
    model.load_state_dict(read_checkpoint(checkpoint)["state_dict"], strict=False)
    path = config.with_name("trained.pth")
    torch.save({"state_dict": model.state_dict(), "meta": read_checkpoint(checkpoint)["meta"]}, path)
    return path


@pytest.fixture(scope="module")
def exported(config: Path, trained: Path) -> Path:
    from ld_export.from_checkpoint import export_checkpoint

    output = config.with_name("trained.int8.onnx")
    card = export_checkpoint(config, checkpoint=trained, output=output)
    assert card.precision == "int8"
    return output


def maps_of_file(path: Path, canvas: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    trunk, _ = deployed_file.split(deployed_file.read(path)[0])
    session = onnxruntime.InferenceSession(trunk.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[np.ndarray[Any, Any]] = session.run(None, {INPUT: canvas})
    return found


def test_it_is_the_post_training_file_again(exported: Path, post_training: Path) -> None:
    one, other = (deployed_file.read(path)[0] for path in (exported, post_training))
    values = {
        index: {init.name: numpy_helper.to_array(init) for init in model.graph.initializer}
        for index, model in enumerate((one, other))
    }
    quantized = [name for name in values[1] if name.endswith((".quantized", "scale"))]
    assert len(quantized) > 60
    for name in quantized:
        if name.endswith(".quantized"):  # torch's exporter folded the one, our code the other
            assert np.abs(values[0][name].astype(int) - values[1][name].astype(int)).max() <= 1
        else:
            assert values[0][name] == pytest.approx(values[1][name], rel=1e-5), name


def test_the_file_computes_what_pytorch_computed(exported: Path, config: Path, trained: Path, student: Path) -> None:
    import torch

    from ld_deploy.checkpoint import load_model
    from ld_export.head_maps import HeadMaps

    images = np.random.default_rng(0).integers(0, 256, (16, 64, 160, 3), np.uint8)
    with torch.no_grad():
        network = HeadMaps(load_model(config, trained)).eval()
        found = [one.numpy() for one in network(torch.from_numpy(images))]
    apart = largest_differences(found, maps_of_file(exported, images))
    # A value near the middle between two steps may fall to either side, and much of what follows in its image differs.
    assert (apart < 1e-4).sum() >= len(images) / 2
    assert largest_differences(found, maps_of_file(student, images)).min() > 0.1  # than the float file's


def largest_differences(some: list[np.ndarray[Any, Any]], others: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """By image, over all maps."""
    differences = [np.abs(one - other) for one, other in zip(some, others, strict=True)]
    return np.max([one.reshape(len(one), -1).max(axis=1) for one in differences], axis=0)


def test_a_layer_that_stays_float(exported: Path) -> None:
    model, _ = deployed_file.read(exported)
    convs = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    assert {name for name in convs if not name.endswith(".dequantized")} == {f"model.{KEPT}.weight"}
