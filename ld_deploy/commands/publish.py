from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def publish(
    config: Annotated[str, typer.Argument(help="Config of the checkpoint.")],
    checkpoint: Annotated[Path, typer.Argument(help="As training wrote it.")],
    output_dir: Annotated[Path, typer.Option("-o", "--output-dir", help="Where the file goes.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write the student's weights alone: no teacher, no optimiser, its hash in the name, safe to load.

    For example:

        ld-deploy publish configs/demo/ld_student.py work_dirs/ld_student/best.pth
    """
    from ld_deploy.checkpoint import publish as run

    screen = Screen(as_json=as_json)
    with screen.captured():
        path = run(config, checkpoint, output_dir=output_dir)
    screen.console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    screen.result({"config": config, "checkpoint": str(checkpoint), "published": str(path)})
