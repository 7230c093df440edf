"""Every config builds its model, and its data and evaluator have the form that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS, TRANSFORMS

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.checkpoint import without_pretrained
from ld_deploy.config import DISTILLED, load_config, student_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


def on_meta(config: Config) -> Any:
    """The student's modules as shapes, without memory or initialisation."""
    model = student_only(config).model
    without_pretrained(model)
    del model.data_preprocessor  # reads the values of its mean
    with torch.device("meta"):
        return MODELS.build(model)


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def test_there_are_configs_for_the_published_students_and_their_teacher() -> None:
    names = {name_of(path) for path in FILES}
    assert {f"ld/ld_r{depth}_r101_coco_1x_published.py" for depth in (18, 34, 50)} <= names
    assert {f"gfl/gfl_r{depth}_fpn_coco_1x.py" for depth in (18, 34, 50)} <= names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_config_builds(path: Path) -> None:
    config = load_config(path)
    head = on_meta(config).bbox_head
    assert MODELS.build(config.model.data_preprocessor).pad_pixel == (104, 116, 124)
    assert config.auto_scale_lr.enable
    assert config.test_dataloader.batch_size == 1  # each image is padded by itself, as in the deployed file
    kinds = {each["type"] for each in config.visualizer.vis_backends}
    assert "TensorboardVisBackend" in kinds
    for split in ("train", "val", "test"):
        dataset = config[f"{split}_dataloader"].dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        assert DATASETS.get(dataset.type) is not None
        classes = dataset.get("metainfo", {}).get("classes")
        assert head.num_classes == (len(classes) if classes else 80)
        for step in dataset.pipeline:
            assert TRANSFORMS.get(step["type"]) is not None, step
    for split in ("val", "test"):
        assert METRICS.get(config[f"{split}_evaluator"].type) is not None


@pytest.fixture(scope="module")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of zeros for a teacher's config."""
    written: dict[str, Path] = {}

    def weights(config: str) -> Path:
        name = str(Path(config).resolve())
        if name not in written:
            shapes = on_meta(load_config(name)).state_dict()
            written[name] = tmp_path_factory.mktemp("teachers") / "teacher.pth"
            state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
            torch.save({"state_dict": state, "meta": {}}, written[name])
        return written[name]

    return weights


@pytest.mark.parametrize("path", [p for p in FILES if load_config(p).model.type == DISTILLED], ids=name_of)
def test_distilled_config_builds_with_the_weights_of_its_teacher(
    path: Path, teacher_weights: Callable[[str], Path]
) -> None:
    config = load_config(path)
    config.model.teacher.checkpoint = str(teacher_weights(config.model.teacher.config))
    without_pretrained(config.model)
    model: Any = MODELS.build(config.model)
    assert {term.region for term in model.distillation.terms} == {"main", "vlr"}
    assert set(model.state_dict()) == set(on_meta(config).state_dict())


@pytest.mark.parametrize("path", sorted((CONFIGS / "custom").glob("*_baseline.py")), ids=name_of)
def test_own_data_takes_less_than_20_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 20


def test_published_configs_have_the_published_constants() -> None:
    for depth, images in ((18, 3), (34, 3), (50, 2)):
        config = load_config(CONFIGS / "ld" / f"ld_r{depth}_r101_coco_1x_published.py")
        terms = {(t["type"], t["region"]): (t["weight"], t["temperature"]) for t in config.model.distill}
        assert terms == {
            ("LocalizationKD", "main"): (0.25, 10),
            ("LocalizationKD", "vlr"): (0.25, 10),
            ("ClassificationKD", "main"): (10, 2),
        }
        assert config.model.recipe == "published"
        assert config.train_dataloader.batch_size == images
        assert config.optim_wrapper.optimizer.lr == 0.01
        assert config.auto_scale_lr.base_batch_size == 16
