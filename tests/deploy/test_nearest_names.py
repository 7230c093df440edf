"""Names of the training side that nearly exist: its messages suggest the one that does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ld_deploy.checkpoint import read_checkpoint
from ld_deploy.config import load_config
from ld_deploy.distill.distillation import Distillation
from ld_deploy.distill.regions import parse_region
from ld_export.from_checkpoint import file_sha256
from ld_export.quantize_scales import parse_methods
from ld_runtime.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("configs/ld/ld_r18_r101_coco.py", "configs/ld/ld_r18_r101_coco_1x.py"),
        ("configs/gfl/ld_r18_r101_coco_1x.py", "configs/ld/ld_r18_r101_coco_1x.py"),
        ("ld_r18_r101_coco_1x.py", "configs/ld/ld_r18_r101_coco_1x.py"),
        ("config/demo/student.py", "configs/demo/student.py"),
    ],
)
def test_configs(name: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError) as refused:
        load_config(name)
    assert str(refused.value).startswith(f"there is no config {name}; did you mean {found!r}? give a path")


def test_installed_configs() -> None:
    with pytest.raises(ConfigError, match=r"; did you mean 'gfl/gfl_r50_fpn_1x_coco\.py'\?$"):
        load_config("mmdet::gfl/gfl_r50_fpn_1x_cco.py")


@pytest.mark.parametrize("read", [read_checkpoint, file_sha256])
def test_checkpoints(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "student.pth").touch()
    with pytest.raises(CheckpointError) as refused:
        read(tmp_path / "studnt.pth")
    there = f"; did you mean {str(tmp_path / 'student.pth')!r}? train one"
    assert there in str(refused.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_region("man"), "no distillation region 'man'; did you mean 'main'? there are"),
        (lambda: parse_region({"type": "vlr", "gama": 1}), "has no option 'gama'; did you mean 'gamma'? it has"),
        (lambda: Distillation([], recipe="publishd"), "recipe 'publishd'; did you mean 'published'? there are"),  # type: ignore[arg-type]
        (lambda: parse_methods(["entrpy"]), "is called entrpy; did you mean 'entropy'? there are"),
    ],
)
def test_words_of_configs_and_options(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        call()
    assert message in str(refused.value)
