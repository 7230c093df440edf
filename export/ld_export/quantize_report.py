"""What a quantization did and what it cost: JSON and tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from ld_export.quantize_error import MapError
    from ld_export.quantize_graph import Kind
    from ld_export.quantize_modules import ModuleScales
    from ld_export.quantize_scales import Method
    from ld_export.quantize_sensitivity import LayerSensitivity


# Differences in AP that are none, 0-1.
SAME_AP = 0.002


@dataclass(frozen=True)
class Trial:
    """A method of calibration, with every chosen layer quantized.

    Args:
        method: its name.
        error: of the maps.
        ap: on the labelled images, None without any.
    """

    method: Method
    error: MapError
    ap: float | None


@dataclass(frozen=True)
class QuantizationReport:
    """What was done, and what it cost.

    Args:
        precision: `int8` or `fp8`.
        method: the chosen one.
        trials: every method.
        kept_float: names of the layers that stay float.
        modules: scales of the others, by name.
        sensitivity: of each layer, the most sensitive first; empty where nothing was to be chosen.
        float_ap: AP of the float file on the labelled images, 0-1; None without any.
        ap: of the written file.
        error: of the written file's maps.
        calibration_images: how many.
        labelled_images: how many.
        facts: hashes, machine, versions.
    """

    precision: Kind
    method: Method
    trials: tuple[Trial, ...]
    kept_float: tuple[str, ...]
    modules: dict[str, ModuleScales]
    sensitivity: tuple[LayerSensitivity, ...]
    float_ap: float | None
    ap: float | None
    error: MapError
    calibration_images: int
    labelled_images: int
    facts: dict[str, Any]

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self), indent=1) + "\n"


def report_path(output: Path) -> Path:
    """Where the report of a quantized file lies."""
    return output.with_name(f"{output.name}.json")


def best_of(trials: Sequence[Trial]) -> Trial:
    """The method that is used: of those within `SAME_AP` of the most AP the one with the least error of the maps.

    AP on some hundred images cannot tell them apart further; the error can, and without ground truth it decides alone:
    a pixel error and a score error weigh alike, each in parts of the largest.
    """
    most = max((one.ap for one in trials if one.ap is not None), default=None)
    among = trials if most is None else [one for one in trials if one.ap is not None and one.ap >= most - SAME_AP]
    edge = max(one.error.edge_px for one in trials) or 1.0
    score = max(one.error.score for one in trials) or 1.0
    return min(among, key=lambda one: one.error.edge_px / edge + one.error.score / score)


def trial_table(report: QuantizationReport) -> Table:
    """The methods, the chosen one marked, the written file and the float one."""
    from rich.table import Table

    table = Table(title=f"{report.precision}, calibrated on {report.calibration_images} images")
    for column in ("method", "edge error, px", "score error", f"AP on {report.labelled_images} images"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for one in report.trials:
        mark = " (chosen)" if one.method == report.method else ""
        table.add_row(one.method + mark, f"{one.error.edge_px:.3f}", f"{one.error.score:.5f}", _points(one.ap))
    written = f"written, {len(report.kept_float)} layers float"
    table.add_row(written, f"{report.error.edge_px:.3f}", f"{report.error.score:.5f}", _points(report.ap))
    table.add_row("fp32", "0", "0", _points(report.float_ap))
    return table


def sensitivity_table(report: QuantizationReport) -> Table:
    """The layers, each quantized alone, the most sensitive first."""
    from rich.table import Table

    table = Table(title="Each layer quantized alone")
    table.add_column("layer", no_wrap=True)
    for column in ("edge, px", "score", "of error", "of sums"):
        table.add_column(column, justify="right")
    table.add_column("")
    for one in report.sensitivity:
        table.add_row(
            one.name,
            f"{one.error.edge_px:.3f}",
            f"{one.error.score:.5f}",
            f"{one.error_share:.1%}",
            f"{one.multiply_add_share:.1%}",
            "float" if one.name in report.kept_float else "",
        )
    return table


def _points(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.2f}"
