from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def publish(
    config: Annotated[str, typer.Argument(help="Config of the checkpoint.")],
    checkpoint: Annotated[Path, typer.Argument(help="As training wrote it.")],
    output_dir: Annotated[Path, typer.Option("-o", "--output-dir", help="Where the file goes.")] = Path(),
) -> None:
    """Write the student's weights alone: no teacher, no optimiser, its hash in the name, safe to load."""
    from ld_deploy.checkpoint import publish as run

    typer.echo(run(config, checkpoint, output_dir=output_dir))
