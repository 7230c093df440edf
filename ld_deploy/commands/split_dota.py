from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def split_dota(
    images: Annotated[Path, typer.Argument(help="Folder of images.")],
    labels: Annotated[Path, typer.Argument(help="Folder of their DOTA text files.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for images/ and labelTxt/ of the tiles.")],
    size: Annotated[int, typer.Option(min=1, help="Side of a tile, pixels.")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Pixels that neighbours share.")] = 200,
    min_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of an object's area that a tile must hold.")
    ] = 0.7,
    as_json: JsonOption = False,
) -> None:
    """Cut large images and their rotated boxes into tiles, both in DOTA's text format.

    An object is annotated in each tile that holds enough of it. An interrupted run goes on where it stopped.

    For example:

        ld-deploy split-dota train/images train/labelTxt -o data/dota/train
    """
    from dataclasses import asdict

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from ld_deploy.rotated.split import split_dota as run

    screen = Screen(as_json=as_json)
    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=screen.console) as bar:
        task = bar.add_task("images", total=None)
        summary = run(
            images,
            labels,
            output,
            size=size,
            overlap=overlap,
            min_share=min_share,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    lost = f"; objects that no tile holds enough of: {summary.lost_objects}" if summary.lost_objects else ""
    screen.console.print(
        f"{output}: {summary.tiles} tiles of {summary.images} images, {summary.empty_tiles} without an object{lost}"
    )
    screen.result({"output": str(output), **asdict(summary)})
