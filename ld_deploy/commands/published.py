from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def published(
    configs: Annotated[Path, typer.Option(help="Folder of the configs.")] = Path("configs"),
    results: Annotated[Path, typer.Option(help="Folder of this project's results.")] = Path("docs/results"),
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the rows to this JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every config, what was published for it, and what was measured here. AP in points.

    Published APs are of COCO val2017 where nothing else stands beside them, with plain NMS. Those measured here are of
    the test split of the config's own data, with the voting NMS, which was published to add 0.1 to 0.3 on COCO. A dash
    is for what was not published, or not measured.

    A config's row comes from `published = dict(ap=0.421, on='COCO val2017', source='...')` in its own text. A
    measurement is any object of a JSON in the results folder that has config and ap:
    {"config": "configs/bccd/ld_student.py", "ap": 0.5, "seed": 0, "split": "test"}. More than one of a config is shown
    as mean and standard deviation.

    For example:

        ld-deploy published
    """
    import json

    from rich.table import Table

    from ld_deploy.published import as_json as rows_as_json
    from ld_deploy.published import measured_cell, published_cell, read_rows
    from ld_runtime.files import write_text

    screen = Screen(as_json=as_json)
    rows = read_rows(configs, results)
    text = rows_as_json(rows)
    if output is not None:
        write_text(output, text)
    table = Table("config", "what it is", "published AP", "measured AP")
    folder = None
    for row in rows:
        if folder not in (None, Path(row.config).parent):
            table.add_section()
        folder = Path(row.config).parent
        table.add_row(row.config.removeprefix("configs/"), row.title, published_cell(row), measured_cell(row))
    screen.console.print(table)
    screen.result({"configs": json.loads(text)})
