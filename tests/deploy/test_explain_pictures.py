"""What is seen of a training step, and the pictures of it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ld_deploy.config import load_config
from ld_deploy.explain.edge_picture import edge_figure
from ld_deploy.explain.hook import edge_temperature
from ld_deploy.explain.panels import save_png
from ld_deploy.explain.positives import Edges, Positive, choose_positives
from ld_deploy.explain.region_picture import LevelWeights, RegionWeights, by_level, region_figure, region_weights
from ld_deploy.explain.stills import Look, load_stills, look, undisturbed
from tests.deploy.explain_cases import BOXES, DISTILL, FLIPPED, LABELS, same, sample

if TYPE_CHECKING:
    from collections.abc import Callable


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
        assert (positive.places(positive.truth) > 0).all()
        for edges in (positive.teacher, positive.student):
            # The box is where the distribution's mean says.
            means = (edges.distribution() * np.arange(17)).sum(axis=1)
            np.testing.assert_allclose(positive.places(edges.box), means, atol=1e-4)
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
    overlaps = SimpleNamespace(prior_centres=(priors[None, :, :2] + priors[None, :, 2:]) / 2)
    seen: Any = SimpleNamespace(batch=SimpleNamespace(assigned=assigned, overlaps=overlaps))
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
    assert positive.places(edges.box).tolist() == [1, 2, 2.5, 3]


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
    # Five distributions of another head than RotatedGFLHead are deltas from an anchor: no distance to be drawn.
    five = (replace(one, edge_logits=torch.zeros(1, labels.shape[1], 5, 9)) for one in (batch.student, batch.teacher))
    deltas = replace(batch, **dict(zip(("student", "teacher"), five, strict=True)))
    assert choose_positives(model, replace(seen, batch=deltas), count=3) == []
    # A second box of the class around (24, 24) and (32, 32): only (16, 16) is in one box alone.
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [20.0, 20.0, 60.0, 60.0]])
    assigned = replace(batch.assigned, overlaps=None)  # they are of the boxes before
    both = replace(seen, batch=replace(batch, assigned=assigned, gt_boxes=[boxes]), labels=torch.tensor([0, 0]))
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
