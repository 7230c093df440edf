from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.errors import ConfigError
from ld_runtime.screen import JsonOption, Screen


def export(
    config: Annotated[str, typer.Argument(help="The config that the checkpoint was trained with.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Its weights: best.pth, last.pth or a published file.")
    ] = None,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")] = Path("student.onnx"),
    input_hw: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Fixed height and width in pixels: images are letterboxed into it. Default: any size."),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(help="Default: the config's. The runtime can raise it later, but not lower it."),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(help="Default: the config's. The runtime can lower it later, but not raise it.")
    ] = None,
    nms: Annotated[
        Literal["cluster_diou", "rotated_cluster", "none"] | None,
        typer.Option(help="none: the file gives candidates, and you do the NMS. Default: that of the head's boxes."),
    ] = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Without a checkpoint: a file to measure the speed of a network by."),
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The head's maps alone: no decoding, no NMS.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Checkpoint to ONNX: uint8 BGR images in, boxes out; normalisation, decoding and voting NMS are inside.

    The file is compared with PyTorch on images that were not traced, and written only when they agree. What a runtime
    needs to know (resize rule, padding, classes, thresholds) travels in the file.

    Next: `ld-deploy verify CONFIG CHECKPOINT student.onnx` proves the AP, `ld-deploy detect student.onnx image.jpg`
    runs it.

    For example:

        ld-deploy export configs/demo/ld_student.py student.pth -o student.onnx
        ld-deploy export configs/demo/ld_student.py --random-weights
    """
    from ld_export.from_checkpoint import export_checkpoint

    if (checkpoint is None) != random_weights:
        message = "export needs a checkpoint, or --random-weights for a file to be timed, whose boxes mean nothing"
        raise ConfigError(f"{message}; {'both were given' if checkpoint else 'neither was given'}")
    screen = Screen(as_json=as_json)
    with screen.captured():
        card = export_checkpoint(
            config,
            checkpoint=checkpoint,
            output=output,
            input_hw=input_hw,
            score_threshold=score_threshold,
            max_detections=max_detections,
            nms_kind="none" if raw else nms,
            raw=raw,
            progress=lambda line: screen.console.print(f"[dim]export:[/] {line}", highlight=False),
        )
    screen.result({"output": str(output), "card": json.loads(card.to_json())})
