from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def nms_report(
    candidates: Annotated[
        Path, typer.Argument(help=".npz of boxes, scores, labels over all images, counts and image_ids by image.")
    ],
    ground_truth: Annotated[Path, typer.Argument(help="COCO JSON of the same images.")],
    *,
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOP_K[:SCORE_THRESHOLD]",
            help="The best candidates of an image above a score; may be given more than once. Default 1000:0.05.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of torch and of ONNX Runtime.")] = 1,
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSON to write.")] = Path("nms_report.json"),
    as_json: JsonOption = False,
) -> None:
    """AP and time of voting NMS, the published one and plain class-wise NMS on stored candidates of a real detector.

    The native, numpy, torch and ONNX forms must give the same detections, or it ends with exit status 1.

    For example:

        ld-deploy nms-report candidates.npz annotations.json --case 1000:0.05
    """
    import json

    from rich.table import Table

    from ld_export.nms_report import Case
    from ld_export.nms_report import nms_report as run
    from ld_runtime.files import write_text

    screen = Screen(as_json=as_json)
    console = screen.console
    with screen.captured():
        report = run(
            candidates,
            ground_truth=ground_truth,
            cases=tuple(map(Case.parse, case or ["1000"])),
            threads=threads,
            progress=lambda line: console.print(f"[dim]nms-report:[/] {line}", highlight=False),
        )
    write_text(output, json.dumps(report, indent=1) + "\n")
    for found in report["cases"]:
        table = Table("form", "AP", "AP50", "AP75", "median ms", "p90 ms", "p99 ms", "published / it")
        table.title = (
            f"best {found['top_k']} candidates above {found['score_threshold']:g} of {report['images']} images"
        )
        for name, ap in found["ap"].items():
            latency = found["latency_ms"][name]
            figures = [f"{ap[key]:.4f}" for key in ("ap", "ap50", "ap75")]
            times = [f"{latency[key]:.2f}" for key in ("median", "p90", "p99")]
            table.add_row(name, *figures, *times, f"{found['published_takes_times'].get(name, 0):.0f}")
        console.print(table)
    console.print(f"written to {output}")
    screen.result(report)
