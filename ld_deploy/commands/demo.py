from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen

# The checkout that this file is in.
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "demo"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything.")] = Path("outputs/demo"),
    scale: Annotated[
        str, typer.Option(help="full: minutes on a CPU; tiny: shows that everything runs, AP is noise.")
    ] = "full",
    configs: Annotated[Path, typer.Option(help="Folder with teacher.py, student.py and ld_student.py.")] = CONFIGS,
    as_json: JsonOption = False,
) -> None:
    """The whole job on a rendered data set: train, distil, export, verify, bench, draw, report.

    The same command goes on where an earlier one was interrupted. Exit status 1 when a deployed file does not agree
    with PyTorch.

    For example:

        ld-deploy demo
        ld-deploy demo --scale tiny -o outputs/tiny
    """
    import json

    from ld_runtime.errors import ConfigError
    from ld_runtime.nearest import nearest

    # Before torch: ours is what the screen shows, the libraries' output goes to a log.
    screen = Screen(as_json=as_json)
    screen.console.print(f"ld-deploy demo -> {output}", highlight=False)
    from ld_deploy.demo.pipeline import run_demo
    from ld_deploy.demo.scales import SCALES

    if scale not in SCALES:
        raise ConfigError(f"there is no scale {scale!r}{nearest(scale, SCALES) or ';'} there are: {', '.join(SCALES)}")
    report = run_demo(output, scale=SCALES[scale], configs=configs, console=screen.console)
    stages = sorted((output / "stages").glob("*.json"))
    screen.result(
        {
            "output": str(output),
            "report": str(report),
            "stages": {path.stem: json.loads(path.read_text(encoding="utf-8"))["content"] for path in stages},
        }
    )
