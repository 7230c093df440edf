"""An AP landscape as JSON and as a picture."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from rich.table import Table

from ld_deploy.compare import TOOLS
from ld_runtime.bench_report import machine, sha256_of
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ld_deploy.landscape import Curve, Side

STYLES = {"ap": "-", "ap50": "--", "ap75": ":"}


def to_json_content(
    curves: Sequence[Curve],
    *,
    a: Side,
    b: Side,
    mixes: Sequence[float],
    split: str,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON file's content: AP 0 to 1, in the order of `mix`."""
    return {
        "models": {name: record(side) for name, side in (("a", a), ("b", b))},
        "split": split,
        "overrides": dict(overrides),
        "mix": list(mixes),
        "curves": [asdict(curve) for curve in curves],
        "machine": machine(),
        "versions": {name: version(name) for name in TOOLS},
    }


def record(side: Side) -> dict[str, Any]:
    """Where a model is from; `sha256` of the checkpoint is None for a URL."""
    path = Path(side.checkpoint)
    config = getattr(side.config, "filename", None) or side.config
    return {
        "config": str(config),
        "checkpoint": str(side.checkpoint),
        "sha256": sha256_of(path) if path.is_file() else None,
    }


def table(content: Mapping[str, Any]) -> Table:
    """AP in points for each mix, by head.

    Args:
        content: as `to_json_content` gave it.
    """
    shown = Table("mix", *(f"{curve['head'].upper()}'s head: {key}" for curve in content["curves"] for key in STYLES))
    for point, mix in enumerate(content["mix"]):
        cells = [f"{100 * curve[key][point]:.1f}" for curve in content["curves"] for key in STYLES]
        shown.add_row(f"{mix:g}", *cells)
    return shown


def draw(content: Mapping[str, Any], *, output: Path) -> None:
    """The curves of both heads in points over the mix, and where the features are those of one model.

    Args:
        content: as `to_json_content` gave it.
        output: a .png.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for curve, color in zip(content["curves"], ("tab:blue", "tab:orange"), strict=True):
        for key, style in STYLES.items():
            points = [100 * value for value in curve[key]]
            label = f"{key}, head of {curve['head'].upper()}"
            axes.plot(content["mix"], points, style, marker=".", color=color, label=label)
    for mix in (0, 1):
        axes.axvline(mix, color="grey", linewidth=1, alpha=0.6)
    names = [
        f"{name.upper()}: {Path(model['config']).stem}, {'/'.join(Path(model['checkpoint']).parts[-2:])}"
        for name, model in content["models"].items()
    ]
    axes.set_title("\n".join(names), loc="left", fontsize=9)
    axes.set_xlabel("mix of the neck features: 0 is A's, 1 is B's")
    axes.set_ylabel(f"AP on {content['split']}, points")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, fontsize=8)
    with written_whole(output) as temporary:
        figure.savefig(temporary, dpi=130)
