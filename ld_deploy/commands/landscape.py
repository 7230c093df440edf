from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen


def landscape(
    config_a: Annotated[str, typer.Argument(help="Config of model A; its data and evaluator are used.")],
    checkpoint_a: Annotated[str, typer.Argument(help="Path or URL of A's weights.")],
    config_b: Annotated[str, typer.Argument(help="Config of model B.")],
    checkpoint_b: Annotated[str, typer.Argument(help="Path or URL of B's weights.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON file; a PNG beside it.")] = Path(
        "landscape.json"
    ),
    steps: Annotated[int, typer.Option(min=2, help="Mixes, evenly spaced, both ends included.")] = 11,
    from_: Annotated[float, typer.Option("--from", help="First mix: 0 is A's features, 1 is B's.")] = 0.0,
    to: Annotated[float, typer.Option("--to", help="Last mix.")] = 1.0,
    split: Annotated[Literal["test", "val"], typer.Option(help="Which data set of the configs.")] = "test",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of both configs.")] = None,
    as_json: JsonOption = False,
) -> None:
    """AP on the way from one model's neck features to another's, read by the head of each.

    Both models must see the same images in the same way and have necks of the same shape and the same classes: a
    student with and without distillation, or a student and its teacher. A flat curve says that a head reads the other
    model's features as its own.

    For example:

        ld-deploy landscape student.py student.pth teacher.py teacher.pth
    """
    import contextlib
    import io
    import json

    import numpy as np
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

    from ld_deploy.landscape import Side
    from ld_deploy.landscape import landscape as run
    from ld_deploy.landscape_report import draw, table, to_json_content
    from ld_deploy.settings import parse_overrides
    from ld_runtime.errors import ConfigError
    from ld_runtime.files import write_text

    if not from_ < to:
        raise ConfigError(f"--from must be below --to, got {from_} and {to}")
    if output.suffix != ".json":
        raise ConfigError(f"--output must end in .json, as a picture with .png is written beside it; got {output}")
    a, b = Side(config_a, checkpoint_a), Side(config_b, checkpoint_b)
    mixes = [round(float(mix), 6) + 0.0 for mix in np.linspace(from_, to, steps)]  # + 0.0: no -0
    overrides = parse_overrides(set_ or [])
    screen = Screen(as_json=as_json)
    console = screen.console
    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # What pycocotools and mmengine print for each of the evaluations would hide the progress.
    with Progress(*columns, console=console) as bar, contextlib.redirect_stdout(io.StringIO()):
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)

        curves = run(a, b=b, mixes=mixes, split=split, overrides=overrides, progress=progress)
    content = to_json_content(curves, a=a, b=b, mixes=mixes, split=split, overrides=overrides)
    write_text(output, json.dumps(content, indent=1) + "\n")
    picture = output.with_suffix(".png")
    draw(content, output=picture)
    console.print(table(content))
    console.print(f"{output}, {picture}")
    screen.result({**content, "output": str(output), "picture": str(picture)})
