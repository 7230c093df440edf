from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ld_export.deployed_file import join, read, split, write
from ld_export.gfl_function import map_names
from ld_export.nms_function import nms_model
from ld_export.onnx_check import open_session
from ld_runtime.errors import EngineError, ModelCardError
from ld_runtime.model_card import NmsSettings

IMAGES = np.random.default_rng(2).integers(0, 255, (2, 160, 192, 3), dtype=np.uint8)


@pytest.fixture(params=["student", "candidates_file"])
def deployed(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_a_file_comes_back_from_its_parts(deployed: Path) -> None:
    model, _ = read(deployed)
    before = model.SerializeToString()
    trunk, tail = split(model)
    assert model.SerializeToString() == before
    again = join(trunk, tail)
    onnx.checker.check_model(again, full_check=True)
    assert [one.name for one in again.graph.output] == [one.name for one in model.graph.output]
    assert sorted(map(str, again.graph.node)) == sorted(map(str, model.graph.node))
    assert again.functions == model.functions
    outputs = [open_session(one).run(None, {"images": IMAGES}) for one in (model, again)]
    for one, other in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_trunk_gives_the_maps_alone(deployed: Path) -> None:
    trunk, tail = split(read(deployed)[0])
    onnx.checker.check_model(trunk, full_check=True)
    assert tuple(one.name for one in trunk.graph.output) == map_names(5)
    assert {one.type.tensor_type.elem_type for one in trunk.graph.output} == {TensorProto.FLOAT}
    assert not trunk.functions
    assert {one.domain for one in trunk.opset_import} == {""}
    assert [one.domain for one in tail.nodes] == ["ld_deploy"]
    maps = open_session(trunk).run(None, {"images": IMAGES})
    assert [one.shape for one in maps[::5]] == [(2, 3, 20, 24), (2, 68, 20, 24)]


def test_maps_alone_have_no_tail(student: Path) -> None:
    trunk, _ = split(read(student)[0])
    same, tail = split(trunk)
    assert (tail.nodes, tail.functions) == ((), ())
    assert same == trunk
    assert join(trunk, tail) == trunk


@pytest.mark.parametrize("narrow", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("with_tail", [True, False])
def test_narrow_maps_are_cast_once(student: Path, narrow: int, with_tail: bool) -> None:
    trunk, tail = split(read(student)[0])
    tail = tail if with_tail else split(trunk)[1]
    info = trunk.graph.output[3]
    (last,) = [node for node in trunk.graph.node if info.name in node.output]
    last.output[0] = "before"
    trunk.graph.node.append(helper.make_node("Cast", ["before"], [info.name], to=narrow))
    info.type.tensor_type.elem_type = narrow
    count = len(trunk.graph.node)
    whole = join(trunk, tail)
    onnx.checker.check_model(whole, full_check=True)
    assert len(whole.graph.node) == count + len(tail.nodes) + 1
    assert {one.type.tensor_type.elem_type for one in split(whole)[0].graph.output} == {TensorProto.FLOAT}
    assert open_session(whole).run(None, {"images": IMAGES})[0].shape[0] == 2


def test_the_functions_follow_the_opset_of_the_trunk(student: Path) -> None:
    trunk, tail = split(read(student)[0])
    trunk.opset_import[0].version = 21
    whole = join(trunk, tail)
    onnx.checker.check_model(whole, full_check=True)
    assert [(one.domain, one.version) for one in whole.functions[0].opset_import] == [("", 21)]
    counts = [open_session(one).run(["num_detections"], {"images": IMAGES}) for one in (whole, read(student)[0])]
    np.testing.assert_array_equal(*counts)
    assert tail.functions[0].opset_import[0].version == 18


def test_a_file_that_ends_in_the_nms_alone_is_refused() -> None:
    with pytest.raises(EngineError, match=r"holds ld_deploy::ClusterDIoUNMS, .*older ld-deploy.*export the model"):
        split(nms_model(settings=NmsSettings()))


def test_a_tail_without_its_maps(student: Path) -> None:
    model, _ = read(student)
    model.graph.node[-1].input[0] = "nowhere"
    with pytest.raises(EngineError, match="has no tensor nowhere"):
        split(model)


def test_files_that_cannot_be_read(student: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"no such file; make it with `ld-deploy export"):
        read(tmp_path / "nowhere.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match=r"damaged.onnx is damaged"):
        read(damaged)
    foreign = tmp_path / "foreign.onnx"
    onnx.save(nms_model(settings=NmsSettings()), foreign)
    with pytest.raises(ModelCardError, match=r"foreign.onnx carries no model card"):
        read(foreign)


def test_what_is_no_valid_graph_is_not_written(student: Path, tmp_path: Path) -> None:
    model, card = read(student)
    write(model, tmp_path / "good.onnx", card=card)
    assert read(tmp_path / "good.onnx") == (model, card)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match=r"bad.onnx would be no valid ONNX file \(.*NoSuchOperator"):
        write(model, tmp_path / "bad.onnx", card=card)
    assert [one.name for one in tmp_path.iterdir()] == ["good.onnx"]
