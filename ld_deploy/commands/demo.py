from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# The checkout that this file is in.
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "demo"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything.")] = Path("outputs/demo"),
    scale: Annotated[
        str, typer.Option(help="full: minutes on a CPU; tiny: shows that everything runs, AP is noise.")
    ] = "full",
    configs: Annotated[Path, typer.Option(help="Folder with teacher.py, student.py and ld_student.py.")] = CONFIGS,
) -> None:
    """The whole job on a rendered data set: train, distil, export, verify, bench, draw, report.

    The same command goes on where an earlier one was interrupted. Exit status 1 when a deployed file does not agree
    with PyTorch.
    """
    import sys

    from rich.console import Console

    from ld_runtime.errors import ConfigError

    # Before torch: ours is what the screen shows, the libraries' output goes to a log.
    console = Console(file=sys.stdout)
    console.print(f"ld-deploy demo -> {output}", highlight=False)
    from ld_deploy.demo.pipeline import run_demo
    from ld_deploy.demo.scales import SCALES

    if scale not in SCALES:
        raise ConfigError(f"there is no scale {scale!r}; there are: {', '.join(SCALES)}")
    run_demo(output, scale=SCALES[scale], configs=configs, console=console)
