"""mmdet's own Localization Distillation beside ours: same student, same teacher weights, same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from ld_deploy.bench_train_steps import StepRunner, TeacherRunner
from ld_deploy.checkpoint import without_pretrained
from ld_deploy.config import load_config, student_only

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS, MMDET = "GFLVotingHead", "GFLHead"
LOCALIZATION = {"type": "KnowledgeDistillationKLDivLoss", "loss_weight": 0.25, "T": 10}


def why_not_mmdet(config: Config) -> str | None:
    """In a sentence, why mmdet has no LD for the student and the teacher of a config; None where it has."""
    teacher = load_config(config.model.teacher.config).model.bbox_head.type
    for role, head, known in (
        ("student", config.model.bbox_head.type, (OURS,)),
        ("teacher", teacher, (OURS, MMDET)),
    ):
        if head not in known:
            return f"mmdet's own LD was not timed: it knows GFL alone, and the {role}'s head is a {head}."
    return None


def mmdet_models(
    config: Config, *, student: Any, teacher: Any, memory_format: torch.memory_format = torch.contiguous_format
) -> tuple[Any, Any]:
    """The plain GFL and the LD detector of mmdet, with the weights of ours.

    Args:
        config: of the distilled student.
        student: our plain detector, whose weights and device are taken.
        teacher: our teacher's detector, likewise.
        memory_format: of both, and of the teacher.
    """
    plain_config = student_only(config).model
    plain_config.update(type="GFL")
    plain_config.bbox_head.type = MMDET
    plain: Any = MODELS.build(plain_config)
    plain.load_state_dict(student.state_dict())

    teacher_config = Config(load_config(config.model.teacher.config).to_dict())
    without_pretrained(teacher_config.model)
    teacher_config.model.bbox_head.type = MMDET
    distilled_config = student_only(config).model
    distilled_config.update(type="KnowledgeDistillationSingleStageDetector", teacher_config=teacher_config)
    distilled_config.bbox_head.update(type="LDHead", loss_ld=LOCALIZATION)
    distilled: Any = MODELS.build(distilled_config)
    distilled.load_state_dict(student.state_dict())
    distilled.teacher_model.load_state_dict(teacher.state_dict())
    device = next(student.parameters()).device
    for model in (plain, distilled):
        model.to(device)
        model.train()
    for model in (plain, distilled, distilled.teacher_model):
        torch.nn.Module.to(model, memory_format=memory_format)  # the LD detector's own takes no format
    return plain, distilled


def mmdet_runners(
    config: Config, *, student: Any, teacher: Any, memory_format: torch.memory_format, common: Mapping[str, Any]
) -> list[Any]:
    """Spans `mmdet_student_step`, `mmdet_teacher_forward` and `mmdet_ld_step`, with their stages.

    Args:
        config: of the distilled student.
        student: see `mmdet_models`.
        teacher: see `mmdet_models`.
        memory_format: see `mmdet_models`.
        common: arguments of every `StepRunner`.
    """
    plain, distilled = mmdet_models(config, student=student, teacher=teacher, memory_format=memory_format)

    @torch.no_grad()
    def forward(images: torch.Tensor) -> Any:
        return distilled.teacher_model.bbox_head(distilled.teacher_model.extract_feat(images))

    teacher_common = {name: common[name] for name in ("batch", "precision", "clock")}
    return [
        StepRunner("mmdet_student", plain, **common),
        TeacherRunner("mmdet_teacher_forward", forward, **teacher_common),
        StepRunner("mmdet_ld", distilled, **common),
    ]
