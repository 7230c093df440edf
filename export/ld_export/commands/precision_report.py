from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Callable


def precision_report(
    config: Annotated[str, typer.Argument(help="A training config, whose val and test splits are used.")],
    models: Annotated[list[str], typer.Argument(help="FILE[@BACKEND[:PRECISION]], the float32 file first.")],
    *,
    as_json: JsonOption = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: every core.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSON to write.")] = Path("precisions.json"),
) -> None:
    """AP of one detector's files in several precisions, each against the first, with intervals over images.

    The interval is a paired bootstrap: what 95 % of resampled image sets give. Where it holds 0, the images cannot
    tell the files apart.

    For example:

        ld-deploy precision-report configs/demo/ld_student.py a.onnx a.int8.onnx
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from ld_export.precision_report import precision_report as run
    from ld_runtime.engines import ModelSpec
    from ld_runtime.files import check_writable, write_text

    check_writable(output)
    screen = Screen(as_json=as_json)
    console = screen.console
    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:

        def progress(name: str, total: int) -> Callable[[], object]:
            task = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        report = run(config, models=[ModelSpec.parse(one) for one in models], threads=threads, progress=progress)
    write_text(output, json.dumps(report.content(), indent=1) + "\n")
    console.print(report.table())
    console.print(f"wrote {output}")
    screen.result(report.content())
