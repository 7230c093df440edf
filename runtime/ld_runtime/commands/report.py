"""`ld-deploy report`: what commands left, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of a demo, of trainings, of a comparison or of JSONs; and JSON files."),
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The page.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Of the page.")] = "Detection report",
    as_json: JsonOption = False,
) -> None:
    """One HTML page of AP, times, curves and pictures, which opens without a network.

    Inputs are found by their content: JSONs of `verify`, `bench`, `recommend`, `compare`,
    `precision-report` and `demo`, the record of detections beside a verify's JSON, and work dirs of
    `train`. What is not there is said at the end of the page, with the command that makes it.

    For example:

        ld-deploy report outputs/demo -o report.html
    """
    from ld_runtime.files import check_writable
    from ld_runtime.report import write_report
    from ld_runtime.screen import Screen

    screen = Screen(as_json=as_json)
    check_writable(output)
    written = write_report(runs, output=output, title=title)
    screen.console.print(
        f"{output} ({output.stat().st_size / 1e6:.1f} MB): {', '.join(written.sections)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for line in written.missing:
        screen.console.print(f"not found: {line}", markup=False, highlight=False, soft_wrap=True)
    screen.result({"report": str(output), "sections": written.sections, "missing": written.missing})
