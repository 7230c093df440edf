"""`install`: what is supplied, what is not replaced, and mmdet's own models on top of it."""

from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import mmcv._ext
import mmcv.ops
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import InstanceData

from ld_deploy.compat import ROTATED_OPS, SUPPLIED_OPS, install
from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).parents[2]


def run_python(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter, from the checkout, with `path` before everything else."""
    folders = [REPOSITORY, REPOSITORY / "runtime", REPOSITORY / "export"]
    search = os.pathsep.join(str(folder) for folder in ([path, *folders] if path else folders))
    environment = {**os.environ, "PYTHONPATH": search}
    environment.pop("PYTHONWARNINGS", None)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


# --- the extension module ---


def test_every_supplied_operator_is_one_of_ours() -> None:
    for name in SUPPLIED_OPS + ROTATED_OPS:
        assert getattr(mmcv._ext, name).__module__ in ("ld_deploy.compat_ops", "ld_deploy.compat_rotated")


def test_the_module_is_found_as_an_installed_one() -> None:
    assert importlib.util.find_spec("mmcv._ext") is not None
    assert pkgutil.resolve_name("mmcv._ext") is mmcv._ext
    assert (mmcv.ops.get_compiler_version(), mmcv.ops.get_compiling_cuda_version()) == ("n/a", "n/a")
    assert not hasattr(mmcv._ext, "__wrapped__")


def test_other_operators_say_what_to_do_when_called() -> None:
    assert hasattr(mmcv._ext, "carafe_forward")
    with pytest.raises(BackendMissingError) as caught:
        mmcv.ops.carafe_naive(torch.zeros(1, 4, 2, 2), torch.zeros(1, 9, 4, 4), 3, 1, 2)
    message = str(caught.value)
    assert "'carafe_naive_forward'" in message
    assert "mmcv-lite" in message
    assert "mim install mmcv" in message
    assert "modulated_deform_conv_forward, " in message


def test_install_twice_is_install_once() -> None:
    finders = list(sys.meta_path)
    install()
    install()
    assert sys.meta_path == finders


def fake_mmcv(folder: Path, extension: str) -> Path:
    (folder / "mmcv").mkdir()
    (folder / "mmcv" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "mmcv" / "_ext.py").write_text(extension, encoding="utf-8")
    return folder


def test_a_compiled_extension_is_not_replaced(tmp_path: Path) -> None:
    code = "import ld_deploy; import mmcv._ext; print(mmcv._ext.nms, hasattr(mmcv._ext, 'softnms'))"
    done = run_python(code, path=fake_mmcv(tmp_path, "nms = 'compiled'\n"))
    assert (done.stdout, done.stderr) == ("compiled False\n", "")


def test_a_broken_extension_is_not_hidden(tmp_path: Path) -> None:
    path = fake_mmcv(tmp_path, "raise ImportError('undefined symbol: _ZN2at4_ops5zeros4callE')\n")
    done = run_python("import ld_deploy; import mmcv._ext", path=path)
    assert done.returncode == 1
    assert "undefined symbol" in done.stderr


def test_install_imports_nothing_heavy() -> None:
    code = (
        "import sys, ld_deploy; print([name for name in ('torch', 'mmcv', 'mmengine', 'mmdet') if name in sys.modules])"
    )
    assert run_python(code).stdout == "[]\n"


def test_importing_mmdet_is_quiet() -> None:
    code = (
        "import ld_deploy\n"
        "from mmengine.hub import get_config\n"
        "from mmengine.registry import init_default_scope\n"
        "from mmdet.registry import MODELS\n"
        "import mmdet.models, mmdet.apis, mmdet.datasets, mmdet.evaluation, mmdet.engine\n"
        "init_default_scope('mmdet')\n"
        "MODELS.build(get_config('mmdet::gfl/gfl_r50_fpn_1x_coco.py').model.bbox_head)\n"
        "print('built')\n"
    )
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("built\n", "")


def test_opencv_is_the_headless_build() -> None:
    gui = [line.split(":")[1].strip() for line in cv2.getBuildInformation().splitlines() if "GUI:" in line]
    assert gui == ["NONE"], "pip install --force-reinstall --no-deps opencv-python-headless"
    libraries = Path("/proc/self/maps")
    assert not libraries.exists() or "libGL.so" not in libraries.read_text(encoding="utf-8")


# --- mmdet's models ---


@pytest.fixture
def mmdet_scope() -> Iterator[None]:
    before = DefaultScope.get_current_instance()
    init_default_scope("mmdet")
    yield
    if before is not None:
        init_default_scope(before.scope_name)


def shrink(model: Any) -> Any:
    """A model of a mmdet config with eight base channels and no weights to download."""
    model.backbone.update(depth=50, base_channels=8, init_cfg=None)
    model.neck.in_channels = [32, 64, 128, 256]
    return model


@pytest.mark.parametrize(
    "name", ["gfl/gfl_r50_fpn_1x_coco", "gfl/gfl_r101-dconv-c3-c5_fpn_ms-2x_coco", "ld/ld_r50-gflv1-r101_fpn_1x_coco"]
)
def test_mmdet_models_train_and_predict(name: str, mmdet_scope: None) -> None:
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample

    torch.manual_seed(0)
    config = shrink(get_config(f"mmdet::{name}.py").model)
    if "teacher_config" in config:
        config.teacher_config = get_config("mmdet::gfl/gfl_r50_fpn_1x_coco.py")
        shrink(config.teacher_config.model)
        config.teacher_ckpt = None
    model = MODELS.build(config)
    sample = DetDataSample(
        metainfo=dict.fromkeys(("img_shape", "batch_input_shape", "ori_shape", "pad_shape"), (64, 64))
        | {"scale_factor": (1.0, 1.0)},
        gt_instances=InstanceData(bboxes=torch.tensor([[4.0, 4, 40, 50]]), labels=torch.tensor([3])),
    )
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    data = {"inputs": [image], "data_samples": [sample]}
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {key: value.clone() for key, value in model.named_parameters() if value.requires_grad}
    model.train()
    for _ in range(2):
        batch = model.data_preprocessor(data, training=True)
        loss, _ = model.parse_losses(model.loss(batch["inputs"], batch["data_samples"]))
        optimiser.zero_grad()
        loss.backward()
        assert bool(loss.isfinite())
        optimiser.step()
    moved = [key for key, value in model.named_parameters() if key in before and not torch.equal(value, before[key])]
    if "dconv" in name:
        assert any("conv_offset" in key for key in moved)
    assert len(moved) > len(before) / 2
    model.eval()
    (result,) = model.test_step(data)
    assert result.pred_instances.bboxes.shape == (len(result.pred_instances), 4)
    assert len(result.pred_instances) > 0
