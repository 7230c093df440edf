from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from torch import nn

from ld_deploy.distill.batch import RECIPES, Assignment, DistillBatch, Recipe
from ld_deploy.distill.cross import CrossBranch
from ld_deploy.distill.regions import REGIONS, WITHOUT_ASSIGNMENT
from ld_deploy.distill.teacher import check_fit, describe_centres, describe_locations
from ld_deploy.distill.towers import Recorder
from ld_runtime.errors import ConfigError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ld_deploy.distill.teacher import FrozenTeacher


class Distillation(nn.Module):
    """The terms of a config, their regions, and the trained parts that only distillation needs (adapters).

    Args:
        distill: terms, as dicts of a registered type.
        recipe: `default` or `published`.
        cross: options of `CrossBranch`, for terms with branch='cross'.

    Raises:
        ConfigError: No term, the same one twice, an unknown recipe, region or branch.
    """

    def __init__(
        self, distill: Sequence[dict[str, Any]], *, recipe: Recipe = "default", cross: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        if recipe not in RECIPES:
            guess = nearest(recipe, RECIPES) or ";"
            raise ConfigError(f"there is no distillation recipe {recipe!r}{guess} there are: {', '.join(RECIPES)}")
        if not distill:
            raise ConfigError("distill names no term: give at least one, or train the detector without a teacher")
        self.recipe: Recipe = recipe
        terms: list[Any] = [MODELS.build(dict(term)) for term in distill]
        names = [term.loss_name for term in terms]
        if len(set(names)) != len(names):
            raise ConfigError(f"each pair of term and region may stand once in distill, got {', '.join(names)}")
        self.terms: Any = nn.ModuleList(terms)
        self.uses_features = any(term.uses_features for term in terms)
        self.uses_cross = any(term.branch == "cross" for term in terms)
        if cross is not None and not self.uses_cross:
            raise ConfigError("the config has options of the cross branch, and no term with branch='cross'")
        self._cross_options = dict(cross or {})
        self.cross: CrossBranch | None = None

    def connect(self, student: Any, teacher: FrozenTeacher) -> None:
        """Checks that the teacher fits and makes the adapters.

        Raises:
            ConfigError: It does not fit, and in what.
        """
        check_fit(teacher.module, student, terms=self.terms)
        teacher.with_features = self.uses_features
        for term in self.terms:
            if term.uses_features:
                term.connect(student.bbox_head.in_channels, teacher.module.bbox_head.in_channels)
        if not self.uses_cross:
            return
        self.cross = CrossBranch(student.bbox_head, teacher.module.bbox_head, **self._cross_options)
        teacher.recorder = Recorder(teacher.module.bbox_head, convs=self.cross.teacher_convs)
        descriptions = describe_locations, describe_centres
        if all(describe(student) == describe(teacher.module) for describe in descriptions):
            return
        for term in self.terms:
            by_level = term.by_level and self.recipe == "published"
            if term.branch == "cross" and (term.region not in WITHOUT_ASSIGNMENT or by_level):
                message = (
                    f"{term.loss_name}: the teacher predicts at other locations than the student; then branch='cross' "
                    f"has the regions {', '.join(WITHOUT_ASSIGNMENT)}, and no mean by level as of ClassificationKD in "
                    "the published recipe"
                )
                raise ConfigError(message)

    def regions(self, batch: DistillBatch) -> dict[int, Tensor]:
        """The weights (N, L) of each term's region, by the term's place; equal regions are computed once."""
        known: dict[tuple[Any, ...], Tensor] = {}
        found = {}
        for place, term in enumerate(self.terms):
            key = (term.branch, term.region, *sorted(term.region_options.items()))
            if key not in known:
                view = batch if term.branch == "own" else across(batch)
                with torch.no_grad():
                    known[key] = REGIONS[term.region](view, recipe=self.recipe, **term.region_options)
            found[place] = known[key]
        return found

    def forward(self, batch: DistillBatch) -> dict[str, Tensor]:
        """One loss a term, and `locations_BRANCH_REGION`, own branch unnamed: members of each region, per image."""
        regions = self.regions(batch)
        losses = {
            term.loss_name: term(batch, regions[place], recipe=self.recipe) for place, term in enumerate(self.terms)
        }
        for place, term in enumerate(self.terms):
            branch = "cross_" if term.branch == "cross" else ""
            losses[f"locations_{branch}{term.region}"] = (regions[place] > 0).sum().float() / len(regions[place])
        return losses


def across(batch: DistillBatch) -> DistillBatch:
    """The batch as the cross branch's regions see it: its predictions as the student's, in the teacher's layout."""
    if batch.cross is None:
        raise ConfigError("the batch has no cross branch")
    logits = batch.cross.class_logits
    images, locations, classes = logits.shape
    assigned = batch.assigned
    if locations != assigned.labels.shape[1]:
        assigned = Assignment(
            priors=logits.new_zeros(images, locations, 4),
            valid=torch.ones(images, locations, dtype=torch.bool, device=logits.device),
            labels=torch.full((images, locations), classes, device=logits.device),
            level_sizes=[locations],
        )
    return replace(batch, student=batch.cross, assigned=assigned)
