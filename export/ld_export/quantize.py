"""Post-training quantization of a deployed file: calibrated on images, chosen by AP, written with its report."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import ModelProto

from ld_export import deployed_file
from ld_export.quantize_calibration import check_methods, choose_scales, collect, methods_of
from ld_export.quantize_error import FloatReference
from ld_export.quantize_graph import FLOAT8_OPSET, insert_quantization, with_opset
from ld_export.quantize_modules import scales_by_module
from ld_export.quantize_plan import find_modules, make_plan
from ld_export.quantize_report import QuantizationReport, Trial, best_of, report_path
from ld_export.quantize_sensitivity import choose_float, measure_sensitivity
from ld_runtime.bench_report import list_sha256, machine, sha256_of
from ld_runtime.coco import evaluate_boxes
from ld_runtime.detector import Detector
from ld_runtime.errors import ConfigError
from ld_runtime.files import check_writable, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ld_export.quantize_graph import Kind
    from ld_export.quantize_images import LabelledImages
    from ld_export.quantize_plan import Plan
    from ld_export.quantize_scales import Method
    from ld_export.quantize_sensitivity import LayerSensitivity
    from ld_runtime.model_card import ModelCard

# As many are enough to order methods and layers by what they lose.
COMPARED_IMAGES = 16


def quantize(
    source: Path,
    *,
    output: Path,
    calibration: Sequence[Path],
    labelled: LabelledImages | None = None,
    compared: Sequence[Path] = (),
    kind: Kind = "int8",
    methods: Sequence[Method] = (),
    keep_float: Sequence[str] | None = None,
    float_budget: float = 0.05,
    threads: int | None = None,
    progress: Callable[[str, int], Callable[[], object]] = lambda _name, _total: lambda: None,
) -> QuantizationReport:
    """Writes the quantized form of a deployed file, and its report beside it.

    Args:
        source: a float32 file of `ld-deploy export`.
        output: the file to write.
        calibration: images like those of the task; scales come from them.
        labelled: decides between the methods, by AP. None: the least error of the maps on `compared` does.
        compared: images whose maps are compared, `COMPARED_IMAGES` of them at most; none: the labelled ones.
        kind: the encoding.
        methods: that are tried; none: all that the encoding has.
        keep_float: names of layers that stay float, as in the report; None: by sensitivity, within `float_budget`.
        float_budget: share of the convolutions' multiply-adds that may stay float, from 0 to 1.
        threads: CPU threads; None takes every core.
        progress: called with a name and a number of steps before each part; what it returns is called per step.

    Raises:
        EngineError: The file cannot be read, or is not of this ld-deploy.
        ConfigError: It is quantized or half precision already, or a setting is not possible.
        InputError: An image cannot be read.
        DataError: There is no image.
        LdDeployError: The file cannot be written.
    """
    model, card = deployed_file.read(source)
    if card.precision != "fp32":
        message = f"{source} is a file of precision {card.precision}, and quantization starts from fp32"
        raise ConfigError(f"{message}: make one with `ld-deploy export CONFIG CHECKPOINT -o student.onnx`")
    if output.resolve() == source.resolve():
        raise ConfigError(f"{output} is the float32 file itself, which is still needed: give another name with -o")
    if not 0 <= float_budget <= 1:
        raise ConfigError(f"the budget of float layers is a share from 0 to 1, got {float_budget}")
    methods = tuple(methods) or methods_of(kind)
    check_methods(methods, kind=kind)
    check_writable(output)
    trunk, tail = deployed_file.split(model)
    if kind == "fp8":
        trunk = with_opset(trunk, FLOAT8_OPSET)
    whole, plan = make_plan(trunk.graph), make_plan(trunk.graph, keep_float=keep_float or ())
    advance = progress("calibrate", len(calibration))
    histograms = collect(
        trunk, tensors=list(whole.group_of), paths=calibration, card=card, threads=threads, progress=advance
    )
    paths = evenly(compared or (labelled.paths if labelled else ()), COMPARED_IMAGES)
    reference = FloatReference(trunk, paths=paths, card=card, threads=threads)
    judge = _Judge(tail=tail, card=replace(card, precision=kind), labelled=labelled, threads=threads)

    def quantized(plan: Plan, method: Method) -> ModelProto:
        scales = choose_scales(plan, histograms, method=method, kind=kind)
        return insert_quantization(trunk, plan=plan, scales=scales, kind=kind)

    def trial(plan: Plan, method: Method) -> Trial:
        network = quantized(plan, method)
        return Trial(method, reference.error(network), judge.ap(network))

    tried = []
    advance = progress("try methods", len(methods))
    for method in methods:
        tried.append(trial(plan, method))
        advance()
    best = best_of(tried)
    layers: list[LayerSensitivity] = []
    kept = tuple(keep_float or ())
    if keep_float is None:
        advance = progress("measure layers", len(find_modules(trunk.graph)))
        layers = measure_sensitivity(
            trunk, reference=reference, histograms=histograms, method=best.method, kind=kind, progress=advance
        )
        kept = choose_float(layers, budget=float_budget)
        plan = make_plan(trunk.graph, keep_float=kept)
    final = trial(plan, best.method)
    card = replace(card, precision=kind)
    deployed_file.write(deployed_file.join(quantized(plan, best.method), tail), output, card=card)
    report = QuantizationReport(
        precision=kind,
        method=best.method,
        trials=tuple(tried),
        kept_float=kept,
        modules=scales_by_module(plan, choose_scales(plan, histograms, method=best.method, kind=kind)),
        sensitivity=tuple(layers),
        float_ap=judge.float_ap(source),
        ap=final.ap,
        error=final.error,
        calibration_images=len(calibration),
        labelled_images=len(labelled.paths) if labelled else 0,
        facts={
            "source_sha256": sha256_of(source),
            "onnx_sha256": sha256_of(output),
            "calibration_images_sha256": list_sha256(calibration),
            "labelled_images_sha256": list_sha256(labelled.paths) if labelled else None,
            "machine": machine(),
        },
    )
    write_text(report_path(output), report.to_json())
    return report


class _Judge:
    """AP of trial networks, each run as a whole file by the detector, from the image files on."""

    def __init__(
        self, *, tail: deployed_file.Tail, card: ModelCard, labelled: LabelledImages | None, threads: int | None
    ) -> None:
        self._tail, self._card, self._labelled, self._threads = tail, card, labelled, threads

    def ap(self, trunk: ModelProto) -> float | None:
        if self._labelled is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trial.onnx")
            deployed_file.write(deployed_file.join(trunk, self._tail), path, card=self._card)
            return self.float_ap(path)

    def float_ap(self, path: Path) -> float | None:
        """Of a file as it lies there."""
        if self._labelled is None:
            return None
        return average_precision(path, self._labelled, threads=self._threads)


def average_precision(path: Path, labelled: LabelledImages, *, threads: int | None = None) -> float:
    """COCO's AP of a deployed file, 0-1.

    Raises:
        EngineError: The file cannot be run, or gives no detections.
    """
    detector = Detector(path, threads=threads)
    rows = [
        row
        for image_id, image in zip(labelled.image_ids, labelled.paths, strict=True)
        for row in detector(image).to_coco(image_id=image_id, category_ids=labelled.category_ids)
    ]
    return evaluate_boxes(labelled.document, rows).ap or 0.0


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """So many, evenly spaced."""
    if len(paths) <= count:
        return list(paths)
    return [paths[index * len(paths) // count] for index in range(count)]
