from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def build(
    model: Annotated[Path, typer.Argument(help="An .onnx file of `ld-deploy export`.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The engine to write; a JSON is put beside it.")],
    backend: Annotated[
        Literal["tensorrt-rtx", "tensorrt"],
        typer.Option(help="tensorrt-rtx also builds where there is no GPU, for the GPUs that it is told."),
    ] = "tensorrt-rtx",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="Such as 8.6; repeatable. Default: every GPU that tensorrt-rtx knows."),
    ] = None,
    batch: Annotated[tuple[int, int, int], typer.Option(help="Smallest, usual and largest batch.")] = (1, 1, 8),
    min_hw: Annotated[
        tuple[int, int] | None, typer.Option(help="Smallest height and width, of a dynamic file.")
    ] = None,
    opt_hw: Annotated[tuple[int, int] | None, typer.Option(help="Usual height and width; default by the card.")] = None,
    max_hw: Annotated[
        tuple[int, int] | None, typer.Option(help="Largest height and width; default by the card.")
    ] = None,
) -> None:
    """ONNX to a TensorRT or TensorRT-RTX engine.

    For example, on a machine without a GPU: `ld-deploy build student.onnx -o student.engine --compute-capability 8.6
    --compute-capability 8.9`. The JSON beside the engine has the model card, what it was built with, and whether the
    NMS is the plugin or the function in standard operators.
    """
    from rich.console import Console

    from ld_export.tensorrt_engine import BuildProfile, build_engine

    console = Console(stderr=True)
    build_engine(
        model,
        output=output,
        backend=backend,
        compute_capabilities=tuple(compute_capability or ()),
        profile=BuildProfile(batch=batch, min_hw=min_hw, opt_hw=opt_hw, max_hw=max_hw),
        progress=lambda line: console.print(f"[dim]build:[/] {line}", highlight=False),
    )
