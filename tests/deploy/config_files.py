"""The files of configs/, each read once."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import mmdet
import mmengine
import pytest

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.config import is_distilled, load_config

if TYPE_CHECKING:
    from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
OWN_DATA = ("bccd/", "compare/", "custom/", "demo/", "ssdd/")  # without published rows
METAFILES = "".join(path.read_text() for path in Path(mmdet.__file__).parent.glob(".mim/configs/*/metafile.yml"))
HUB = Path(mmengine.__file__).parent / "hub" / "openmmlab.json"


@functools.cache
def read(path: Path) -> Config:
    """The config, not to be changed."""

    def not_found(*_: object) -> None:
        raise ValueError

    with pytest.MonkeyPatch.context() as patch:  # or each `mmdet::` base reads a hundred metafiles, and is not in them
        patch.setattr(mmengine.config.utils, "_get_cfg_metainfo", not_found)
        return load_config(path)


def name_of(path: Path) -> str:
    """Such as `ld/ld_r18_r101_coco_1x.py`."""
    return str(path.relative_to(CONFIGS))


FILES = [path for path in sorted(CONFIGS.rglob("*.py")) if "_base_" not in path.parts and "rows" not in read(path)]
ROWS = [path for path in FILES if not name_of(path).startswith(OWN_DATA)]
DISTILLED_FILES = [path for path in FILES if is_distilled(read(path))]


def header_of(path: Path) -> str:
    """The comment that a config begins with, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[0] != "#")])
