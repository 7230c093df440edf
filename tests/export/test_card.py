from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ld_export.card import card_from_config
from ld_runtime.errors import ConfigError
from ld_runtime.model_card import CandidateRule, ModelCard, NmsSettings


@pytest.fixture
def config(config_file: Path) -> Any:
    from ld_deploy import compat

    compat.install()
    from ld_deploy.config import load_config

    return load_config(config_file)


def test_what_the_config_says(config: Any) -> None:
    card = card_from_config(config, weights_sha256="ab", tool_versions={"torch": "1"})
    assert card.preprocess.resize == "keep_ratio"
    assert card.preprocess.scale == (224, 160)
    assert card.preprocess.input_hw is None
    assert card.preprocess.size_divisor == 32
    assert card.preprocess.mean == (123.675, 116.28, 103.53)
    assert card.preprocess.std == (58.395, 57.12, 57.375)
    assert card.preprocess.pad_value == (104, 116, 124)  # B, G, R
    assert card.preprocess.channel_order == "rgb"
    assert card.class_names == ("ant", "bee", "cat")
    assert card.nms == NmsSettings(score_threshold=0.05, max_detections=30)
    assert card.candidates == CandidateRule(per_level_top_k=300, pre_nms_top_k=400)
    assert (card.weights_sha256, card.training_config, card.tool_versions) == ("ab", "small.py", {"torch": "1"})
    assert ModelCard.from_json(card.to_json()) == card


def test_export_options_win(config: Any) -> None:
    card = card_from_config(config, weights_sha256="", score_threshold=0.3, max_detections=5)
    assert (card.nms.score_threshold, card.nms.max_detections) == (0.3, 5)


def test_a_fixed_canvas_switches_to_letterbox(config: Any) -> None:
    rule = card_from_config(config, weights_sha256="", input_hw=(160, 192)).preprocess
    assert (rule.resize, rule.scale, rule.input_hw) == ("letterbox", None, (160, 192))


def test_letterbox_and_stretch_configs(config: Any) -> None:
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline[1] = {"type": "Letterbox", "input_hw": (96, 128)}
    rule = card_from_config(config, weights_sha256="").preprocess
    assert (rule.resize, rule.input_hw) == ("letterbox", (96, 128))
    pipeline[1] = {"type": "Resize", "scale": (128, 96), "keep_ratio": False}  # width, height
    rule = card_from_config(config, weights_sha256="").preprocess
    assert (rule.resize, rule.input_hw) == ("stretch", (96, 128))


def test_a_network_of_bgr(config: Any) -> None:
    config.model.data_preprocessor.update(mean=[103.53, 116.28, 123.675], std=[1.0, 2.0, 3.0], bgr_to_rgb=False)
    rule = card_from_config(config, weights_sha256="").preprocess
    assert rule.channel_order == "bgr"
    assert rule.mean == (123.675, 116.28, 103.53)
    assert rule.std == (3.0, 2.0, 1.0)
    assert rule.pad_value == (104, 116, 124)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.test_cfg.nms.type": "nms"}, r"nms.type is 'nms', .* inherit configs/_base_/gfl.py"),
        ({"model.test_cfg.nms.sigma": 1}, r"keys that cluster_diou_nms does not know: sigma"),
        ({"model.test_cfg.min_bbox_size": 4}, r"min_bbox_size is 4.* set it to 0"),
        ({"model.test_cfg.nms_pre": -1}, r"must be 1 or more, got -1 and 400: set nms_pre=1000"),
        ({"model.test_cfg.score_thr": 1.5}, r"from 0 to below 1, got 1.5"),
        ({"model.test_cfg.max_per_img": 0}, r"max_detections must be 1 or more, got 0"),
        ({"model.bbox_head.num_classes": 80}, r"head has 80 classes, the test data set names 3: set model.bbox_head"),
        ({"model.data_preprocessor.type": "DetDataPreprocessor"}, r"is DetDataPreprocessor, .*type = 'PadMeanPrepr"),
        ({"model.data_preprocessor.mean": None}, r"needs mean and std of three channels, got mean=None"),
        ({"test_dataloader.dataset.metainfo": {"classes": ()}}, r"CocoDataset names no classes: set .*metainfo"),
        ({"test_dataloader": {}}, r"no test_dataloader.dataset"),
    ],
)
def test_what_cannot_be_deployed(config: Any, change: dict[str, Any], message: str) -> None:
    for dotted, value in change.items():
        *path, last = dotted.split(".")
        target = config
        for key in path:
            target = target[key]
        target[last] = value
    with pytest.raises(ConfigError, match=message):
        card_from_config(config, weights_sha256="")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "RandomFlip"}, r"one Resize or Letterbox, .* LoadImageFromFile, RandomFlip, LoadAnnotations, Pack"),
        ({"type": "Resize", "scale_factor": 0.5}, r"Resize needs scale=\(two edges\) and cv2's bilinear"),
        ({"type": "Resize", "scale": (9, 9), "interpolation": "area"}, r"cv2's bilinear, got .*area"),
        ({"type": "Resize", "scale": (100, 96)}, r"multiples of 32, got 96 100: the nearest are --input-hw 96 96"),
    ],
)
def test_what_resize_cannot_be_deployed(config: Any, step: dict[str, Any], message: str) -> None:
    config.test_dataloader.dataset.pipeline[1] = step
    with pytest.raises(ConfigError, match=message):
        card_from_config(config, weights_sha256="")


@pytest.mark.parametrize(("input_hw", "nearest"), [((160, 190), "160 192"), ((0, 64), "32 64"), ((-32, 64), "32 64")])
def test_a_canvas_that_is_no_multiple(config: Any, input_hw: tuple[int, int], nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"multiples of 32, got .*: the nearest are --input-hw {nearest}"):
        card_from_config(config, weights_sha256="", input_hw=input_hw)


def test_candidates_need_no_voting_nms(config: Any) -> None:
    config.model.test_cfg.nms = {"type": "nms", "iou_threshold": 0.6}
    assert card_from_config(config, weights_sha256="", nms_kind="none").nms_kind == "none"
