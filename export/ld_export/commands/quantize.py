from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Callable


def quantize(
    model: Annotated[Path, typer.Argument(help="A float32 file of `ld-deploy export`.")],
    *,
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder or glob of images like those of the task. Default: CONFIG's training set.",
            rich_help_panel="Images",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO ground truth of images in that folder: methods are chosen by AP on them.",
            rich_help_panel="Images",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(help="A training config, whose SPLIT decides between methods.", rich_help_panel="Images"),
    ] = None,
    split: Annotated[
        Literal["val", "test"], typer.Option(help="Which data set of CONFIG.", rich_help_panel="Images")
    ] = "val",
    precision: Annotated[
        Literal["int8", "fp8"], typer.Option(help="fp8: for TensorRT on SM89 or later.", rich_help_panel="Method")
    ] = "int8",
    method: Annotated[
        list[str] | None, typer.Option(help="Try this one; repeat for more. Default: all.", rich_help_panel="Method")
    ] = None,
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave this layer float, by its name in the report; repeat for more.", rich_help_panel="Method"
        ),
    ] = None,
    float_budget: Annotated[
        float,
        typer.Option(
            help="Share of the arithmetic that sensitive layers may keep in float, 0-1; 0: none.",
            rich_help_panel="Method",
        ),
    ] = 0.05,
    count: Annotated[
        int, typer.Option(help="Calibrate on so many images, evenly taken.", min=1, rich_help_panel="Images")
    ] = 128,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; default: every core.", rich_help_panel="Method")
    ] = None,
    as_json: JsonOption = False,
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="Print the table of layers.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: MODEL with .int8.onnx.")] = None,
) -> None:
    """Float32 ONNX to INT8 or FP8, calibrated on your images; one file for ONNX Runtime, OpenVINO and TensorRT.

    Scales come from --images. With ground truth (--annotations or --config), images that were not calibrated on decide
    between the methods by AP; without it, the maps that are nearest to the float file's do. Layers that lose most stay
    float, within --float-budget. A JSON report lies beside the file: methods, AP, sensitivity and scales of each layer.

    For example:

        ld-deploy quantize student.onnx --images images/ -o student.int8.onnx
        ld-deploy quantize student.onnx --config configs/demo/ld_student.py
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from ld_export.quantize import evenly
    from ld_export.quantize import quantize as run
    from ld_export.quantize_images import choose_images
    from ld_export.quantize_report import report_path, sensitivity_table, trial_table
    from ld_export.quantize_scales import parse_methods
    from ld_runtime.files import check_writable
    from ld_runtime.onnx_file import read_card, read_file

    card = read_card(read_file(model), path=model)
    output = output or model.with_suffix(f".{precision}.onnx")
    for path in (output, report_path(output)):
        check_writable(path)
    chosen = choose_images(images=images, annotations=annotations, config=config, split=split, card=card)
    screen = Screen(as_json=as_json)
    console = screen.console
    with Progress(
        *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:

        def progress(name: str, total: int) -> Callable[[], object]:
            task = bar.add_task(name, total=total)
            return lambda: bar.advance(task)

        report = run(
            model,
            output=output,
            calibration=evenly(chosen.calibration, count),
            labelled=chosen.labelled,
            compared=chosen.compared,
            kind=precision,
            methods=parse_methods(method or ()),
            keep_float=keep_float,
            float_budget=float_budget,
            threads=threads,
            progress=progress,
        )
    if sensitivity and report.sensitivity:
        console.print(sensitivity_table(report))
    console.print(trial_table(report))
    console.print(f"wrote {output} and {report_path(output)}")
    screen.result(json.loads(report.to_json()))
