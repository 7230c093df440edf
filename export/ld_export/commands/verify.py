from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Callable


def verify(
    config: Annotated[str, typer.Argument(help="The config that the checkpoint was trained with.")],
    checkpoint: Annotated[Path, typer.Argument(help="The weights that the files were exported from.")],
    models: Annotated[
        list[str],
        typer.Argument(help="Deployed files: student.onnx, student.onnx@openvino:bf16, student.int8.onnx, …"),
    ],
    *,
    split: Annotated[
        Literal["test", "val"], typer.Option(help="Which data set of the config.", rich_help_panel="Images")
    ] = "test",
    limit: Annotated[int | None, typer.Option(help="Take the first so many images.", rich_help_panel="Images")] = None,
    tolerance_ap: Annotated[
        float | None,
        typer.Option(
            help="Largest difference in AP, 0-1. Default: fp32 0.0002, fp16 0.002, others 0.005.",
            rich_help_panel="Tolerance",
        ),
    ] = None,
    min_matched: Annotated[
        float | None,
        typer.Option(
            help="Smallest share of boxes that match at IoU 0.99, 0-1. Default: fp32 0.999, fp16 0.95.",
            rich_help_panel="Tolerance",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N, for the deployed files.", rich_help_panel="Comparison")
    ] = "cpu",
    mmdet: Annotated[
        bool, typer.Option(help="Also report mmdet's own pipeline beside.", rich_help_panel="Comparison")
    ] = True,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Swap stages with PyTorch: which one owns the difference?", rich_help_panel="Comparison"
        ),
    ] = False,
    as_json: JsonOption = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="The JSON to write.")] = Path("parity.json"),
) -> None:
    """AP and boxes of deployed files against PyTorch, on the images of the config.

    PyTorch is mmdet's own test step on the checkpoint; each file is run from the image files on. Exits with 1 when a
    file is past the tolerance; the JSON is written either way, with the cause of each box that has no partner.

    For example:

        ld-deploy verify configs/demo/ld_student.py student.pth student.onnx
        ld-deploy verify configs/demo/ld_student.py a.pth a.int8.onnx --explain
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from ld_export.explain_table import explanation_tables
    from ld_export.verify import raise_on_failure
    from ld_export.verify import verify as run
    from ld_runtime.bench_report import precision_table
    from ld_runtime.engines import ModelSpec
    from ld_runtime.files import check_writable

    check_writable(output)
    screen = Screen(as_json=as_json)
    console = screen.console
    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:

        def progress(name: str, total: int) -> Callable[[], object]:
            task = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        result = run(
            config,
            checkpoint=checkpoint,
            models=[ModelSpec.parse(model) for model in models],
            split=split,
            limit=limit,
            max_ap_difference=tolerance_ap,
            min_matched_share=min_matched,
            device=device,
            with_mmdet=mmdet,
            explained=explain,
            progress=progress,
        )
    result.write(output)
    console.print(result.report.table())
    for turn in result.report.turns():
        console.print(turn)
    console.print(precision_table(result.proofs))
    console.print(f"{result.facts['images']} images of {split}, {result.facts['boxes']} boxes; written to {output}")
    for explanation in result.explanations.values():
        for table in explanation_tables(explanation):
            console.print(table)
        console.print(explanation.sentence())
    for why in result.unexplained.values():
        console.print(why)
    screen.result(result.content())
    raise_on_failure(result.report)
