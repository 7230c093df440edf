"""A small detector of rotated boxes through the commands: export, detect, verify, convert, quantize, build."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from ld_export import deployed_file
from ld_export.quantize_error import _turned_apart
from ld_runtime import Detector
from ld_runtime.errors import ConfigError, ParityError
from ld_runtime.model_card import CandidateRule
from ld_runtime.parity import compare_detections
from ld_runtime.rotated_boxes import differences
from ld_runtime.rotated_nms import RotatedNmsSettings
from ld_runtime.tiling import Tiling, detect_tiled

CONFIG = Path(__file__).parents[2] / "configs" / "ssdd" / "student.py"
COMMAND = (sys.executable, "-c", "from ld_runtime.cli import main; main()")
SIZES = ((100, 140), (131, 97), (64, 200), (160, 160))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, the config, the weights; truth of every other detection, some shifted."""
    from ld_deploy import compat

    compat.install()
    import torch
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS

    from ld_deploy.checkpoint import load_model
    from ld_deploy.config import load_config

    folder = tmp_path_factory.mktemp("rotated")
    rng = np.random.default_rng(4)
    for index, (height, width) in enumerate(SIZES):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        coarse = rng.integers(0, 255, (-(-height // 12), -(-width // 12), 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image)
        (folder / "labels" / f"{index}.txt").write_text("", encoding="utf-8")
    text = f"""
_base_ = {str(CONFIG)!r}
model = dict(test_cfg=dict(nms_pre=300, pre_nms_top_k=300, score_thr=0.05, max_per_img=40))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(224, 160), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, box_type='rbox'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(
    data_root={str(folder) + "/"!r}, ann_file='labels', data_prefix=dict(_delete_=True, img='images'),
    pipeline=pipeline))
"""
    config_file = folder / "small.py"
    config_file.write_text(text, encoding="utf-8")
    torch.manual_seed(3)
    model: Any = load_model(config_file, None)
    with torch.no_grad():
        model.bbox_head.gfl_cls.weight.normal_(0, 0.12)
        model.bbox_head.gfl_cls.bias.fill_(-2.0)
        model.bbox_head.gfl_reg.weight.normal_(0, 0.4)
        # Sides of a few strides.
        bias = model.bbox_head.gfl_reg.bias.view(5, -1)
        bias[2:4] -= 0.6 * torch.arange(bias.shape[1])
    torch.save(
        {"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": ("ship",)}}}, folder / "small.pth"
    )
    dataset: Any = DATASETS.build({**load_config(config_file).test_dataloader.dataset, "test_mode": True})
    for index in range(len(SIZES)):
        with torch.no_grad():
            found = model.test_step(pseudo_collate([dataset[index]]))[0].pred_instances
        lines = []
        for cx, cy, w, h, angle in found.bboxes[::2].tolist():
            shift = rng.normal(0, 1, 2)
            points = cv2.boxPoints(((0, 0), (w, h), float(np.degrees(angle)))) + np.array([cx, cy]) + shift
            lines.append(" ".join(f"{value:.2f}" for value in points.ravel()) + " ship 0\n")
        (folder / "labels" / f"{index}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def student(root: Path) -> Path:
    from ld_export.from_checkpoint import export_checkpoint

    path = root / "student.onnx"
    export_checkpoint(root / "small.py", checkpoint=root / "small.pth", output=path)
    return path


def images_of(root: Path) -> list[Path]:
    return sorted((root / "images").iterdir())


def test_the_file_and_its_card(student: Path) -> None:
    model, card = deployed_file.read(student)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[-1].op_type == "RotatedGFLDetect"
    assert (card.box_format, card.nms_kind) == ("cxcywha", "rotated_cluster")
    assert card.nms == RotatedNmsSettings(
        iou_threshold=0.1, vote_threshold=0.7, vote_sigma=0.025, score_threshold=0.05, max_detections=40
    )
    assert card.candidates == CandidateRule(300, 300)
    boxes = model.graph.output[1].type.tensor_type.shape.dim
    assert [one.dim_value for one in boxes][1:] == [40, 5]
    trunk, tail = deployed_file.split(model)
    assert tail.nodes[0].op_type == "RotatedGFLDetect"
    assert len(trunk.graph.output) == 6


def test_host_library_and_graph_find_the_same(student: Path, root: Path) -> None:
    native, graph = (Detector(student, nms=nms) for nms in ("native", "graph"))  # type: ignore[arg-type]
    for path in images_of(root):
        one, other = native(path), graph(path)
        assert one.is_rotated
        assert len(one) > 5
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        assert np.abs(differences(one.boxes, other.boxes)).max() < 2e-2


def test_verify_passes_and_sees_a_moved_box(student: Path, root: Path, tmp_path: Path) -> None:
    from ld_export.verify import raise_on_failure, verify

    result = verify(root / "small.py", checkpoint=root / "small.pth", models=[student], explained=True)
    raise_on_failure(result.report)
    agreement = result.report.agreement["student.onnx"]
    assert agreement.matched_share == 1
    assert agreement.max_box_difference_px < 0.02
    assert agreement.max_angle_difference_deg is not None
    assert agreement.max_angle_difference_deg < 0.1
    (turn,) = result.report.turns()
    assert turn.startswith("student.onnx: matched boxes differ by at most 0.0")
    ap = result.report.ap["PyTorch"]
    assert ap.ap is not None
    assert ap.ap50 is not None
    assert 0.05 < ap.ap < ap.ap50  # the truth is made of shifted detections
    assert result.explanations["student.onnx"].sentence() == "student.onnx: no stage differs"
    result.write(tmp_path / "parity.json")
    content = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    assert content["passed"] is True
    assert content["boxes"] > 10

    model, card = deployed_file.read(student)
    bias = next(one for one in model.graph.initializer if one.name.endswith("gfl_reg.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values.reshape(5, -1)[4] += np.linspace(0, 6, 17)  # angles alone
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    turned = tmp_path / "turned.onnx"
    deployed_file.write(model, turned, card=card)
    broken = verify(root / "small.py", checkpoint=root / "small.pth", models=[turned], explained=True)
    found = broken.explanations["turned.onnx"]
    assert (found.owner, found.owner_share) == ("trunk", 1)
    low, high = broken.report.ap_interval["turned.onnx"]
    assert low <= broken.report.ap_difference("turned.onnx") <= high < 0
    assert max(one.edges_px.max for one in found.levels) < 0.01  # of centre and sides: an angle is no distance
    assert min(one.edge_cosine or 0 for one in found.levels) < 0.99
    assert broken.report.agreement["turned.onnx"].matched_share < 0.5
    with pytest.raises(ParityError):
        raise_on_failure(broken.report)


@pytest.mark.parametrize(("attribute", "owner"), [("strides", "decode"), ("iou_threshold", "nms")])
def test_the_stage_that_was_broken_is_named(
    student: Path, root: Path, tmp_path: Path, attribute: str, owner: str
) -> None:
    from ld_export.verify import verify

    model, card = deployed_file.read(student)
    changed = next(one for one in model.graph.node[-1].attribute if one.name == attribute)
    if owner == "decode":
        changed.ints[1] = 14
    else:
        changed.f = 0.6
        card = replace(card, nms=replace(card.nms, iou_threshold=0.6))
    path = tmp_path / "changed.onnx"
    deployed_file.write(model, path, card=card)
    found = verify(root / "small.py", checkpoint=root / "small.pth", models=[path], explained=True).explanations
    assert found["changed.onnx"].owner == owner
    assert found["changed.onnx"].owner_share > 0.9


def test_tiles_find_what_the_image_has(student: Path, root: Path) -> None:
    detector = Detector(student)
    image = np.asarray(cv2.imread(str(images_of(root)[3])), np.uint8)
    large = np.tile(image, (2, 2, 1))
    found = detect_tiled(detector, large, tiling=Tiling(tile=160, overlap=0.25))
    assert found.is_rotated
    assert len(found) > 10
    assert found.hulls[:, 2].max() > 180  # in the image's pixels
    whole = detect_tiled(detector, image, tiling=Tiling(tile=160))
    np.testing.assert_array_equal(whole.boxes, detector(image).boxes)


def test_detect_writes_polygons_and_pictures(student: Path, root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "detect", student, root / "images", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert len(content["annotations"]) > 5
    for row in content["annotations"]:
        assert len(row["segmentation"][0]) == 8
        assert row["area"] == pytest.approx(row["rotated_bbox"][2] * row["rotated_bbox"][3])
    assert len(list((tmp_path / "annotated").iterdir())) == len(SIZES)


def test_half_precision_finds_nearly_the_same(student: Path, root: Path, tmp_path: Path) -> None:
    from ld_export import typed

    model, card = deployed_file.read(student)
    half, card, _ = typed.convert(model, card=card, precision="fp16")
    path = tmp_path / "half.onnx"
    deployed_file.write(half, path, card=card)
    full, narrow = ([Detector(file)(one) for one in images_of(root)] for file in (student, path))
    rule: dict[str, Any] = {"score_threshold": 0.05, "max_detections": 40, "iou_threshold": 0.1}
    assert compare_detections(full, narrow, **rule, iou=0.9).matched_share > 0.8


def test_int8_is_measured_by_boxes_and_keeps_the_tail(student: Path, root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "quantize", student, "--images", root / "images", "-o", tmp_path / "int8.onnx", "--method", "max"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "int8.onnx.json").read_text(encoding="utf-8"))
    assert 0 < report["error"]["edge_px"] < 60
    assert Detector(tmp_path / "int8.onnx")(images_of(root)[0]).is_rotated


def test_the_error_of_maps_by_hand() -> None:
    # One location: centre, half sides of 2 and 1 strides, angle of bin 0; then x moved by one and turned by pi / 17.
    maps = [np.full((5, 17, 1, 1), -200, np.float32) for _ in range(2)]
    for one, bins in zip(maps, ((8, 8, 2, 1, 0), (9, 8, 2, 1, 1)), strict=True):
        one[np.arange(5), list(bins)] = 0
    apart = _turned_apart(*(one.reshape(85, 1, 1) for one in maps))
    np.testing.assert_allclose(apart[:, 0], [1, 0, 0, 0, 2 * np.pi / 17], atol=1e-5)


def test_candidates_and_maps_alone(root: Path, tmp_path: Path) -> None:
    from ld_export.from_checkpoint import export_checkpoint

    for name, options, outputs in (
        ("candidates", {"nms_kind": "none"}, [300, 5]),
        ("raw", {"raw": True}, None),
    ):
        path = tmp_path / f"{name}.onnx"
        export_checkpoint(root / "small.py", checkpoint=root / "small.pth", output=path, input_hw=(128, 160), **options)  # type: ignore[arg-type]
        model, card = deployed_file.read(path)
        assert (card.nms_kind, card.box_format) == ("none", "cxcywha")
        if outputs:
            assert [one.dim_value for one in model.graph.output[0].type.tensor_type.shape.dim][1:] == outputs
        else:
            assert model.graph.output[3].name == "edge_logits_0"


def test_an_nms_of_upright_boxes_is_refused(root: Path) -> None:
    from ld_deploy.config import load_config
    from ld_export.card import card_from_config

    config = load_config(root / "small.py")
    with pytest.raises(ConfigError, match="is rotated_cluster, cluster_diou was asked for"):
        card_from_config(config, weights_sha256="", nms_kind="cluster_diou")
    config.model.test_cfg.nms = {"type": "cluster_diou_nms"}
    with pytest.raises(ConfigError, match=r"a deployed file has 'rotated_cluster_nms': set model\.test_cfg\.nms"):
        card_from_config(config, weights_sha256="")


def test_tensorrt_rtx_builds_it_on_the_cpu(student: Path, tmp_path: Path) -> None:
    engine = tmp_path / "student.engine"
    done = subprocess.run(
        [*COMMAND, "build", student, "-o", engine, "--compute-capability", "8.9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "student.engine.json").read_text(encoding="utf-8"))
    assert (record["nms"], record["card"]["box_format"]) == ("function", "cxcywha")
