"""mmengine's log of a work dir as curves over epochs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import DataError
from ld_runtime.report.material import Training, TrainingPicture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ld_runtime.report.material import Point

LOG = "vis_data/scalars.json"
VAL_AP = ("coco/bbox_mAP", "pascal_voc/mAP")
PICTURE = re.compile(r"(?:epoch|iter)_(\d+)_image_(\d+)_(regions|edges)\.png")
LONGEST = 400  # points of a curve: more than a screen shows


def read_training(folder: Path, *, name: str) -> Training | None:
    """The log of a work dir; None where there is nothing in it yet.

    Args:
        folder: with TIMESTAMP/vis_data/scalars.json; of a step that a resumed run repeats, the later counts.
        name: for the report.

    Raises:
        DataError: A line is damaged.
    """
    steps: dict[int, dict[str, Any]] = {}
    evaluations: dict[int, float] = {}
    for path in sorted(folder.glob(f"*/{LOG}")):
        for record in _records(path):
            found = next((record[key] for key in VAL_AP if key in record), None)
            if found is not None:
                evaluations[record["step"]] = found
            elif "loss" in record and "epoch" in record:
                steps[record["step"]] = record
    if not steps:
        return None
    # The last step of an epoch is the largest with its number: exact where an epoch's end was logged.
    steps_per_epoch = max(step / record["epoch"] for step, record in steps.items())
    by_epoch = max(evaluations, default=0) <= max(record["epoch"] for record in steps.values())
    return Training(
        name=name,
        folder=folder,
        losses=_curves(steps, "loss", steps_per_epoch),
        loss_shares=_curves(steps, "share_", steps_per_epoch),
        gradient_shares=_curves(steps, "grad_", steps_per_epoch, without="grad_norm"),
        val_ap=tuple((at if by_epoch else at / steps_per_epoch, ap) for at, ap in sorted(evaluations.items())),
        pictures=tuple(find_pictures(folder / "pictures")),
    )


def find_pictures(folder: Path) -> Sequence[TrainingPicture]:
    """The pictures of the explanation hook, the first epoch first."""
    found = [
        TrainingPicture(path, kind=match[3], epoch=int(match[1]), image=int(match[2]))
        for path in folder.glob("*.png")
        if (match := PICTURE.fullmatch(path.name))
    ]
    return sorted(found, key=lambda one: (one.epoch, one.image, one.kind))


def _records(path: Path) -> list[dict[str, Any]]:
    """Its lines. The last may be half a line: the training is still running, or was killed."""
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise DataError(f"{path}, line {number} is damaged ({error}): leave it out or train again") from error
    return records


def _curves(
    steps: dict[int, dict[str, Any]], prefix: str, steps_per_epoch: float, *, without: str = ""
) -> dict[str, tuple[Point, ...]]:
    """Values of each name that starts with `prefix`, by (fractional) epoch."""
    names = dict.fromkeys(
        key for record in steps.values() for key in record if key.startswith(prefix) and key != without
    )
    curves = {}
    for name in names:
        points = [
            (step / steps_per_epoch, float(record[name])) for step, record in sorted(steps.items()) if name in record
        ]
        stride = max(1, -(-len(points) // LONGEST))
        curves[name] = tuple(points[::-1][::stride][::-1])  # the last is kept
    return curves
