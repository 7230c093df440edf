from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen


def convert(
    model: Annotated[Path, typer.Argument(help="A float32 .onnx file of `ld-deploy export`.")],
    *,
    precision: Annotated[
        Literal["fp16", "bf16"],
        typer.Option(help="bf16 has the range of float32 and fewer digits than fp16: 8 bits instead of 11."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")],
    as_json: JsonOption = False,
) -> None:
    """The network of a deployed file in float16 or bfloat16; decoding and voting NMS stay float32.

    fp16 runs everywhere; on a CPU it saves space, not time. bf16 runs on OpenVINO and, from compute capability 8.0, on
    TensorRT; ONNX Runtime has no bfloat16 convolution for CPUs. `ld-deploy build --precision` does this itself.

    Next: `ld-deploy verify CONFIG CHECKPOINT student.fp16.onnx` proves the AP.

    For example:

        ld-deploy convert student.onnx --precision fp16 -o student.fp16.onnx
    """
    from ld_export import deployed_file, typed
    from ld_export.graph_types import graph_types

    screen = Screen(as_json=as_json)
    source, card = deployed_file.read(model)
    converted, card, weights = typed.convert(source, card=card, precision=precision)
    types = graph_types(converted)
    types.require(precision, what=str(output))
    deployed_file.write(converted, output, card=card)
    screen.console.print(f"[dim]convert:[/] {weights}", highlight=False)
    screen.console.print(f"[dim]convert:[/] wrote {output}: {types}", highlight=False)
    screen.result(
        {"output": str(output), "precision": precision, "types": str(types), "card": json.loads(card.to_json())}
    )
