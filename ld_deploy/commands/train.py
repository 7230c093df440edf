from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def train(
    config: Annotated[str, typer.Argument(help="Config of a teacher, a baseline or a distilled student.")],
    work_dir: Annotated[Path | None, typer.Option(help="Checkpoints and logs; default work_dirs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the work dir.")] = False,
    amp: Annotated[bool, typer.Option("--amp", help="Automatic mixed precision (needs a GPU).")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the config: --set train_cfg.max_epochs=2")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Train a config to its end, on this machine's GPU or CPU.

    Many GPUs: `torchrun --nproc-per-node 8 -m ld_runtime.cli train CONFIG`, or
    `make train CONFIG=... GPUS=8`. The learning rate follows the images per step by the linear rule.
    A distilled student's config names its teacher's config and weights; see configs/demo/ld_student.py.

    For example:

        ld-deploy train configs/demo/ld_student.py
        ld-deploy train configs/bccd/ld_student.py --resume
    """
    screen = Screen(as_json=as_json)
    with screen.captured():
        from ld_deploy.settings import parse_overrides
        from ld_deploy.train import train as run

        checkpoint = run(config, work_dir=work_dir, resume=resume, amp=amp, overrides=parse_overrides(set_ or []))
    screen.console.print(f"checkpoint: {checkpoint}", markup=False, highlight=False, soft_wrap=True)
    screen.result({"config": config, "checkpoint": str(checkpoint)})
