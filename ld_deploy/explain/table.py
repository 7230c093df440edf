"""What a distilled training will do, as text."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ld_deploy.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

WORDS = {
    "LocalizationKD": "edge distributions",
    "ClassificationKD": "class distribution",
    "BinaryClassificationKD": "class scores",
    "IoULocalizationKD": "boxes (GIoU)",
    "FeatureKD": "neck features",
    "PearsonKD": "neck features (correlation)",
}
COLUMNS = ("what", "region", "weight", "temperature", "branch", "divided by")
NARROWEST, WIDEST = 80, 132  # characters


def describe(model: Any, *, teacher: Mapping[str, Any], width: int | None = None) -> str:
    """The terms as a table; below it the recipe, the teacher, and what is added to the student for the training.

    Args:
        model: a `DistilledDetector`, not wrapped.
        teacher: its config's `teacher`.
        width: of the table, in characters; None: the terminal's, within reason.

    Raises:
        CheckpointError: The teacher's checkpoint cannot be read.
    """
    recipe = model.distillation.recipe
    table = Table(*COLUMNS, box=box.ASCII2, title="what is distilled", title_justify="left", title_style="")
    for column in table.columns[2:4]:
        column.justify = "right"
    for term in model.distillation.terms:
        name = type(term).__name__
        what = f"{name}: {WORDS[name]}" if name in WORDS else name
        cells = (what, region_text(term), f"{term.weight:g}", f"{term.temperature:g}", term.branch)
        table.add_row(*cells, term.normaliser(recipe=recipe))
    if width is None:
        width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size(fallback=(WIDEST, 24)).columns))
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, markup=False, emoji=False).print(table)
    return "\n".join([*(line.rstrip() for line in stream.getvalue().splitlines()), *notes(model, teacher=teacher)])


def region_text(term: Any) -> str:
    """A term's region, with the options that its config gives."""
    options = ", ".join(f"{name}={value}" for name, value in term.region_options.items())
    return f"{term.region} ({options})" if options else str(term.region)


def notes(model: Any, *, teacher: Mapping[str, Any]) -> list[str]:
    """Lines on recipe, teacher and additions; see `describe`."""
    added = parameter_count(model.distillation)
    own, of_teacher = parameter_count(model) - added, parameter_count(model.teacher.module)
    cache, precision = model.teacher.cache_folder, model.teacher.precision
    lines = [
        f"recipe:      {model.distillation.recipe}",
        f"teacher:     {teacher['config']}",
        f"  weights:   {teacher['checkpoint']}, {ap_text(read_checkpoint(teacher['checkpoint']))}",
        f"  size:      {of_teacher:,} parameters; the student has {own:,} ({own / of_teacher:.0%})",
        f"  precision: {'as the student trains' if precision == 'training' else precision}",
        f"  cache:     {cache or 'none, it runs at every step'}",
    ]
    if added:
        lines.append(
            f"added:       adapters of {added:,} parameters, trained with the student and left out of its file"
        )
    return lines


def parameter_count(module: nn.Module) -> int:
    """Numbers in the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def ap_text(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint knows of its AP on the validation split of its training.

    mmengine keeps the best score and its file in each checkpoint: it is this checkpoint's own only where the two are of
    the same epoch or iteration.
    """
    known = checkpoint.get("message_hub", {}).get("runtime_info", {})
    best = re.search(r"AP\w*?_(epoch|iter)_(\d+)\.pth$", Path(str(known.get("best_ckpt", ""))).name)
    if best is None or "best_score" not in known:
        return "AP unknown"
    unit, count, score = best[1], int(best[2]), known["best_score"]
    own = checkpoint.get("meta", {}).get(unit)
    if own == count:
        return f"AP {score:.3f} on the validation split ({unit} {count})"
    return (
        f"AP unknown ({unit} {own}); the best of its training was {score:.3f} on the validation split ({unit} {count})"
    )
