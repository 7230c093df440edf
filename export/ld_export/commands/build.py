from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen


def build(
    model: Annotated[Path, typer.Argument(help="An .onnx file of `ld-deploy export`, `convert` or `quantize`.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The engine to write; a JSON is put beside it.")],
    backend: Annotated[
        Literal["tensorrt-rtx", "tensorrt"],
        typer.Option(help="tensorrt-rtx also builds where there is no GPU, for the GPUs that it is told."),
    ] = "tensorrt-rtx",
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None,
        typer.Option(
            help="Of the network; default the file's own. fp16 and bf16 convert an fp32 file; int8 and fp8 need a file "
            "of `ld-deploy quantize`. Decode and NMS stay float32.",
            rich_help_panel="Precision",
        ),
    ] = None,
    tf32: Annotated[
        bool,
        typer.Option(
            "--tf32/--no-tf32",
            help="Round float32 products to TF32: faster, and not at parity.",
            rich_help_panel="Precision",
        ),
    ] = False,
    plugin: Annotated[
        bool | None,
        typer.Option(
            "--plugin/--no-plugin",
            help="Decode and NMS as our plugin, for tensorrt. Default: where it was built (`make plugin`).",
            rich_help_panel="Plugin",
        ),
    ] = None,
    plugin_library: Annotated[
        Path | None,
        typer.Option(
            help="The plugin's library; default libld_deploy_plugin_trtN.so in ld_runtime/lib.",
            rich_help_panel="Plugin",
        ),
    ] = None,
    serialize_plugin: Annotated[
        bool,
        typer.Option(
            "--serialize-plugin",
            help="Put the plugin's library into the engine, which is then built version-compatible: fewer kernels to "
            "choose from.",
            rich_help_panel="Plugin",
        ),
    ] = False,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as 8.6; repeatable. Default: every GPU that tensorrt-rtx knows.",
            rich_help_panel="GPUs and sizes",
        ),
    ] = None,
    batch: Annotated[
        tuple[int, int, int], typer.Option(help="Smallest, usual and largest batch.", rich_help_panel="GPUs and sizes")
    ] = (1, 1, 8),
    min_hw: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Smallest height and width, of a dynamic file.", rich_help_panel="GPUs and sizes"),
    ] = None,
    opt_hw: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Usual height and width; default by the card.", rich_help_panel="GPUs and sizes"),
    ] = None,
    max_hw: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Largest height and width; default by the card.", rich_help_panel="GPUs and sizes"),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(help="What tensorrt measured, for the next build; default timing.cache beside the engine."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build although the same engine is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """ONNX to a TensorRT or TensorRT-RTX engine.

    The JSON beside the engine has the model card, what it was built with, whether the NMS is the plugin or the function
    in standard operators, and what the network really computes in. The second example builds for a GPU that is not at
    hand.

    For example:

        ld-deploy build student.onnx -o student.engine --precision fp16
        ld-deploy build student.onnx -o student.engine --compute-capability 8.9
    """
    from rich.progress import Progress

    from ld_export.build_settings import BuildProfile, BuildSettings
    from ld_export.tensorrt_engine import build_engine

    screen = Screen(as_json=as_json)
    settings = BuildSettings(
        backend=backend,
        precision=precision,
        compute_capabilities=tuple(compute_capability or ()),
        profile=BuildProfile(batch=batch, min_hw=min_hw, opt_hw=opt_hw, max_hw=max_hw),
        plugin=plugin,
        plugin_library=plugin_library,
        serialize_plugin=serialize_plugin,
        tf32=tf32,
        timing_cache=timing_cache,
        force=force,
    )
    with Progress(console=screen.console, transient=True) as bar, screen.captured():
        task = bar.add_task("build", total=1.0, visible=False)
        record = build_engine(
            model,
            output=output,
            settings=settings,
            progress=lambda line: bar.console.print(f"[dim]build:[/] {line}", highlight=False),
            meter=lambda phase, share: bar.update(task, completed=share, description=phase, visible=True),
        )
    screen.result({"output": str(output), "record": json.loads(record.to_json())})
