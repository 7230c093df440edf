from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def compare(
    comparison: Annotated[str, typer.Argument(help="A comparison file: see configs/compare.")],
    work_dir: Annotated[Path | None, typer.Option(help="Runs; default work_dirs/compare/NAME.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON of the table, a PNG beside it; default in the work dir.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Rows with this in their name; may be given again.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="These seeds alone; may be given again.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Train several recipes on the same data and schedule, and print what each is worth.

    Every row is a recipe, some with more seeds. The epoch is chosen on val, AP is reported on test. A run that is there
    for the same config and teacher is not made again, so an interrupted comparison goes on, and
    `--only` and `--seed` spread it over machines that share the work dir.

    Your own: copy a file of configs/compare, name your student's config and your teacher's, and choose rows.

    For example:

        ld-deploy compare configs/compare/demo.py
        ld-deploy compare configs/compare/demo.py --only CrossKD --seed 0
    """
    import contextlib

    from ld_deploy.compare import compare as run
    from ld_deploy.compare import write_comparison
    from ld_deploy.compare_report import draw, table

    screen = Screen(as_json=as_json)
    console = screen.console
    folder = work_dir or Path("work_dirs", "compare", Path(comparison).stem)
    target = output or folder / "comparison.json"
    folder.mkdir(parents=True, exist_ok=True)
    log_file = folder / "log.txt"
    console.print(f"{comparison} -> {folder}; what the training says goes to {log_file}")
    with log_file.open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        runs = run(comparison, work_dir=folder, only=only or (), seeds=seed, tell=console.print)
        content = write_comparison(comparison, runs, output=target)
    picture = target.with_suffix(".png")
    draw(content, output=picture)
    console.print(table(content))
    console.print(f"{target}, {picture}")
    screen.result({**content, "output": str(target), "picture": str(picture)})
