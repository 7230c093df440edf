from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn
from torch.overrides import TorchFunctionMode

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.checkpoint import load_model, load_weights, read_checkpoint
from ld_deploy.config import load_config, student_only
from ld_deploy.quantization.detector import read_scales
from ld_deploy.quantization.folding import fold_batch_norm, fold_state
from ld_deploy.quantization.layers import (
    LayerScales,
    QuantizedConv2d,
    QuantizedFPN,
    quantize_layers,
    restore_layers,
)
from ld_deploy.quantization.structure import find_structure
from ld_runtime.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def student(tiny_config: Path) -> Any:
    torch.manual_seed(0)
    model = load_model(tiny_config, None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def maps(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [level for kind in model.bbox_head(model.extract_feat(images)) for level in kind]


IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def scales_of(model: Any, *, step: float = 1 / 16) -> dict[str, LayerScales]:
    """The same step everywhere; signs as the file of a ResNet student has them."""
    convs = [name for name, one in model.named_modules() if isinstance(one, nn.Conv2d)]

    def reads_relu(name: str) -> bool:
        inside = ".layer" in name or name.startswith(("backbone.layer", "neck.lateral"))
        return inside or "gfl" in name

    def makes_relu(name: str) -> bool:
        return name.endswith("conv1")

    return {name: LayerScales(step, reads_relu(name), step, makes_relu(name)) for name in convs}


def test_folding_changes_nothing(student: Any) -> None:
    wanted = maps(student, IMAGES)
    state = copy.deepcopy(student.state_dict())
    folded = fold_batch_norm(student)
    assert len(folded) == 20
    assert folded["backbone.layer2.0.downsample.0"][0] == "backbone.layer2.0.downsample.1"
    assert not [one for one in student.modules() if isinstance(one, nn.BatchNorm2d)]
    for one, other in zip(maps(student, IMAGES), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    fold_state(state, folded)
    assert set(state) == set(student.state_dict())
    for key, value in student.state_dict().items():
        torch.testing.assert_close(state[key], value)
    before = dict(state)
    fold_state(state, folded)  # a folded one stays
    assert all(state[key] is before[key] for key in before)


def test_folding_by_hand() -> None:
    state = {
        "conv.weight": torch.full((1, 1, 1, 1), 2.0),
        "conv.bias": torch.tensor([0.5]),
        "norm.weight": torch.tensor([3.0]),
        "norm.bias": torch.tensor([1.0]),
        "norm.running_mean": torch.tensor([0.25]),
        "norm.running_var": torch.tensor([3.0]),
        "norm.num_batches_tracked": torch.tensor(7),
    }
    fold_state(state, {"conv": ("norm", 1.0)})
    assert {key: value.item() for key, value in state.items()} == {"conv.weight": 3.0, "conv.bias": 1.375}


def test_structure(student: Any) -> None:
    training = {name: module.training for name, module in student.train().named_modules()}
    fold_batch_norm(student)
    found = find_structure(student)
    assert found.normalised == {}
    assert found.readers["backbone.maxpool"] == ["backbone.layer1.0.conv1"]
    assert found.readers["backbone.layer1.0"] == ["backbone.layer1.1.conv1"]
    assert found.readers["backbone.layer1.1"] == ["backbone.layer2.0.conv1", "backbone.layer2.0.downsample.0"]
    assert "neck.lateral_convs.0.conv" in found.readers["backbone.layer2.1"]
    assert {name: m.training for name, m in student.named_modules() if name in training} == {
        name: training[name] for name, _ in student.named_modules() if name in training
    }


def test_layers_become_quantized_and_plain_again(student: Any) -> None:
    fold_batch_norm(student)
    wanted = maps(student, IMAGES)
    parameters = dict(student.named_parameters())
    names = set(student.state_dict())
    scales = scales_of(student)
    quantize_layers(student, scales)
    assert all(parameters[name] is one for name, one in student.named_parameters())
    assert isinstance(student.neck, QuantizedFPN)
    assert not torch.equal(maps(student, IMAGES)[0], wanted[0])
    assert "backbone.layer1.0.output_scale" in student.state_dict()
    assert copy.deepcopy(student).state_dict().keys() == student.state_dict().keys()
    assert restore_layers(student) == scales
    assert set(student.state_dict()) == names
    assert type(student.backbone.conv1) is nn.Conv2d
    for one, other in zip(maps(student, IMAGES), wanted, strict=True):
        assert torch.equal(one, other)
    assert restore_layers(student) == {}


def test_finer_steps_come_nearer(student: Any) -> None:
    fold_batch_norm(student)
    wanted = maps(student, IMAGES / 8)

    def error(step: float) -> float:
        quantize_layers(student, scales_of(student, step=step))
        found = maps(student, IMAGES / 8)
        restore_layers(student)
        return float(sum((one - other).abs().mean() for one, other in zip(found, wanted, strict=True)))

    assert error(1 / 16) < error(1 / 4)


def test_what_a_tensor_is_read_for_it_is_quantized_once(student: Any) -> None:
    """The identity of a residual block and what an FPN upsamples are whole steps, as in the file."""
    fold_batch_norm(student)
    scales = scales_of(student)
    steps = {"backbone.layer1.1.conv1": 0.11, "neck.fpn_convs.1.conv": 0.13, "neck.fpn_convs.2.conv": 0.17}
    for name, step in steps.items():
        scales[name] = replace(scales[name], input_scale=step)
    quantize_layers(student, scales)
    block: list[torch.Tensor] = []
    student.backbone.layer1[0].register_forward_hook(lambda _m, _i, output: block.append(output))
    with Spy() as spy:
        maps(student, IMAGES)
    found = {
        "backbone.layer1.1.conv1": block[0],
        "neck.fpn_convs.2.conv": spy.upsampled[0],  # from the coarsest on
        "neck.fpn_convs.1.conv": spy.upsampled[1],
    }
    for name, values in found.items():
        codes = values / steps[name]
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
        assert -128 <= codes.min() < codes.max() <= 127.001
    assert block[0].min() == 0
    assert spy.upsampled[1].min() < 0


class Spy(TorchFunctionMode):
    """Keeps what is upsampled; a mode further out sees what one further in has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.upsampled: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.interpolate:
            self.upsampled.append(args[0])
        return func(*args, **(kwargs or {}))


def test_bad_scales(student: Any) -> None:
    one = LayerScales(0.1, False, 0.1, False)
    with pytest.raises(ConfigError, match=r"the detector has no convolution backbone.conv9"):
        quantize_layers(student, {"backbone.conv9": one})
    with pytest.raises(ConfigError, match=r"the scales of backbone.conv1 must be positive"):
        quantize_layers(student, {"backbone.conv1": LayerScales(0.0, False, 0.1, False)})
    student.neck.__class__ = MODELS.get("PAFPN")
    with pytest.raises(ConfigError, match="knows how an FPN adds its maps up, not a PAFPN"):
        quantize_layers(student, {"backbone.conv1": one})


@pytest.fixture
def report(student: Any, tmp_path: Path) -> Path:
    path = tmp_path / "student.int8.onnx.json"
    modules = {name: asdict(one) for name, one in scales_of(student).items() if name != "backbone.conv1"}
    path.write_text(json.dumps({"precision": "int8", "modules": modules}), encoding="utf-8")
    return path


@pytest.fixture
def quantized_config(tiny_config: Path, report: Path, tmp_path: Path) -> Path:
    path = tmp_path / "int8.py"
    path.write_text(
        f"_base_ = {str(tiny_config)!r}\n"
        f"model = dict(type='QuantizedDetector', quantization=dict(kind='int8', scales={str(report)!r}))\n",
        encoding="utf-8",
    )
    return path


def test_float_checkpoint_is_folded_when_it_is_loaded(student: Any, quantized_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "float.pth"
    torch.save({"state_dict": student.state_dict()}, path)
    model = MODELS.build(load_config(quantized_config).model).eval()
    assert len([one for one in model.modules() if isinstance(one, QuantizedConv2d)]) == len(scales_of(student)) - 1
    load_checkpoint(model, str(path), map_location="cpu")  # as `load_from` does
    restore_layers(model)
    for one, other in zip(maps(model, IMAGES), maps(student, IMAGES), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_checkpoint_round_trip(quantized_config: Path, tmp_path: Path, report: Path) -> None:
    torch.manual_seed(5)
    model = MODELS.build(load_config(quantized_config).model).eval()
    model.backbone.layer1[0].conv1.input_scale.fill_(0.05)
    model.backbone.maxpool.output_scale.fill_(0.05)
    path = tmp_path / "quantized.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    report.unlink()  # the checkpoint has it all
    again = load_model(quantized_config, path)
    for one, other in zip(maps(again, IMAGES), maps(model, IMAGES), strict=True):
        assert torch.equal(one, other)
    scales = restore_layers(again)
    assert scales["backbone.layer1.0.conv1"].input_scale == np.float32(0.05)
    assert "backbone.conv1" not in scales


def test_a_checkpoint_says_which_layers_are_quantized(quantized_config: Path) -> None:
    model = MODELS.build(load_config(quantized_config).model)
    plain = "bbox_head.gfl_cls."
    state = {key: one for key, one in model.state_dict().items() if "put_" not in key or not key.startswith(plain)}
    assert isinstance(model.bbox_head.gfl_cls, QuantizedConv2d)
    model.adopt_scales(state)
    assert type(model.bbox_head.gfl_cls) is nn.Conv2d
    assert isinstance(model.bbox_head.gfl_reg, QuantizedConv2d)
    assert model.state_dict().keys() == state.keys()


def test_a_float_checkpoint_is_no_quantized_one(student: Any, quantized_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "float.pth"
    torch.save({"state_dict": student.state_dict()}, path)
    with pytest.raises(CheckpointError, match="the checkpoint has no scales: it is of a float training"):
        load_model(quantized_config, path)
    model = load_model(quantized_config, None)
    with pytest.raises(CheckpointError, match="no scales"):
        load_weights(model, read_checkpoint(path), name="float.pth")


def test_student_of_a_distilled_config() -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / "bccd" / "ld_student_int8.py")
    assert config.model.type == "QuantizedDistilledDetector"
    alone = student_only(config)
    assert alone.model.type == "QuantizedDetector"
    assert not {"teacher", "distill", "cross", "recipe"} & set(alone.model)
    assert dict(alone.model.quantization) == {"kind": "int8"}
    assert "scales" in config.model.quantization


def test_reports(report: Path, tmp_path: Path) -> None:
    assert read_scales(report, kind="int8")["backbone.layer1.0.conv1"] == LayerScales(1 / 16, True, 1 / 16, True)
    with pytest.raises(ConfigError, match="has scales for int8, the config asks for fp8"):
        read_scales(report, kind="fp8")
    with pytest.raises(ConfigError, match="is no report with scales"):
        read_scales(tmp_path / "nowhere.json", kind="int8")
    report.write_text('{"precision": "int8"}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no report with scales \(KeyError: 'modules'\): write one with"):
        read_scales(report, kind="int8")


def test_options(tiny_config: Path) -> None:
    model = load_config(tiny_config).model
    for wrong in ({"kind": "int4"}, {"bits": 8}):
        with pytest.raises(ConfigError, match="quantization must be dict"):
            MODELS.build({**model, "type": "QuantizedDetector", "quantization": wrong})


def test_training_step_with_a_teacher(
    build_detector: Callable[..., Any], training_step: tuple[Any, list[Any]], student: Any, report: Path, tmp_path: Path
) -> None:
    distilled = build_detector(
        "gfl", teacher="gfl", distill=[{"type": "LocalizationKD", "region": "main", "weight": 1.0, "temperature": 10}]
    )
    config = load_config(tmp_path / "teacher.py").model
    files = {"config": str(tmp_path / "teacher.py"), "checkpoint": str(tmp_path / "teacher.pth")}
    model = MODELS.build(
        {
            **config,
            "type": "QuantizedDistilledDetector",
            "teacher": files,
            "distill": [{"type": "LocalizationKD", "region": "main", "weight": 1.0, "temperature": 10}],
            "quantization": {"scales": str(report)},
        }
    )
    assert {name for name in distilled.state_dict() if name.startswith("distillation")} == {
        name for name in model.state_dict() if name.startswith("distillation")
    }
    assert not any(isinstance(one, QuantizedConv2d) for one in model.teacher.module.modules())
    losses = model.train().loss(*training_step)
    assert losses["loss_ld_main"] > 0
    sum(value for key, value in losses.items() if key.startswith("loss")).backward()
    for name in ("backbone.layer2.0.conv1", "neck.fpn_convs.0.conv", "bbox_head.gfl_reg"):
        assert model.get_submodule(name).weight.grad.abs().sum() > 0, name
