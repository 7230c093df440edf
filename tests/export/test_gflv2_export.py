"""A GFLv2 student exports, verifies and runs as a GFL student does; heads that cannot be exported are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from ld_export.from_checkpoint import export_checkpoint
from ld_export.head_maps import HeadMaps
from ld_export.nms_function import OUTPUTS
from ld_export.onnx_check import open_session
from ld_export.verify import verify
from ld_runtime import Detector
from ld_runtime.errors import ConfigError


@pytest.fixture(scope="module")
def gflv2_config(config_file: Path) -> Path:
    path = config_file.with_name("small_gflv2.py")
    path.write_text(
        f"_base_ = {str(config_file)!r}\nmodel = dict(bbox_head=dict(type='GFLv2VotingHead'))\n", encoding="utf-8"
    )
    return path


@pytest.fixture(scope="module")
def gflv2(gflv2_config: Path) -> Any:
    """Random weights, spread so that classes and qualities differ."""
    from ld_deploy import compat

    compat.install()
    from ld_deploy.checkpoint import load_model

    torch.manual_seed(3)
    detector = load_model(gflv2_config, None)
    head = detector.bbox_head
    with torch.no_grad():
        head.gfl_cls.weight.normal_(0, 0.12)
        head.gfl_cls.bias.fill_(-1.5)
        head.gfl_reg.weight.normal_(0, 0.4)
        head.reg_conf[0].weight.normal_(0, 1.0)
        head.reg_conf[2].weight.normal_(0, 1.0)
        seen: list[torch.Tensor] = []
        hook = head.reg_conf.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        head(detector.extract_feat(torch.randn(1, 3, 160, 192)))
        hook.remove()
        head.reg_conf[2].bias -= seen[0].mean()  # around a half
    return detector


@pytest.fixture(scope="module")
def gflv2_files(gflv2: Any, gflv2_config: Path, checkpoint: Path) -> tuple[Path, Path]:  # `checkpoint`: the truth
    weights = gflv2_config.with_suffix(".pth")
    torch.save({"state_dict": gflv2.state_dict(), "meta": {}}, weights)
    path = gflv2_config.with_suffix(".onnx")
    export_checkpoint(gflv2_config, checkpoint=weights, output=path)
    return weights, path


def test_pytorch_sees_what_a_gflv2_file_sees(gflv2: Any, gflv2_files: tuple[Path, Path]) -> None:
    from mmdet.structures import DetDataSample

    shape = (320, 160)
    coarse = np.random.default_rng(9).integers(0, 255, (2, 12, 14, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(one, shape[::-1], interpolation=cv2.INTER_CUBIC) for one in coarse])
    meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1, 1)}
    data = {
        "inputs": [torch.from_numpy(one).permute(2, 0, 1) for one in images],
        "data_samples": [DetDataSample(metainfo=meta) for _ in images],
    }
    with torch.no_grad():
        expected = [sample.pred_instances for sample in gflv2.test_step(data)]
    model = onnx.load(gflv2_files[1])
    counts, boxes, scores, labels = open_session(model).run(list(OUTPUTS), {"images": images})
    for index, one in enumerate(expected):
        count = int(counts[index, 0])
        assert count == len(one) >= 10
        np.testing.assert_allclose(scores[index, :count], one.scores, atol=1e-5)
        np.testing.assert_array_equal(labels[index, :count], one.labels)
        np.testing.assert_allclose(boxes[index, :count], one.bboxes, atol=0.02)
    operators = {node.op_type for node in model.graph.node}
    assert operators.isdisjoint({"MatMul", "Gemm", "BatchNormalization", "NonZero"})
    assert {"Softplus", "TopK", "GFLDetect"} <= operators


def test_the_quality_is_in_the_exported_scores(gflv2: Any, gflv2_files: tuple[Path, Path]) -> None:
    images = np.random.default_rng(1).integers(0, 255, (1, 160, 192, 3), dtype=np.uint8)
    maps = HeadMaps(gflv2).eval()
    with torch.no_grad():
        both = maps(torch.from_numpy(images))
        pixels = (torch.from_numpy(images).float().permute(0, 3, 1, 2)[:, [2, 1, 0]] - maps.mean) / maps.std
        class_logits = gflv2.bbox_head(gflv2.extract_feat(pixels))[2]
    joint, edges = both[:5], both[5:]
    quality = joint[0].sigmoid() / class_logits[0].sigmoid()
    assert edges[0].shape == (1, 68, 20, 24)
    assert float(quality.std()) > 0.05
    assert 0 < float(quality.min()) < float(quality.max()) < 1 + 1e-5
    count, _, scores, _ = open_session(onnx.load(gflv2_files[1])).run(list(OUTPUTS), {"images": images})
    assert count[0, 0] > 0
    assert scores.max() == pytest.approx(max(float(level.sigmoid().max()) for level in joint), abs=1e-4)


def test_a_gflv2_file_verifies_and_runs(gflv2_config: Path, gflv2_files: tuple[Path, Path], data_root: Path) -> None:
    weights, path = gflv2_files
    result = verify(gflv2_config, checkpoint=weights, models=[path], explained=True)
    agreement = result.report.agreement[path.name]
    assert result.report.passed
    assert agreement.matched_share == 1
    assert agreement.reference_boxes > 60
    explanation = result.explanations[path.name]
    assert explanation.owner is None
    assert all(step.moved == 0 for step in (*explanation.chain, *explanation.singles))
    assert all(level.class_logits.max < 1e-3 for level in explanation.levels)  # with the quality in them
    found = Detector(path)(str(data_root / "0.png"))
    assert len(found) > 0


@pytest.mark.parametrize("kind", ["ATSSDistributionHead", "FCOSDistributionHead", "RetinaDistributionHead"])
def test_a_head_that_cannot_be_exported_is_named(kind: str) -> None:
    from ld_deploy import compat

    compat.install()
    from ld_deploy import models

    class Model:
        bbox_head = getattr(models, kind)(
            num_classes=2,
            in_channels=32,
            feat_channels=32,
            loss_cls={"type": "FocalLoss", "use_sigmoid": True},
            loss_bbox={"type": "GIoULoss"},
        )

    with pytest.raises(ConfigError, match=f"needs a GFL head .*GFLv2VotingHead.*, got {kind}: .*distil a GFL"):
        HeadMaps(Model())
