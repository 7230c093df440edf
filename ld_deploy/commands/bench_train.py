from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ld_runtime.screen import JsonOption, Screen


def bench_train(
    config: Annotated[str, typer.Argument(help="Config of a distilled student.")],
    *,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step; default the config's.", rich_help_panel="Step")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Turns; default as many as --seconds allow.", rich_help_panel="Measurement"),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Of all turns; the warm-up takes as long at most.", rich_help_panel="Measurement"),
    ] = 60,
    size: Annotated[
        str | None, typer.Option(help="HxW: random images of this size, not the config's data.", rich_help_panel="Step")
    ] = None,
    teacher_precision: Annotated[
        str | None, typer.Option(help="Such as float32,bfloat16; default the teacher's own.", rich_help_panel="Step")
    ] = None,
    amp: Annotated[
        str | None, typer.Option(help="bfloat16: autocast around every model.", rich_help_panel="Step")
    ] = None,
    channels_last: Annotated[
        bool,
        typer.Option(
            "--channels-last", help="Memory format of the students and of mmdet's teacher too.", rich_help_panel="Step"
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel="Measurement")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; default torch's.", rich_help_panel="Measurement")
    ] = None,
    clock: Annotated[
        Literal["wall", "cpu"],
        typer.Option(
            help="cpu: the processor time of this process, for a shared machine and one thread.",
            rich_help_panel="Measurement",
        ),
    ] = "wall",
    cache: Annotated[
        bool, typer.Option("--cache", help="Time a step with cached teacher outputs too.", rich_help_panel="Step")
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights", help="A teacher without its checkpoint: it takes the same time.", rich_help_panel="Step"
        ),
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the config.", rich_help_panel="Step")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON file.")] = Path("bench_train.json"),
    as_json: JsonOption = False,
) -> None:
    """What distillation costs in a training step: against student and teacher alone, and against mmdet's own LD.

    All take turns on one fixed batch. The bound is `student_step` + `teacher_forward`: `ratio_to_bound` says how far
    `distilled_step` is above it.

    For example:

        ld-deploy bench-train configs/demo/ld_student.py --seconds 30
        ld-deploy bench-train configs/demo/ld_student.py --random-weights
    """
    import json

    import torch

    from ld_deploy.bench_train import TrainBenchSettings
    from ld_deploy.bench_train import bench_train as run
    from ld_deploy.bench_train_report import ratios, sentence, span_table, to_json_content
    from ld_deploy.settings import parse_overrides
    from ld_runtime.files import write_text

    screen = Screen(as_json=as_json)
    console = screen.console
    settings = TrainBenchSettings(
        batch_size=batch_size,
        steps=steps,
        seconds=seconds,
        input_hw=parse_size(size) if size else None,
        teacher_precisions=tuple(teacher_precision.split(",")) if teacher_precision else (),
        device=device,
        amp=amp,
        channels_last=channels_last,
        clock=clock,
        cache=cache,
        random_weights=random_weights,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    overrides = parse_overrides(set_ or [])
    with console.status("bench-train") as status, screen.captured():
        measurement = run(config, settings=settings, overrides=overrides, progress=status.update)
    content = to_json_content(measurement, config=config, settings=settings, overrides=overrides)
    write_text(output, json.dumps(content, indent=1))
    console.print(span_table(measurement))
    lines = [sentence(ratio) for ratio in ratios(measurement.turns)]
    if measurement.without_mmdet:
        lines.append(measurement.without_mmdet)
    where, batch = content["machine"], content["batch"]
    lines.append(
        f"{where['cpu']}, {where['cores']} cores, {', '.join(where['gpus']) or 'no GPU'}; {content['threads']} "
        f"threads, load average {content['load_average']:.1f}, {clock} clock; {content['precision']}, teacher "
        f"{', '.join(content['teacher_precisions'])}; {batch['data']}, input {tuple(batch['input_shape'])} -> {output}"
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    screen.result(content)


def parse_size(text: str) -> tuple[int, int]:
    """Reads "320x416": height and width in pixels.

    Raises:
        ConfigError: It is not two positive numbers.
    """
    from ld_runtime.errors import ConfigError

    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--size takes height x width in pixels, such as 320x416; got {text!r}")
    return int(parts[0]), int(parts[1])
