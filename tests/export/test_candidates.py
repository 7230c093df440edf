from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from ld_export.candidates import CandidateModel, HeadMaps, RawModel
from ld_runtime.errors import ConfigError
from ld_runtime.model_card import CandidateRule

CANVAS = (160, 192)
RULE = CandidateRule(per_level_top_k=300, pre_nms_top_k=400)


def images(count: int = 2, canvas: tuple[int, int] = CANVAS) -> torch.Tensor:
    coarse = torch.rand(count, 3, 10, 12, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, size=canvas, mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@torch.no_grad()
def by_mmdet(model: Any, batch: torch.Tensor) -> list[Any]:
    """mmdet's own candidates: its preprocessing, forward and per-level rule, without NMS."""
    samples = [model_sample(one) for one in batch]
    data = {"inputs": [one.permute(2, 0, 1) for one in batch], "data_samples": samples}
    data = model.data_preprocessor(data, False)
    maps = model.bbox_head(model.extract_feat(data["inputs"]))
    cfg = ConfigDict(nms_pre=RULE.per_level_top_k, score_thr=0.05, min_bbox_size=0, nms={"type": "nms"})
    metas = [one.metainfo for one in data["data_samples"]]
    found: list[Any] = model.bbox_head.predict_by_feat(*maps, batch_img_metas=metas, cfg=cfg, with_nms=False)
    return found


def model_sample(image: torch.Tensor) -> Any:
    from mmdet.structures import DetDataSample

    height, width = image.shape[:2]
    return DetDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1, 1)})


def keys(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> np.ndarray[Any, Any]:
    """Rows in an order of their own: label, then position."""
    rows = torch.cat([labels[:, None].float(), boxes, scores[:, None]], 1).numpy()
    return rows[np.lexsort(rows[:, :5].round(1).T[::-1])]


@pytest.mark.parametrize("dynamic", [False, True])
def test_mmdet_finds_the_same_candidates(model: Any, dynamic: bool) -> None:
    batch = images()
    with torch.no_grad():
        boxes, scores, labels = CandidateModel(HeadMaps(model), rule=RULE, dynamic=dynamic).eval()(batch)
    assert boxes.shape == (2, 400, 4)
    assert scores.shape == (2, 400)
    assert labels.dtype == torch.int64
    for index, found in enumerate(by_mmdet(model, batch)):
        best = found.scores.argsort(descending=True)[:400]
        above = scores[index] > 0.05
        assert 50 < int(above.sum()) == len(best)
        expected = keys(found.bboxes[best], found.scores[best], found.labels[best])
        got = keys(boxes[index][above], scores[index][above], labels[index][above])
        np.testing.assert_allclose(got, expected, atol=2e-3)
        assert bool((scores[index][:-1] >= scores[index][1:]).all())


def test_boxes_are_clipped_to_the_canvas(model: Any) -> None:
    with torch.no_grad():
        boxes, _, _ = CandidateModel(HeadMaps(model), rule=RULE, dynamic=False).eval()(images())
    assert float(boxes.min()) == 0
    assert float(boxes[..., 0::2].max()) == CANVAS[1]
    assert float(boxes[..., 1::2].max()) == CANVAS[0]


@pytest.mark.parametrize(("dynamic", "count"), [(True, 400), (False, 3 * (20 * 20 + 10 * 10 + 5 * 5 + 3 * 3 + 2 * 2))])
def test_a_small_dynamic_canvas_still_gives_a_constant_number(model: Any, dynamic: bool, count: int) -> None:
    rule = CandidateRule(per_level_top_k=2000, pre_nms_top_k=400 if dynamic else 10**6)
    with torch.no_grad():
        outputs = CandidateModel(HeadMaps(model), rule=rule, dynamic=dynamic).eval()(images(1, (160, 160)))
        again = CandidateModel(HeadMaps(model), rule=rule, dynamic=not dynamic).eval()(images(1, (160, 160)))
    assert outputs[1].shape == (1, count)
    common = min(count, again[1].shape[1])
    np.testing.assert_allclose(outputs[1][:, :common], again[1][:, :common])


def test_absent_locations_have_no_score(model: Any) -> None:
    rule = CandidateRule(per_level_top_k=2000, pre_nms_top_k=9000)
    with torch.no_grad():
        boxes, scores, _ = CandidateModel(HeadMaps(model), rule=rule, dynamic=True).eval()(images(1, (160, 160)))
    present = 3 * (20 * 20 + 10 * 10 + 5 * 5 + 3 * 3 + 2 * 2)
    assert int((scores > 0).sum()) == present
    assert not scores[:, present:].any()
    assert bool(torch.isfinite(boxes).all())


def test_raw_gives_the_head_maps(model: Any) -> None:
    with torch.no_grad():
        outputs = RawModel(HeadMaps(model)).eval()(images(1))
    assert [one.shape[1] for one in outputs] == [3] * 5 + [68] * 5
    assert outputs[0].shape[2:] == (20, 24)


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


def test_priors_elsewhere_are_refused(model: Any) -> None:
    other = copy.deepcopy(model)
    other.bbox_head.prior_generator.center_offset = 0.5
    with pytest.raises(
        ConfigError, match=r"one prior per location .* with center_offset 0.5: use the anchor_generator"
    ):
        HeadMaps(other)
