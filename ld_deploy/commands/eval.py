from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen


def evaluate(
    config: Annotated[str, typer.Argument(help="Config of the checkpoint.")],
    checkpoint: Annotated[str, typer.Argument(help="Path or URL of the weights.")],
    split: Annotated[Literal["test", "val"], typer.Option(help="Which data set of the config.")] = "test",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Also write AP to this JSON; in docs/results, `published` shows it."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a key of the config.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """AP of a checkpoint, by mmdet's own test loop with the voting NMS of the config.

    A distilled student's config evaluates the student alone; its teacher is not needed.

    For example:

        ld-deploy eval configs/demo/ld_student.py student.pth
        ld-deploy eval configs/demo/ld_student.py student.pth --split val
    """
    import json

    from ld_deploy.ap import ap_of
    from ld_deploy.settings import parse_overrides
    from ld_deploy.train import evaluate as run
    from ld_runtime.bench_report import machine, sha256_of
    from ld_runtime.files import write_text

    screen = Screen(as_json=as_json)
    with screen.captured():
        metrics = run(config, checkpoint, split=split, overrides=parse_overrides(set_ or []))
    if not metrics:
        screen.console.print("no box above the score threshold on any image: AP is 0")
    for name, value in metrics.items():
        screen.console.print(f"{name}: {value:.4f}", highlight=False)
    path = Path(checkpoint)
    content = {
        "config": config,
        "split": split,
        **ap_of(metrics),
        "metrics": metrics,
        "checkpoint": checkpoint,
        "checkpoint_sha256": sha256_of(path) if path.is_file() else None,
        "overrides": set_ or [],
        "machine": machine(),
    }
    if output is not None:
        write_text(output, json.dumps(content, indent=2) + "\n")
    screen.result(content)
