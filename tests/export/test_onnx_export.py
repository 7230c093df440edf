from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from ld_export import onnx_export
from ld_export.deployed_file import join, read, split
from ld_export.from_checkpoint import export_checkpoint
from ld_export.head_maps import HeadMaps
from ld_export.nms_function import OUTPUTS
from ld_export.onnx_check import (
    check_maps,
    check_tail,
    compare_candidates,
    compare_maps,
    compare_voted,
    open_session,
)
from ld_runtime import Detections, Detector
from ld_runtime.errors import CheckpointError, ConfigError, ParityError
from ld_runtime.model_card import METADATA_KEY, ModelCard
from ld_runtime.parity import compare_detections


def shapes(values: Any) -> dict[str, list[Any]]:
    return {one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in values}


def test_the_file_keeps_the_contract(student: Path) -> None:
    model = onnx.load(student)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert {(one.domain, one.version) for one in model.opset_import} == {("", 18), ("ld_deploy", 1)}
    (image,) = model.graph.input
    assert image.name == "images"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batch, height, width, channels = shapes([image])["images"]
    assert channels == 3
    assert isinstance(batch, str)
    assert "32" in height
    assert "32" in width
    assert height != width
    types = [one.type.tensor_type.elem_type for one in model.graph.output]
    assert types == [onnx.TensorProto.INT32, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64]
    assert shapes(model.graph.output) == {
        "num_detections": [batch, 1],
        "boxes": [batch, 30, 4],
        "scores": [batch, 30],
        "labels": [batch, 30],
    }
    # TensorRT takes uint8 at the input and nowhere else.
    (user,) = [node for node in model.graph.node if "images" in node.input and node.op_type != "Shape"]
    assert user.op_type == "Cast"
    assert [node.op_type for node in model.graph.node if node.domain] == ["GFLDetect"]
    assert [function.name for function in model.functions] == ["GFLDetect"]
    operators = {node.op_type for node in model.graph.node}
    assert operators.isdisjoint({"MatMul", "Gemm", "BatchNormalization", "NonZero"})
    assert model.producer_name == "ld-deploy"


def test_the_file_says_nothing_of_the_machine(student: Path) -> None:
    assert str(Path.cwd()).encode() not in student.read_bytes()


def test_the_card_travels_in_the_file(student: Path, checkpoint: Path) -> None:
    import hashlib

    model = onnx.load(student)
    metadata = {one.key: one.value for one in model.metadata_props}
    card = ModelCard.from_json(metadata[METADATA_KEY])
    assert card.weights_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert card.class_names == ("ant", "bee", "cat")
    assert card.training_config == "small.py"
    assert {"torch", "onnx", "mmdet", "ld-deploy"} <= set(card.tool_versions)


def by_pytorch(model: Any, images: np.ndarray[Any, Any]) -> list[Detections]:
    """mmdet's own test step on whole canvases."""
    from mmdet.structures import DetDataSample

    hw = images.shape[1:3]
    samples = [DetDataSample(metainfo={"img_shape": hw, "ori_shape": hw, "scale_factor": (1, 1)}) for _ in images]
    data = {"inputs": [torch.from_numpy(one).permute(2, 0, 1) for one in images], "data_samples": samples}
    with torch.no_grad():
        found = [sample.pred_instances for sample in model.test_step(data)]
    return [Detections(one.bboxes.numpy(), one.scores.numpy(), one.labels.numpy()) for one in found]


@pytest.mark.parametrize("shape", [(1, 160, 192), (2, 320, 160), (5, 192, 192), (1, 480, 640)])
def test_pytorch_sees_the_same_at_every_shape(model: Any, student: Path, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    coarse = rng.integers(0, 255, (shape[0], 12, 14, 3), dtype=np.uint8)
    images = np.stack([cv2.resize(one, shape[:0:-1], interpolation=cv2.INTER_CUBIC) for one in coarse])
    counts, boxes, scores, labels = open_session(onnx.load(student)).run(list(OUTPUTS), {"images": images})
    got = [Detections(*(one[i, : counts[i, 0]] for one in (boxes, scores, labels))) for i in range(shape[0])]
    expected = by_pytorch(model, images)
    agreement = compare_detections(expected, got, score_threshold=0.05, max_detections=30, iou_threshold=0.6)
    assert agreement.reference_boxes >= 10 * shape[0]
    assert agreement.matched_share == 1
    assert agreement.max_score_difference < 1e-5
    assert agreement.max_box_difference_px < 0.01


def test_candidates_with_a_fixed_canvas(candidates_file: Path) -> None:
    model = onnx.load(candidates_file)
    assert shapes(model.graph.input)["images"][1:] == [160, 192, 3]
    found = shapes(model.graph.output)
    batch = shapes(model.graph.input)["images"][0]
    assert found == {"boxes": [batch, 400, 4], "scores": [batch, 400], "labels": [batch, 400]}
    assert [function.name for function in model.functions] == ["GFLCandidates"]
    card = ModelCard.from_json({one.key: one.value for one in model.metadata_props}[METADATA_KEY])
    assert (card.nms_kind, card.preprocess.resize, card.preprocess.input_hw) == ("none", "letterbox", (160, 192))
    with pytest.raises(Exception, match="none"):
        Detector(candidates_file)


def test_raw_maps_by_the_command(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    import typer

    from ld_export.commands.export import export

    app = typer.Typer()
    app.command()(export)
    path = tmp_path / "deep" / "raw.onnx"
    arguments = [str(config_file), str(checkpoint), "-o", str(path), "--raw", "--input-hw", "160", "192"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "trace the network" in result.output
    names = [one.name for one in onnx.load(path).graph.output]
    assert names == [f"{kind}_{level}" for kind in ("class_logits", "edge_logits") for level in range(5)]


def test_nothing_is_written_when_it_does_not_agree(
    model: Any, candidates_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, card = read(candidates_file)
    traced = split(file)[0]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bbox_head.gfl_reg.bias[3] += 0.01
    monkeypatch.setattr(onnx_export, "trace", lambda *_args, **_kwargs: traced)
    path = tmp_path / "student.onnx"
    with pytest.raises(ParityError, match=r"map 5 of the exported graph differs from PyTorch's by"):
        onnx_export.export_onnx(other, card=card, output=path)
    assert list(tmp_path.iterdir()) == []
    onnx_export.export_onnx(model, card=card, output=path)  # the same graph agrees with its own model
    assert [one.name for one in tmp_path.iterdir()] == ["student.onnx"]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("strides", [8, 16, 31, 64, 128], "candidates differ from the numpy form"),
        ("per_level_top_k", 299, "candidates differ from the numpy form"),
        ("pre_nms_top_k", 399, "gives"),
    ],
)
def test_a_wrong_decode_is_seen(model: Any, candidates_file: Path, attribute: str, value: Any, message: str) -> None:
    file, card = read(candidates_file)
    trunk, tail = split(file)
    check_maps(trunk, network=HeadMaps(model).eval(), card=card)
    check_tail(file, card=card, strides=(8, 16, 32, 64, 128))
    node = copy.deepcopy(tail.nodes[0])
    (wrong,) = [one for one in node.attribute if one.name == attribute]
    wrong.CopyFrom(onnx.helper.make_attribute(attribute, value))
    with pytest.raises(ParityError, match=message):
        check_tail(join(trunk, replace(tail, nodes=(node,))), card=card, strides=(8, 16, 32, 64, 128))


def rows(*values: tuple[float, float, int]) -> tuple[Any, Any, Any]:
    """Candidates of x1, score, label."""
    boxes = np.array([[x1, 0, 100, 100] for x1, _, _ in values], np.float32).reshape(-1, 4)
    return boxes, np.array([one[1] for one in values], np.float32), np.array([one[2] for one in values])


def test_candidates_are_compared_as_sets_above_the_cut() -> None:
    one = rows((0, 0.9, 0), (5, 0.8, 1), (9, 0.1, 0))
    compare_candidates(one, rows((5.001, 0.8, 1), (0, 0.9, 0), (50, 0.1, 2)))  # order and the last do not matter
    for wrong in (
        rows((0.003, 0.9, 0), (5, 0.8, 1), (9, 0.1, 0)),
        rows((0, 0.9, 1), (5, 0.8, 1), (9, 0.1, 0)),
        rows((0, 0.9, 0), (5, 0.800002, 1), (9, 0.1, 0)),
        rows((0, 0.9, 0), (0, 0.9, 0), (9, 0.1, 0)),
    ):
        with pytest.raises(ParityError, match=r"1 of 2 candidates differ"):
            compare_candidates(one, wrong)
    with pytest.raises(ParityError, match="gives"):
        compare_candidates(one, rows((0, 0.9, 0)))
    with pytest.raises(ParityError, match=r"all 0 candidates"):
        compare_candidates(rows(), rows())
    with pytest.raises(ParityError, match=r"all 2 candidates .* same score, 0.5000: nothing can be compared"):
        compare_candidates(rows((0, 0.5, 0), (1, 0.5, 0)), rows((0, 0.5, 0), (1, 0.5, 0)))


def test_maps_and_voted_boxes_are_compared() -> None:
    maps = [np.array([[1.0, -4.0]])]
    compare_maps(maps, [maps[0] + 0.0003])
    for wrong in (maps[0] + 0.0005, maps[0] * np.nan):
        with pytest.raises(ParityError, match="map 0"):
            compare_maps(maps, [wrong])
    one = rows((0, 0.9, 0), (5, 0.8, 1))
    assert compare_voted(one, rows((0.001, 0.9, 0), (5, 0.8, 1))) == pytest.approx(0.001)
    for other in (rows((0.003, 0.9, 0), (5, 0.8, 1)), rows((5, 0.8, 1), (0, 0.9, 0)), rows((0, 0.9, 0))):
        with pytest.raises(ParityError):
            compare_voted(one, other)


def export_with(config: Any, checkpoint: Path, output: Path) -> None:
    from ld_export.from_checkpoint import export_checkpoint

    export_checkpoint(config, checkpoint=checkpoint, output=output)


def test_bad_checkpoints(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "student.onnx"
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere.pth: train one"):
        export_with(config_file, tmp_path / "nowhere.pth", output)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"damaged.pth"):
        export_with(config_file, damaged, output)
    assert not output.exists()


def test_a_checkpoint_of_other_classes(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    from ld_deploy.config import load_config

    config = load_config(config_file)
    config.model.bbox_head.num_classes = 4
    with pytest.raises(CheckpointError, match=r"bbox_head.gfl_cls.weight is \(3, .*the model's \(4,"):
        export_with(config, checkpoint, tmp_path / "student.onnx")


def test_classes_of_head_and_data_differ(model: Any, config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    from ld_deploy.config import load_config

    config = load_config(config_file)
    config.test_dataloader.dataset.metainfo = {"classes": ("ant", "bee")}
    with pytest.raises(ConfigError, match=r"head has 3 classes, the test data set names 2"):
        export_with(config, checkpoint, tmp_path / "student.onnx")


def test_the_card_is_json(student: Path) -> None:
    text = {one.key: one.value for one in onnx.load(student).metadata_props}[METADATA_KEY]
    assert json.loads(text)["nms"]["distance_exponent"] == 0.8


def test_a_canvas_too_small_for_the_head_is_named(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one image of 128 x 128 .*choose a larger --input-hw"):
        export_checkpoint(config_file, checkpoint=checkpoint, output=tmp_path / "small.onnx", input_hw=(128, 128))
    assert not (tmp_path / "small.onnx").exists()
