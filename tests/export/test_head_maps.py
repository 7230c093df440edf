from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_export.from_checkpoint import export_checkpoint
from ld_export.head_maps import HeadMaps
from ld_runtime.errors import ConfigError


def test_the_maps_are_those_of_mmdet(model: Any) -> None:
    from mmdet.structures import DetDataSample

    images = torch.randint(0, 255, (2, 160, 192, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    meta = {"img_shape": (160, 192), "ori_shape": (160, 192), "scale_factor": (1, 1)}
    data = {"inputs": [one.permute(2, 0, 1) for one in images], "data_samples": [DetDataSample(metainfo=meta)] * 2}
    maps = HeadMaps(model).eval()
    with torch.no_grad():
        got = maps(images)
        expected = model.bbox_head(model.extract_feat(model.data_preprocessor(data, False)["inputs"]))
    assert maps.strides == (8, 16, 32, 64, 128)
    assert [tuple(one.shape) for one in got[::5]] == [(2, 3, 20, 24), (2, 68, 20, 24)]
    for one, other in zip(got, (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(one, other)


def test_another_head_is_refused(model: Any) -> None:
    from mmdet.registry import MODELS

    other = MODELS.build(
        {
            "type": "RetinaNet",
            "data_preprocessor": {"type": "DetDataPreprocessor"},
            "backbone": {"type": "ResNet", "depth": 18, "base_channels": 8, "init_cfg": None},
            "neck": {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 32, "num_outs": 5},
            "bbox_head": {"type": "RetinaHead", "num_classes": 3, "in_channels": 32, "feat_channels": 32},
        }
    )
    with pytest.raises(ConfigError, match=r"needs a GFL head .* got RetinaHead: set model.bbox_head.type"):
        HeadMaps(other)


def test_the_published_rotated_head_is_refused(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "rotated" / "retina_r18_dota_gwd_1x.py"
    with pytest.raises(
        ConfigError, match=r"a RotatedGFLHead .* got RotatedRetinaHead: .* configs/_base_/rotated_gfl\.py"
    ):
        export_checkpoint(config, checkpoint=None, output=tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())


def test_priors_elsewhere_are_refused(model: Any) -> None:
    other = copy.deepcopy(model)
    other.bbox_head.prior_generator.center_offset = 0.5
    with pytest.raises(
        ConfigError, match=r"one prior per location .* with center_offset 0.5: use the anchor_generator"
    ):
        HeadMaps(other)
