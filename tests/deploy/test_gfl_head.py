"""Prediction of the voting head: mmdet's candidates, the rule over all levels, the canvas, the original image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.checkpoint import load_model
from ld_deploy.models import GFLVotingHead, PadMeanPreprocessor

ORACLES = Path(__file__).parents[1] / "oracles"


@pytest.fixture(scope="module")
def head(tiny_config: Path) -> Any:
    torch.manual_seed(0)
    return load_model(tiny_config, None).bbox_head


def random_maps(classes: int, *, canvas_hw: tuple[int, int], seed: int = 0) -> tuple[list[Any], list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(-(-canvas_hw[0] // s), -(-canvas_hw[1] // s)) for s in (8, 16, 32, 64, 128)]
    scores = [torch.randn(1, classes, *shape, generator=generator) for shape in shapes]
    edges = [torch.randn(1, 68, *shape, generator=generator) * 3 for shape in shapes]
    return scores, edges


@pytest.mark.parametrize("shift", [-9.0, -3.5, 0.0])  # weight sums below 1, between 1 and 5, and above
def test_losses_of_all_levels_at_once_are_mmdets(tiny_config: Path, shift: float) -> None:
    config = Config.fromfile(tiny_config).model
    plain = {**config.bbox_head, "type": "GFLHead"}
    heads = [
        MODELS.build({**kind, "train_cfg": config.train_cfg, "test_cfg": config.test_cfg})
        for kind in (config.bbox_head, plain)
    ]
    instances = [
        InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.zeros(len(boxes), dtype=torch.long))
        for boxes in ([[8.0, 8.0, 40.0, 40.0], [30.0, 10.0, 90.0, 60.0]], [], [[0.0, 0.0, 95.0, 63.0]])
    ]
    metas = [{"img_shape": (64, 96), "pad_shape": (64, 96)}] * 3
    found = []
    for head in heads:
        generator = torch.Generator().manual_seed(0)
        shapes = [(-(-64 // s), -(-96 // s)) for s in (8, 16, 32, 64, 128)]
        maps = [
            [(torch.randn(3, channels, *shape, generator=generator) + offset).requires_grad_() for shape in shapes]
            for channels, offset in ((2, shift), (68, 0.0))
        ]
        losses = head.loss_by_feat(*maps, instances, metas)
        sums = {
            name: torch.stack([torch.as_tensor(each) for each in value]).sum() if isinstance(value, list) else value
            for name, value in losses.items()
        }
        torch.stack(list(sums.values())).sum().backward()
        found.append((sums, [level.grad for kind in maps for level in kind]))
    for name, value in found[1][0].items():
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-5, atol=1e-6)
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)


META = {"img_shape": (60, 90), "ori_shape": (120, 200), "scale_factor": (0.45, 0.5), "batch_input_shape": (64, 96)}


def test_boxes_are_voted_on_the_canvas_then_mapped_and_clipped(head: Any) -> None:
    maps = random_maps(2, canvas_hw=(64, 96))
    canvas = head.predict_by_feat(*maps, batch_img_metas=[{**META, "img_shape": (64, 96)}], rescale=False)[0]
    original = head.predict_by_feat(*maps, batch_img_metas=[META], rescale=True)[0]
    mapped = canvas.bboxes / torch.tensor([0.45, 0.5, 0.45, 0.5])
    mapped[:, 0::2] = mapped[:, 0::2].clamp(0, 200)
    mapped[:, 1::2] = mapped[:, 1::2].clamp(0, 120)
    inside = (mapped[:, 2] > mapped[:, 0]) & (mapped[:, 3] > mapped[:, 1])
    assert len(canvas) > 20
    torch.testing.assert_close(original.bboxes, mapped[inside])
    torch.testing.assert_close(original.scores, canvas.scores[inside])


def test_best_candidates_over_all_levels(head: Any) -> None:
    maps = random_maps(2, canvas_hw=(64, 96))
    few = ConfigDict({**head.test_cfg, "pre_nms_top_k": 7})
    result = head.predict_by_feat(*maps, batch_img_metas=[META], cfg=few)[0]
    best = torch.cat([level.flatten() for level in maps[0]]).sigmoid().sort(descending=True).values[:7]
    assert 0 < len(result) <= 7
    assert result.scores.min() >= best[-1]
    torch.testing.assert_close(result.scores[0], best[0])


def test_another_nms_type_is_mmdet_own(head: Any) -> None:
    maps = random_maps(2, canvas_hw=(64, 96))
    plain = ConfigDict({**head.test_cfg, "nms": {"type": "nms", "iou_threshold": 0.6}})
    got = head.predict_by_feat(*maps, batch_img_metas=[META], cfg=plain)[0]
    expected = GFLHead.predict_by_feat(head, *maps, batch_img_metas=[META], cfg=plain)[0]
    torch.testing.assert_close(got.bboxes, expected.bboxes)
    voted = head.predict_by_feat(*maps, batch_img_metas=[META])[0]
    assert len(voted) != len(got) or not torch.allclose(voted.bboxes, got.bboxes)


@pytest.mark.parametrize(
    ("kind", "nms", "tolerance_px"),
    [("nms", {"type": "nms", "iou_threshold": 0.6}, 1e-3), ("vote", {"type": "cluster_diou_nms"}, 0.02)],
)
def test_published_detections(head: Any, kind: str, nms: dict[str, Any], tolerance_px: float) -> None:
    with np.load(ORACLES / "gfl_inference.npz") as file:
        arrays = {name: file[name] for name in file.files}
    maps = [[torch.tensor(arrays[f"{part}.{level}"]).float() for level in range(5)] for part in ("cls", "reg")]
    metas = [{"img_shape": tuple(int(side) for side in hw), "scale_factor": (1, 1)} for hw in arrays["img_shape"]]
    published = GFLVotingHead(
        num_classes=20,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        anchor_generator={
            "type": "AnchorGenerator",
            "ratios": [1.0],
            "octave_base_scale": 8,
            "scales_per_octave": 1,
            "strides": [8, 16, 32, 64, 128],
        },
        test_cfg=ConfigDict({**head.test_cfg, "nms": nms, "score_thr": 0.05}),
    )
    for image, found in enumerate(published.predict_by_feat(*maps, batch_img_metas=metas)):
        expected = arrays[f"{kind}.pre1000.rescale0.{image}.dets"]
        labels = arrays[f"{kind}.pre1000.rescale0.{image}.labels"]
        assert len(found) == len(expected) > 20
        same = torch.tensor(labels)[:, None] == found.labels
        same &= (torch.tensor(expected[:, 4])[:, None] - found.scores).abs() < 1e-5
        same &= (torch.tensor(expected[:, None, :4]) - found.bboxes).abs().amax(dim=2) < tolerance_px
        assert bool(same.any(dim=1).all())
        assert bool(same.any(dim=0).all())


def test_no_candidate_gives_no_detection(head: Any) -> None:
    scores, edges = random_maps(2, canvas_hw=(64, 96))
    result = head.predict_by_feat([s * 0 - 20 for s in scores], edges, batch_img_metas=[META])[0]
    assert len(result) == 0
    assert result.bboxes.shape == (0, 4)


def preprocessor(**kwargs: Any) -> PadMeanPreprocessor:
    return PadMeanPreprocessor(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32, **kwargs
    )


def test_padding_is_the_rounded_mean_in_the_image_own_order() -> None:
    image = torch.zeros(3, 20, 40, dtype=torch.uint8)
    inputs = preprocessor()({"inputs": [image], "data_samples": None})["inputs"]
    assert inputs.shape == (1, 3, 32, 64)
    # R is padded with 124 and normalised by (124 - 123.675) / 58.395; the image itself is 0.
    np.testing.assert_allclose(inputs[0, 0, 25, 50], (124 - 123.675) / 58.395, rtol=1e-4)
    np.testing.assert_allclose(inputs[0, 2, 25, 50], (104 - 103.53) / 57.375, rtol=1e-4)
    np.testing.assert_allclose(inputs[0, 0, 0, 0], -123.675 / 58.395, rtol=1e-5)


def test_padding_to_a_fixed_canvas_and_to_the_largest_of_a_batch() -> None:
    small, large = torch.zeros(3, 20, 40, dtype=torch.uint8), torch.zeros(3, 50, 30, dtype=torch.uint8)
    assert preprocessor()({"inputs": [small, large], "data_samples": None})["inputs"].shape == (2, 3, 64, 64)
    fixed = preprocessor(input_hw=(96, 128))({"inputs": [small], "data_samples": None})
    assert fixed["inputs"].shape == (1, 3, 96, 128)


def test_padding_needs_a_mean() -> None:
    with pytest.raises(ValueError, match="needs mean and std"):
        PadMeanPreprocessor(pad_size_divisor=32)
