"""`ld-deploy bench`: latency and images a second of deployed files, beside the frameworks they came from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ld_runtime.errors import BackendMissingError, ConfigError
from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from ld_runtime.bench import Runner
    from ld_runtime.bench_report import Ceiling
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec, NmsPlace
    from ld_runtime.precision_proof import PrecisionProof

REFERENCES_GROUP = "ld_deploy.bench_references"
CEILINGS_GROUP = "ld_deploy.bench_ceilings"
CANVAS_SAMPLE = 50  # images that are looked at for the usual canvas


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Files, each with what is to run it: student.onnx, student.onnx@openvino, student.onnx@openvino:bf16, "
            "student.engine. Ratios are against the first."
        ),
    ],
    *,
    images: Annotated[str, typer.Option(help="Folder or glob of real images: time depends on what is in them.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="A training checkpoint, or a config for random weights: PyTorch and mmdet are timed beside the files.",
            rich_help_panel="Against PyTorch",
        ),
    ] = None,
    compile_torch: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="With --against: also torch.compile, which takes minutes to compile on a CPU.",
            rich_help_panel="Against PyTorch",
        ),
    ] = False,
    batch_sizes: Annotated[
        str, typer.Option(help="For images a second of the engine.", rich_help_panel="Measurement")
    ] = "1,4,8",
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, help="Of each runner, for the spans and for each batch size.", rich_help_panel="Measurement"
        ),
    ] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel="Runtime")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a run; default every core.", rich_help_panel="Runtime")
    ] = None,
    nms: Annotated[
        Literal["native", "graph"] | None,
        typer.Option(
            help="Where the NMS of .onnx files is computed; default: native on the CPU where it was built.",
            rich_help_panel="Runtime",
        ),
    ] = None,
    score_threshold: Annotated[
        float | None, typer.Option(help="Default: the file's own.", rich_help_panel="Runtime")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON file.")] = Path("bench.json"),
    as_json: JsonOption = False,
) -> None:
    """Latency and images a second of deployed files, with the spans named.

    `preprocess` goes from the decoded image to the canvas, `engine` from the canvas to the outputs, both in host
    memory, `end_to_end` from the file to the detections. fps is end to end only. An engine on a GPU also tells, by the
    GPU's own events, `network` (the replay of its graph) and `device` (with the copies there and back); clocks that did
    not hold are said in table and JSON.

    For example:

        ld-deploy bench student.onnx student.onnx@openvino:bf16 --images images/
        ld-deploy bench student.onnx --images images/ --against student.pth
    """
    from ld_runtime.bench import measure
    from ld_runtime.bench_report import (
        ceiling_table,
        latency_table,
        precision_table,
        rate_table,
        to_json_content,
    )
    from ld_runtime.detector import Detector
    from ld_runtime.detector_runner import DetectorRunner
    from ld_runtime.engines import DeviceTimed, ModelSpec
    from ld_runtime.files import check_writable, write_text
    from ld_runtime.gpu_state import GpuWatch
    from ld_runtime.media import list_images
    from ld_runtime.precision_proof import proof_of

    if compile_torch and against is None:
        raise ConfigError("--compile is of the model that --against names: add --against CHECKPOINT")
    screen = Screen(as_json=as_json)
    check_writable(output)
    paths = list_images(images)
    sizes = parse_batch_sizes(batch_sizes)
    runners: list[Runner] = []
    detectors: list[Detector] = []
    proofs: dict[str, PrecisionProof] = {}
    for spec in map(ModelSpec.parse, models):
        detector = Detector(
            spec.path,
            device=device,
            backend=spec.backend,
            precision=spec.precision,
            nms=nms,
            score_threshold=score_threshold,
            threads=threads,
        )
        detectors.append(detector)
        name = str(spec) if spec.name in proofs else spec.name
        proofs[name] = proof_of(detector.engine, spec.path)
        proofs[name].require(detector.engine.facts.precision, what=name)
        detector(paths[0])  # an unreadable image is reported here, not by the child that measures memory
        runners.append(
            DetectorRunner(detector, name=name, settings=_facts(detector, spec, device=device, nms=nms, image=paths[0]))
        )
    if against is not None:
        with screen.captured():
            runners += reference_runners(against, device=device, compiled=compile_torch)
    ceiling = None
    if against is not None and device == "cpu":
        with screen.console.status("matrix products, for the processor's ceiling"), screen.captured():
            ceiling = measured_ceiling(against, canvas_hw=usual_canvas(runners[0], paths), threads=threads)

    on_gpu = device != "cpu" or any(isinstance(one.engine, DeviceTimed) for one in detectors)
    watch = GpuWatch(device) if on_gpu else None
    with screen.console.status("benchmark") as status, screen.captured():
        measurements = measure(
            runners,
            paths,
            seconds=seconds,
            batch_sizes=sizes,
            progress=status.update,
            after_round=watch.read if watch else lambda: None,
        )
    for index, detector in enumerate(detectors):
        if isinstance(detector.engine, DeviceTimed):
            told = {**measurements[index].settings, **detector.engine.details()}
            measurements[index] = replace(measurements[index], settings=told)
    state = watch.state() if watch else None
    content = to_json_content(
        measurements,
        images=paths,
        settings={"device": device, "threads": threads, "seconds": seconds, "batch_sizes": sizes},
        ceiling=ceiling,
        proofs=proofs,
        gpu_state=state,
    )
    write_text(output, json.dumps(content, indent=1))
    screen.console.print(latency_table(measurements, gpu_state=state))
    screen.console.print(rate_table(measurements))
    screen.console.print(precision_table(proofs))
    if "ceiling" in content:
        screen.console.print(ceiling_table(content["ceiling"]))
    screen.console.print(f"{_place(content['machine'])}; {len(paths)} images -> {output}", markup=False, soft_wrap=True)
    screen.result(content)


def _facts(
    detector: Detector, spec: ModelSpec, *, device: str, nms: NmsPlace | None, image: Path
) -> dict[str, str | int | float]:
    """What a report says of a file beside its times."""
    from ld_runtime.bench_report import peak_rss_mb, sha256_of

    peak = peak_rss_mb(spec, device=device, nms=nms, image=image)
    return {
        "model": str(spec.path),
        "model_sha256": sha256_of(spec.path),
        "weights_sha256": detector.card.weights_sha256,
        **asdict(detector.engine.facts),
        "score_threshold": detector.score_threshold,
        "max_detections": detector.max_detections,
        **({} if peak is None else {"peak_rss_mb": peak}),
    }


def _place(machine: dict[str, Any]) -> str:
    """Where it was measured, in words."""
    return f"{machine['cpu']}, {machine['cores']} cores, {', '.join(machine['gpus']) or 'no GPU'}"


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """Reads "1,4,8".

    Raises:
        ConfigError: It is no list of positive numbers.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batch-sizes takes positive numbers with commas between, such as 1,4,8; got {text!r}")
    return tuple(map(int, parts))


def reference_runners(checkpoint: Path, *, device: str, compiled: bool = False) -> list[Runner]:
    """What the installed frameworks offer to be timed against.

    Each entry is called with (checkpoint, device, compiled=...).

    Raises:
        BackendMissingError: None is installed.
    """
    return [
        runner for load in _training_side(REFERENCES_GROUP) for runner in load(checkpoint, device, compiled=compiled)
    ]


def measured_ceiling(checkpoint: Path, *, canvas_hw: tuple[int, int], threads: int | None) -> Ceiling:
    """What bounds the checkpoint's network on this processor.

    Raises:
        BackendMissingError: The training side is not installed.
    """
    load, *_ = _training_side(CEILINGS_GROUP)
    found: Ceiling = load(checkpoint, canvas_hw=canvas_hw, threads=threads)
    return found


def usual_canvas(runner: Runner, paths: list[Path]) -> tuple[int, int]:
    """The most frequent canvas size of the images, height and width in pixels."""
    from ld_runtime.bench import StagedRunner

    assert isinstance(runner, StagedRunner)
    sizes = [runner.canvas_hw(runner.preprocess(runner.decode(path))) for path in paths[:CANVAS_SAMPLE]]
    return Counter(sizes).most_common(1)[0][0]


def _training_side(group: str) -> list[Any]:
    """What the training side offers for the benchmark under a name."""
    entries = entry_points(group=group)
    needed = "--against needs the training side"
    if not entries:
        raise BackendMissingError(f"{needed}: pip install 'ld-deploy[train]'")
    try:
        return [entry.load() for entry in entries]
    except ImportError as error:
        raise BackendMissingError(f"{needed}, and {error.name} is missing: pip install 'ld-deploy[train]'") from error
