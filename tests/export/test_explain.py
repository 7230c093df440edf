from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import numpy_helper

from ld_export import deployed_file
from ld_export.explain_maps import LevelDifferences
from ld_export.explain_table import explanation_tables
from ld_export.verify import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

    from ld_runtime.model_card import ModelCard


def changed(
    student: Path,
    target: Path,
    change: Callable[[ModelProto], None],
    card_of: Callable[[ModelCard], ModelCard] = lambda card: card,
) -> Path:
    """A copy of a file in which one thing is other."""
    model, card = deployed_file.read(student)
    change(model)
    deployed_file.write(model, target, card=card_of(card))
    return target


def other_mean(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size == 3 and abs(float(values.ravel()[0]) - 123.675) < 1e-3:
            tensor.CopyFrom(numpy_helper.from_array(values + values.dtype.type(40), tensor.name))
            return
    raise AssertionError("the mean is not in the file")


def noisy_weight(model: ModelProto) -> None:
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor = next(one for one in model.graph.initializer if one.name == conv.input[1])
    values = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(0).normal(0, 0.2 * values.std(), values.shape).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values + noise, tensor.name))


def tail_attribute(model: ModelProto, name: str) -> Any:
    return next(one for one in model.graph.node[-1].attribute if one.name == name)


def other_stride(model: ModelProto) -> None:
    tail_attribute(model, "strides").ints[1] = 14


def other_iou(model: ModelProto) -> None:
    tail_attribute(model, "iou_threshold").f = 0.2


@pytest.fixture(scope="module")
def explained(
    config_file: Path, checkpoint: Path, student: Path, int8_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Verification:
    folder = tmp_path_factory.mktemp("explained")
    models = [
        student,
        int8_file,
        changed(student, folder / "mean.onnx", other_mean),
        changed(student, folder / "noise.onnx", noisy_weight),
        changed(student, folder / "stride.onnx", other_stride),
    ]
    return verify(config_file, checkpoint=checkpoint, models=models, with_mmdet=False, explained=True)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("student.onnx", None),
        ("student.int8.onnx", "trunk"),
        ("mean.onnx", "trunk"),  # the normalisation is a part of the network
        ("noise.onnx", "trunk"),
        ("stride.onnx", "decode"),
    ],
)
def test_it_names_the_stage_that_was_broken(explained: Verification, name: str, owner: str | None) -> None:
    found = explained.explanations[name]
    assert found.owner == owner
    moved = {one.stages: one.moved for one in found.chain}
    alone = {one.stages: one.moved for one in found.singles}
    if owner is None:
        assert sum(moved.values()) == sum(alone.values()) == 0
        assert found.sentence() == "student.onnx: no stage differs"
        return
    place = {"trunk": 1, "decode": 2}[owner]
    assert found.owner_share > 0.9
    assert moved["A" * (place + 1) + "P" * (3 - place)] > 20
    assert alone["P" * place + "A" + "P" * (3 - place)] > 20
    assert f"the {owner} owns it" in found.sentence()
    assert sum(found.real.values()) > sum(found.at_threshold.values())


def test_another_padding_is_the_preprocessing(
    config_file: Path, checkpoint: Path, student: Path, tmp_path: Path
) -> None:
    def white(card: ModelCard) -> ModelCard:
        return replace(card, preprocess=replace(card.preprocess, pad_value=(255, 255, 255)))

    path = changed(student, tmp_path / "pad.onnx", lambda _: None, white)
    result = verify(config_file, checkpoint=checkpoint, models=[path], with_mmdet=False, explained=True)
    found = result.explanations["pad.onnx"]
    assert found.owner == "preprocess"
    # The maps are compared on one canvas, so that the padding is not told as an error of the network.
    assert max(one.edges_px.max for one in found.levels) < 0.01


def test_another_threshold_is_the_nms(config_file: Path, checkpoint: Path, student: Path, tmp_path: Path) -> None:
    def card_of(card: ModelCard) -> ModelCard:
        return replace(card, nms=replace(card.nms, iou_threshold=0.2))

    path = changed(student, tmp_path / "nms.onnx", other_iou, card_of)
    result = verify(config_file, checkpoint=checkpoint, models=[path], with_mmdet=False, explained=True)
    assert result.explanations["nms.onnx"].owner == "nms"
    assert "the NMS owns it: 100%" in result.explanations["nms.onnx"].sentence()


def test_the_parts_of_both_sides_are_the_wholes(explained: Verification) -> None:
    report = explained.report
    for name, found in explained.explanations.items():
        assert found.chain[0].ap == pytest.approx(report.ap["PyTorch"].ap, abs=1e-9)
        assert found.chain[-1].ap == pytest.approx(report.ap[name].ap, abs=1e-9)


def test_json_and_tables(explained: Verification) -> None:
    from rich.console import Console

    content = json.loads(json.dumps(explained.content()))
    assert content["explanation"]["stride.onnx"]["owner"] == "decode"
    assert len(content["explanation"]["student.int8.onnx"]["worst"]) <= 20
    console = Console(width=80, record=True, file=io.StringIO())
    for table in explanation_tables(explained.explanations["stride.onnx"]):
        console.print(table)
    text = console.export_text()
    assert "+ decode" in text
    assert "real" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def maps(logit: float, bins: tuple[float, ...]) -> list[np.ndarray[Any, Any]]:
    """One level of one location and two classes: the second's logit is -9."""
    return [
        np.array([logit, -9], np.float32).reshape(1, 2, 1, 1),
        np.tile(np.array(bins, np.float32), 4).reshape(1, 4 * len(bins), 1, 1),
    ]


def test_level_differences_by_hand() -> None:
    every = LevelDifferences(strides=(16,))
    above = LevelDifferences(strides=(16,), score_threshold=0.5)
    # Distributions (1/2, 1/2) and (1/4, 3/4): expectations 0.5 and 0.75 bins, 4 px apart at stride 16.
    for one, other in (
        (maps(0.0, (0, 0)), maps(1.0, (0, float(np.log(3))))),
        (maps(-1.0, (0, 0)), maps(-1.0, (0, 0))),
    ):
        every.add(one, other)
        above.add(one, other)
    (level,), (chosen,) = every.result(), above.result()
    assert (level.locations, chosen.locations) == (2, 1)  # one side above the threshold is enough
    assert level.edges_px.max == pytest.approx(4)
    assert level.edges_px.mean == pytest.approx(2)
    assert chosen.edges_px.mean == pytest.approx(4)
    assert chosen.edges_px.p99 + 1e-6 >= 4
    assert level.class_logits.max == 1
    assert level.class_logits.mean == pytest.approx(1 / 4)
    assert chosen.scores.max == pytest.approx(1 / (1 + np.exp(-1)) - 0.5)
    assert chosen.edge_cosine is None  # PyTorch's are zeros


def test_of_rotated_boxes_the_angle_is_no_distance() -> None:
    classes = np.zeros((1, 1, 1, 1), np.float32)
    one, other = np.zeros((1, 10, 1, 1), np.float32), np.zeros((1, 10, 1, 1), np.float32)
    other[0, 9] = 5  # the angle's second bin
    differences = LevelDifferences(strides=(16,), distributions=5)
    differences.add([classes, one], [classes, other])
    assert differences.result()[0].edges_px.max == 0
    other[0, 7] = np.log(3)  # half of h: from a half to three quarters of a bin
    differences.add([classes, one], [classes, other])
    assert differences.result()[0].edges_px.max == pytest.approx(4)


def test_percentile_is_an_upper_bound() -> None:
    differences = LevelDifferences(strides=(1,))
    zeros = [np.zeros((1, 1, 1, 1000), np.float32), np.zeros((1, 8, 1, 1000), np.float32)]
    apart = np.arange(1, 1001, dtype=np.float32).reshape(1, 1, 1, 1000)
    differences.add(zeros, [apart, zeros[1]])
    (level,) = differences.result()
    assert 990 <= level.class_logits.p99 <= min(990 * 10 ** (1 / 16), level.class_logits.max)
    assert level.edges_px == type(level.edges_px)(0.0, 0.0, 0.0)
    assert level.edge_cosine is None


def test_a_file_whose_nms_is_in_the_graph_says_what_can_be_done(
    config_file: Path, checkpoint: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ld_runtime import native

    monkeypatch.setattr(native, "is_available", lambda: False)
    result = verify(config_file, checkpoint=checkpoint, models=[student], with_mmdet=False, limit=1, explained=True)
    assert not result.explanations
    assert "ld-deploy doctor" in result.content()["explanation"]["student.onnx"]["sentence"]
