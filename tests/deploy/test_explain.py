"""What a distilled training says of itself, and that it trains the same with and without saying it."""

from __future__ import annotations

import copy
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from mmengine.config import Config
from mmengine.hooks import Hook

from ld_deploy.checkpoint import read_checkpoint
from ld_deploy.config import load_config
from ld_deploy.explain.edge_picture import edge_figure
from ld_deploy.explain.hook import ExplainDistillation, add_explanation, edge_temperature
from ld_deploy.explain.panels import save_png
from ld_deploy.explain.positives import Edges, Positive, choose_positives
from ld_deploy.explain.region_picture import LevelWeights, RegionWeights, by_level, region_figure, region_weights
from ld_deploy.explain.shares import GradientMeter, gradient_norms, shares
from ld_deploy.explain.stills import Look, load_stills, look, undisturbed
from ld_deploy.explain.table import ap_text, describe
from ld_deploy.train import build_runner, train

if TYPE_CHECKING:
    from collections.abc import Callable

FLIPPED = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "Resize", "scale": (96, 64), "keep_ratio": True},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackDetInputs"},
]
DISTILL = [
    {"type": "LocalizationKD", "region": "main", "weight": 1.5, "temperature": 10},
    {"type": "LocalizationKD", "region": {"type": "vlr", "gamma": 0.1}, "weight": 0.4, "temperature": 10},
    {"type": "ClassificationKD", "region": "main", "weight": 5, "temperature": 2},
    {"type": "FeatureKD", "region": "gi", "weight": 2},
]
PARTS = ("cls", "bbox", "dfl", "ld_main", "ld_vlr", "kd_main", "im_gi")
OVERRIDES: dict[str, Any] = {
    "randomness.seed": 0,
    "default_hooks.logger.interval": 1,
    "train_dataloader.dataset.pipeline": FLIPPED,
    **dict.fromkeys(("val_cfg", "val_dataloader", "val_evaluator")),
}
HOOK = {"type": "ExplainDistillation", "interval": 2, "gradient_interval": 2}


@pytest.fixture(scope="module")
def teacher(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Config, of a wider neck than the student's, and checkpoint of a trained teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    config = Config.fromfile(tiny_config)
    config.model.neck.out_channels = 96
    config.model.bbox_head.in_channels = 96
    config.dump(str(folder / "teacher.py"))
    return folder / "teacher.py", train(config, work_dir=folder, overrides={"log_level": "ERROR"})


def distilled(tiny_config: Path, teacher: tuple[Path, Path], *, cache: Path, **hook: Any) -> Config:
    config = Config.fromfile(tiny_config)
    files = {"config": str(teacher[0]), "checkpoint": str(teacher[1]), "cache": str(cache)}
    config.model.update(type="DistilledDetector", teacher=files, distill=copy.deepcopy(DISTILL))
    config.custom_hooks = [{**HOOK, **hook}]
    return config


@pytest.fixture(scope="module")
def explained(tiny_config: Path, teacher: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of three epochs with the hook."""
    work_dir = tmp_path_factory.mktemp("explained")
    config = distilled(tiny_config, teacher, cache=work_dir / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "132")
        train(config, work_dir=work_dir, overrides={**OVERRIDES, "train_cfg.max_epochs": 3})
    return work_dir


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def pictures(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / "pictures").iterdir())


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def test_the_training_is_the_same_to_the_bit_without(
    tiny_config: Path, teacher: tuple[Path, Path], explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache")
    config.pop("custom_hooks")
    monkeypatch.setattr("ld_deploy.train.add_explanation", lambda _: None)
    train(config, work_dir=tmp_path, overrides={**OVERRIDES, "train_cfg.max_epochs": 3})
    assert not (tmp_path / "pictures").exists()
    with_hook, without = (read_checkpoint(folder / "last.pth") for folder in (explained, tmp_path))
    assert with_hook["meta"]["iter"] == without["meta"]["iter"] == 9
    assert any("running_var" in key for key in without["state_dict"])  # buffers too
    assert same(with_hook["state_dict"], without["state_dict"])
    assert same(with_hook["optimizer"], without["optimizer"])
    keys = [f"loss_{part}" for part in PARTS]
    assert [[row[key] for key in keys] for row in scalars(explained)] == [
        [row[key] for key in keys] for row in scalars(tmp_path)
    ]
    caches = [sorted(path.relative_to(each) for path in each.rglob("*.pt")) for each in (explained, tmp_path)]
    assert caches[0] == caches[1]  # the pictures' images went past it
    assert caches[0]


def test_the_log_says_what_is_distilled(teacher: tuple[Path, Path], explained: Path) -> None:
    (log,) = explained.glob("*/*.log")
    lines = log.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows == [
        ["what", "region", "weight", "temperature", "branch", "divided by"],
        ["LocalizationKD: edge distributions", "main", "1.5", "10", "own", "sum of student scores over positives"],
        ["LocalizationKD: edge distributions", "vlr (gamma=0.1)", "0.4", "10", "own", "positives"],
        ["ClassificationKD: class distribution", "main", "5", "2", "own", "positives"],
        ["FeatureKD: neck features", "gi", "2", "1", "own", "sum of region weights"],
    ]
    notes = dict(line.split(":", 1) for line in lines if line.split(":")[0].strip() in (*NOTES, "recipe"))
    found = {key.strip(): value.strip() for key, value in notes.items()}
    assert found["recipe"] == "default"
    assert found["teacher"] == str(teacher[0])
    ap = read_checkpoint(teacher[1])["message_hub"]["runtime_info"]["best_score"]
    assert found["weights"] == f"{teacher[1]}, AP {ap:.3f} on the validation split (epoch 1)"
    assert found["precision"] == "as the student trains"
    assert found["cache"] == str(explained / "cache")
    # A linear adapter of 64 to 96 channels.
    assert found["added"].startswith(f"adapters of {64 * 96 + 96:,} parameters")


NOTES = ("teacher", "weights", "size", "precision", "cache", "added")


def test_parameters_and_normalisers_in_the_table(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gfl", teacher="gfl", distill=DISTILL[:3], recipe="published")
    teacher = {"config": "t.py", "checkpoint": model_file(build_detector)}
    text = describe(model, teacher=teacher, width=160)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} parameters; the student has {count:,} (100%)" in text
    assert "none (grows with the images per GPU)" in text
    assert "mean per level, summed" in text
    assert "AP unknown" in text
    assert "added" not in text
    assert max(map(len, describe(model, teacher={**teacher, "config": "t"}, width=80).splitlines()[:12])) <= 80


def model_file(build_detector: Callable[..., Any]) -> str:
    """Of the teacher that the fixture made last."""
    (path,) = [cell.cell_contents for cell in build_detector.__closure__ or () if isinstance(cell.cell_contents, Path)]
    return str(path / "teacher.pth")


@pytest.mark.parametrize(
    ("meta", "known", "text"),
    [
        (
            {"epoch": 10, "iter": 1000},
            {"best_score": 0.441, "best_ckpt": "/x/best_coco_bbox_mAP_epoch_10.pth"},
            "AP 0.441 on the validation split (epoch 10)",
        ),
        (
            {"epoch": 11, "iter": 1100},
            {"best_score": 0.441, "best_ckpt": "/x/best_coco_bbox_mAP_epoch_10.pth"},
            "AP unknown (epoch 11); the best of its training was 0.441 on the validation split (epoch 10)",
        ),
        (
            {"epoch": 0, "iter": 500},
            {"best_score": 0.5, "best_ckpt": "best_pascal_voc_mAP_iter_500.pth"},
            "AP 0.500 on the validation split (iter 500)",
        ),
        ({"epoch": 10}, {"best_score": 0.9, "best_ckpt": "best_coco_bbox_AR_epoch_10.pth"}, "AP unknown"),
        ({}, {}, "AP unknown"),
    ],
)
def test_ap_of_a_checkpoint(meta: dict[str, Any], known: dict[str, Any], text: str) -> None:
    assert ap_text({"meta": meta, "message_hub": {"runtime_info": known}}) == text
    assert ap_text({"meta": {}}) == "AP unknown"  # a published file


def test_shares_in_the_log(explained: Path) -> None:
    rows = scalars(explained)
    assert len(rows) == 9
    for number, row in enumerate(rows):
        assert sum(row[f"share_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        assert sum(row[f"grad_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        for part in PARTS:
            assert row[f"share_{part}"] == pytest.approx(row[f"loss_{part}"] / row["loss"], rel=1e-5)
            # Measured at every second step, repeated in between.
            assert (row[f"grad_{part}"] == rows[number - 1][f"grad_{part}"]) == (number % 2 == 1)
            assert row[f"grad_{part}"] > 0
        total = sum(row[f"loss_{part}"] for part in PARTS)
        assert row["loss"] == pytest.approx(total, rel=1e-5)  # shares are logged, not added


def test_shares_by_hand() -> None:
    assert shares({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    assert shares({"a": 0.0}) == {"a": 0.0}
    assert shares({}) == {}


def test_gradient_norms_by_hand() -> None:
    weights = torch.ones(2, requires_grad=True)
    maps = [weights[0] * torch.ones(1, 2, 2, 2), weights[1] * torch.ones(1, 2, 1, 1)]
    losses = {
        "loss_one": (3 * maps[0]).sum(),  # 3 at 8 numbers
        "loss_twice": 2 * (3 * maps[0]).sum(),
        "loss_both": [maps[0].sum(), (2 * maps[1]).sum()],  # 1 at 8 numbers, 2 at two
        "loss_mean": maps[0],  # of which mmengine takes the mean: 1 / 8 at 8 numbers
        "loss_apart": weights.sum(),
        "loss_constant": torch.tensor(5.0),
    }
    norms = gradient_norms(losses, maps)
    expected = (3 * 8**0.5, 6 * 8**0.5, 16**0.5, 8**-0.5, 0, 0)
    assert list(norms.values()) == pytest.approx(expected)
    assert list(gradient_norms(losses, maps, scale=4).values()) == pytest.approx([4 * each for each in expected])
    assert weights.grad is None
    losses["loss_both"][1].backward()  # the graph is still there
    assert weights.grad is not None
    assert gradient_norms({"loss": torch.ones((), requires_grad=True)}, [torch.ones(1)]) == {"loss": 0.0}


def test_meter_on_a_detector(build_detector: Callable[..., Any], training_step: tuple[Any, list[Any]]) -> None:
    def measured(weight: float) -> tuple[dict[str, float], Any]:
        terms = [{**DISTILL[0], "weight": weight}, DISTILL[2]]
        model = build_detector("gfl", teacher="gfl", distill=terms).train()
        meter = GradientMeter(model)
        losses = model(*copy.deepcopy(training_step), mode="loss")
        meter.close()
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())
        sum(value for key, value in losses.items() if "loss" in key).backward()
        return meter.norms, model

    (one, _), (two, _) = measured(1), measured(2)
    assert set(one) == {"loss_cls", "loss_bbox", "loss_dfl", "loss_ld_main", "loss_kd_main"}
    assert all(norm > 0 for norm in one.values())
    assert two.pop("loss_ld_main") == pytest.approx(2 * one.pop("loss_ld_main"), rel=1e-5)
    assert two == pytest.approx(one, rel=1e-5)


def test_pictures_at_the_start_at_intervals_and_at_the_end(explained: Path) -> None:
    names = [f"epoch_{epoch}_image_{image}" for epoch in (0, 2, 3) for image in (1, 2)]
    assert pictures(explained) == sorted(f"{name}_{kind}.png" for name in names for kind in ("regions", "edges"))
    for path in (explained / "pictures").iterdir():
        height, width = cv2.imread(str(path)).shape[:2]
        assert 300 < height < 2000
        assert 900 < width < 2000


def test_resume_draws_no_start(tiny_config: Path, teacher: tuple[Path, Path], explained: Path, tmp_path: Path) -> None:
    shutil.copytree(explained, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("pictures", "2*"))
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache", images=1)
    (tmp_path / "run" / "last_checkpoint").write_text(str(tmp_path / "run" / "epoch_3.pth"), encoding="utf-8")
    train(config, work_dir=tmp_path / "run", resume=True, overrides={**OVERRIDES, "train_cfg.max_epochs": 5})
    assert {name.split("_image")[0] for name in pictures(tmp_path / "run")} == {"epoch_4", "epoch_5"}


def test_iterations_and_images_without_ground_truth(
    tiny_config: Path, teacher: tuple[Path, Path], squares: Path, tmp_path: Path
) -> None:
    document = json.loads((squares / "train.json").read_text(encoding="utf-8"))
    document["annotations"] = document["annotations"][-1:]  # of image 10: none among the first ten
    (tmp_path / "empty.json").write_text(json.dumps(document), encoding="utf-8")
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache", interval=None, images=1)
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 5}
    config.train_dataloader.dataset.ann_file = str(tmp_path / "empty.json")
    overrides = {**OVERRIDES, "log_level": "ERROR", "log_processor.by_epoch": False}
    build_runner(config, work_dir=tmp_path, overrides={**overrides, "default_hooks.checkpoint.by_epoch": False}).train()
    # A quarter of five, rounded up, is two.
    assert pictures(tmp_path) == [f"iter_{count}_image_1_regions.png" for count in (0, 2, 4, 5)]
    for row in scalars(tmp_path):
        assert sum(row[f"share_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        assert sum(row[f"grad_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)


def test_a_detector_without_a_teacher_is_left_alone(build_detector: Callable[..., Any]) -> None:
    hook = ExplainDistillation()
    runner: Any = SimpleNamespace(model=build_detector("gfl"), iter=0, epoch=0)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0, outputs={})
    hook.after_train_epoch(runner)


def test_added_once_to_distilled_configs(tiny_config: Path) -> None:
    config = load_config(tiny_config)
    add_explanation(config)
    add_explanation(config)
    assert [dict(hook) for hook in config.custom_hooks] == [{"type": "ExplainDistillation"}]
    config.custom_hooks = [{"type": "EMAHook"}, {"type": ExplainDistillation, "images": 0}]
    add_explanation(config)
    assert len(config.custom_hooks) == 2
    assert issubclass(ExplainDistillation, Hook)


def sample(boxes: list[list[float]], labels: list[int]) -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    found = DetDataSample(metainfo={"img_shape": (64, 90), "ori_shape": (64, 90), "scale_factor": (1, 1)})
    found.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels=torch.tensor(labels, dtype=torch.long)
    )
    pixels = torch.randint(0, 256, (3, 64, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"inputs": pixels, "data_samples": found}


BOXES, LABELS = [[8.0, 8.0, 40.0, 40.0], [50.0, 5.0, 88.0, 60.0]], [0, 1]


@pytest.mark.parametrize("kind", ["gfl", "gflv2", "atss", "fcos", "retina"])
def test_every_head_is_pictured(build_detector: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    terms = [DISTILL[0], DISTILL[1], {"type": "IoULocalizationKD", "region": "full", "weight": 1}]
    model = build_detector(kind, teacher=kind, distill=terms)
    seen = look(model, sample(BOXES, LABELS))
    assert seen.canvas_hw == (64, 96)
    rows = region_weights(model, seen)
    assert [row.name for row in rows] == ["main", "vlr\ngamma=0.1", "full"]
    assert [[level.stride for level in row.levels] for row in rows] == [[8, 16, 32, 64, 128]] * 3
    assert [len(level.weights) for level in rows[2].levels] == [8 * 12, 4 * 6, 2 * 3, 1 * 2, 1]
    assert all(len(set(map(tuple, level.centres))) == len(level.centres) for row in rows for level in row.levels)
    positives = choose_positives(model, seen, count=3)
    assert 1 <= len(positives) <= 2
    for positive in positives:
        assert positive.label in LABELS
        assert (positive.distances(positive.truth) > 0).all()
        for edges in (positive.teacher, positive.student):
            # The box is where the distribution's mean says.
            means = (edges.distribution() * np.arange(17)).sum(axis=1)
            np.testing.assert_allclose(positive.distances(edges.box), means, atol=1e-4)
    save_png(region_figure(seen, rows, title="regions"), tmp_path / "regions.png")
    figure = edge_figure(seen, positives, classes=("a", "b"), temperature=edge_temperature(model), title="edges")
    save_png(figure, tmp_path / "edges.png")
    assert all(cv2.imread(str(tmp_path / name)).std() > 20 for name in ("regions.png", "edges.png"))


def test_without_ground_truth_there_are_regions_only(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gfl", teacher="gfl", distill=[DISTILL[0], {**DISTILL[3], "region": "full"}])
    seen = look(model, sample([], []))
    main, full = region_weights(model, seen)
    assert sum(len(level.weights) for level in main.levels) == 0
    assert sum(len(level.weights) for level in full.levels) == 8 * 12 + 24 + 6 + 2 + 1
    assert choose_positives(model, seen, count=3) == []
    FigureCanvasAgg(region_figure(seen, [main, full], title="nothing")).draw()


def test_without_distributions_there_are_no_edges(build_detector: Callable[..., Any]) -> None:
    terms = [{"type": "IoULocalizationKD", "region": "main", "weight": 1}]
    model = build_detector("atss", teacher="plain_atss", distill=terms)
    seen = look(model, sample(BOXES, LABELS))
    assert len(region_weights(model, seen)) == 1
    assert choose_positives(model, seen, count=3) == []
    assert edge_temperature(model) == 1


def test_the_cross_branch_of_other_priors_is_pictured(build_detector: Callable[..., Any]) -> None:
    terms = [{"type": "LocalizationKD", "region": "teacher_score", "weight": 1, "branch": "cross"}]
    model = build_detector(
        "gfl", teacher="retina", distill=terms, head={"stacked_convs": 2}, teacher_head={"stacked_convs": 2}
    )
    seen = look(model, sample(BOXES, LABELS))
    (row,) = region_weights(model, seen)
    assert row.name == "teacher_score\n(cross branch)"
    assert row.used_by == ["cross_ld_teacher_score"]
    assert [level.count for level in row.levels] == [96, 24, 6, 2, 1]
    assert len(row.levels[0].weights) == 96
    assert choose_positives(model, seen, count=3) == []


def black(boxes: list[list[float]]) -> Look:
    batch: Any = SimpleNamespace(gt_boxes=[torch.tensor(boxes).view(-1, 4)])
    return Look(np.zeros((64, 64, 3), np.uint8), (64, 96), torch.zeros(len(boxes), dtype=torch.long), batch, {})


def test_region_picture_shows_the_region() -> None:
    weights = LevelWeights(8.0, np.array([[16.0, 16.0], [48.0, 32.0]]), np.array([0.2, 1.0]), count=64)
    nothing = LevelWeights(16.0, np.zeros((0, 2)), np.zeros(0), count=16)
    figure = region_figure(black([]), [RegionWeights("main", ["ld_main"], [weights, nothing])], title="x")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())

    def colour(column: int, x: float, y: float) -> tuple[int, ...]:
        right, up = figure.axes[column].transData.transform((x, y))
        return tuple(int(value) for value in pixels[len(pixels) - 1 - int(up), int(right), :3])

    ground = colour(0, 30, 50)
    assert len(set(ground)) == 1  # grey
    for x, y in ((13, 13), (19, 19), (45, 29), (51, 35)):  # up to half a stride from the location
        red, green, blue = colour(0, x, y)
        assert red > max(green, blue) + 30
    for x, y in ((11, 16), (21, 16), (48, 27), (48, 37)):
        assert colour(0, x, y) == ground
    assert colour(0, 48, 32) != colour(0, 16, 16)
    assert colour(1, 16, 16) == ground  # the other level
    assert colour(0, 80, 32) == (200, 200, 200)  # padding
    texts = [axes.get_title() for axes in figure.axes]
    assert texts[:2] == ["stride 8: 2 of 64 locations", "stride 16: none of 16 locations"]


def test_levels_by_hand() -> None:
    # Two levels of 2 and 1 locations, two priors at each.
    priors = torch.tensor([[0, 0, 8, 8], [2, 2, 6, 6], [8, 0, 16, 8], [10, 2, 14, 6], [0, 0, 16, 16], [4, 4, 12, 12.0]])
    generator = SimpleNamespace(strides=[(8, 8), (16, 16)])
    model = SimpleNamespace(bbox_head=SimpleNamespace(num_base_priors=2, prior_generator=generator))
    assigned = SimpleNamespace(priors=priors[None], level_sizes=[4, 2])
    seen: Any = SimpleNamespace(batch=SimpleNamespace(assigned=assigned))
    fine, coarse = by_level(model, seen, torch.tensor([[0, 0, 0.25, 0.5, 0.75, 0]]))
    assert (fine.count, coarse.count) == (2, 1)
    assert fine.centres.tolist() == [[12, 4]]
    assert fine.weights.tolist() == [0.5]
    assert coarse.centres.tolist() == [[8, 8]]
    assert coarse.weights.tolist() == [0.75]
    # Of a layout with one prior a location.
    assert [level.weights.tolist() for level in by_level(model, seen, torch.tensor([[1.0, 0, 2]]))] == [[1], [2]]


def test_edges_by_hand() -> None:
    edges = Edges(logits=np.log(np.array([[1.0, 3.0], [1.0, 1.0]])), box=np.array([2.0, 0, 30, 40]), score=0.5)
    np.testing.assert_allclose(edges.distribution(), [[0.25, 0.75], [0.5, 0.5]])
    soft = edges.distribution(temperature=2)[0]
    assert soft[1] / soft[0] == pytest.approx(3**0.5)
    positive = Positive(0, 8.0, np.array([10.0, 16.0]), edges.box, edges, edges)
    assert positive.distances(edges.box).tolist() == [1, 2, 2.5, 3]


def test_positives_are_the_teachers_surest_inside_one_box_of_their_class(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gfl", teacher="gfl", distill=DISTILL[:1])
    seen = look(model, sample(BOXES, LABELS))
    batch = seen.batch
    # Locations of stride 8 at (16, 16), (24, 24), (32, 32) are positive; the teacher is surest of the second.
    places = [2 * 12 + 2, 3 * 12 + 3, 4 * 12 + 4]
    labels = torch.full_like(batch.assigned.labels, 2)
    labels[0, places] = 0
    logits = torch.full_like(batch.teacher.class_logits, -5)
    logits[0, places[1]] = 2
    logits[0, 0] = 5  # surer still, but not positive
    batch = replace(
        batch,
        assigned=replace(batch.assigned, labels=labels),
        teacher=replace(batch.teacher, class_logits=logits),
    )
    (positive,) = choose_positives(model, replace(seen, batch=batch), count=3)
    assert positive.centre.tolist() == [24, 24]
    assert positive.truth.tolist() == BOXES[0]
    assert positive.teacher.score == pytest.approx(float(torch.tensor(2.0).sigmoid()))
    # A second box of the class around (24, 24) and (32, 32): only (16, 16) is in one box alone.
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 20.0, 60.0, 60.0]])
    both = replace(seen, batch=replace(batch, gt_boxes=[boxes]), labels=torch.tensor([0, 0]))
    (positive,) = choose_positives(model, both, count=3)
    assert positive.centre.tolist() == [16, 16]


def test_looking_leaves_everything_as_it_was(
    tiny_config: Path, build_detector: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    config = load_config(tiny_config)
    config.train_dataloader.dataset.pipeline = FLIPPED
    from mmdet.registry import DATASETS

    dataset = DATASETS.build(config.train_dataloader.dataset)
    seed()
    expected = draw()
    seed()
    stills = load_stills(dataset, count=2)
    assert draw() == expected
    again = load_stills(dataset, count=2)
    for first, second in zip(stills, again, strict=True):
        assert torch.equal(first["inputs"], second["inputs"])
        assert first["data_samples"].flip == second["data_samples"].flip
    assert len(load_stills(dataset, count=30)) == 12
    empty, full = sample([], []), sample(BOXES, LABELS)
    assert [len(each["data_samples"].gt_instances) for each in load_stills([empty, full], count=1)] == [2]
    assert [len(each["data_samples"].gt_instances) for each in load_stills([empty, full], count=2)] == [2, 0]

    model = build_detector("gfl", teacher="gfl", distill=DISTILL[:1]).train()
    model.backbone.norm_eval = True
    model.train()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    seed()
    look(model, stills[0])
    assert draw() == expected
    assert [module.training for module in model.modules()] == modes
    assert same(dict(model.state_dict()), before)
    model.backbone.norm_eval = False
    model.train()
    with undisturbed(model):
        assert model.bbox_head.training
        assert not any(module.training for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
        model.backbone.bn1.running_mean.add_(1)
    assert model.backbone.bn1.training
    assert same(dict(model.state_dict()), before)
