"""Is the deployed file as good as the PyTorch model? AP and boxes of both, on the same images and candidate rule.

PyTorch is mmdet's own `test_step` on the checkpoint, not the exported wrapper; the deployed file is run by `Detector`
on the image files. So a difference anywhere between file and boxes is seen.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ld_deploy import compat
from ld_export.pytorch_reference import MMDET, REFERENCE, like_card, like_mmdet, pipeline_of, pytorch_detections
from ld_runtime.bench_report import machine, sha256_of
from ld_runtime.coco import evaluate_boxes
from ld_runtime.detection_record import DetectionRecord, record_path
from ld_runtime.detections import Detections
from ld_runtime.detector import Detector
from ld_runtime.engines import ModelSpec, names_of
from ld_runtime.errors import ConfigError, ParityError
from ld_runtime.files import write_text
from ld_runtime.paired_ap import MatchedImages, paired_difference
from ld_runtime.parity import compare_detections
from ld_runtime.parity_report import ParityReport, Tolerance
from ld_runtime.precision_proof import proof_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mmengine.config import Config

    from ld_export.explain import Explanation
    from ld_export.explain_engine import EngineExplanation
    from ld_export.ground_truth import Truth
    from ld_runtime.coco import AveragePrecision
    from ld_runtime.model_card import ModelCard
    from ld_runtime.precision_proof import PrecisionProof

KIND = "ld_deploy.parity"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Verification:
    """The verdict and what it was made from.

    Args:
        report: AP, agreement, tolerance and verdict.
        facts: images, split, hashes, machine, versions: what a reader needs to make it again.
        proofs: which types each file really computes in.
        record: every source's detections, with the ground truth.
        explanations: by file, where it was asked for: which stage owns the difference.
        unexplained: by file, why its stages cannot be swapped, and what can be done.
    """

    report: ParityReport
    facts: dict[str, Any]
    proofs: dict[str, PrecisionProof]
    record: DetectionRecord
    explanations: dict[str, Explanation | EngineExplanation] = field(default_factory=dict)
    unexplained: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """Report and facts as one JSON object."""
        explanation = {name: one.content() for name, one in self.explanations.items()} | {
            name: {"sentence": why} for name, why in self.unexplained.items()
        }
        more = {"explanation": explanation} if explanation else {}
        return {"kind": KIND, "schema_version": SCHEMA_VERSION, **self.report.content(), **self.facts, **more}

    def write(self, path: Path) -> None:
        """Writes `content` as JSON, and the record beside it, see `record_path`."""
        write_text(path, json.dumps(self.content(), indent=1) + "\n")
        self.record.write(record_path(path))


def verify(
    config: str | Path | Config,
    *,
    checkpoint: Path,
    models: Sequence[Path | ModelSpec],
    split: Literal["test", "val"] = "test",
    limit: int | None = None,
    max_ap_difference: float | None = None,
    min_matched_share: float | None = None,
    device: str = "cpu",
    with_mmdet: bool = True,
    explained: bool = False,
    progress: Callable[[str, int], Callable[[], object]] = lambda _name, _total: lambda: None,
) -> Verification:
    """Compares deployed files with the checkpoint that they came from.

    Args:
        config: path, `mmdet::` name or config; its data set may be COCO, VOC, or one of rotated boxes.
        checkpoint: of the student.
        models: deployed files, each with what is to run it; one canvas, candidate rule and NMS in all of them.
        split: which data set of the config.
        limit: take the first so many images.
        max_ap_difference: what `report.passed` asks for; None: what is usual for the precision of each file.
        min_matched_share: likewise.
        device: of the deployed files.
        explained: also swap the stages of PyTorch and each file, and name the one that owns the difference.
        with_mmdet: also report mmdet's own pipeline: plain NMS, padding after the normalisation. It is not judged.
            mmdet has none of rotated boxes.
        progress: called with a name and a number of images before each run; what it returns is called per image.

    Raises:
        ConfigError: The config cannot be used, or the files differ from one another in what they promise.
        DataError: The data set cannot be used.
        CheckpointError: The weights cannot be read, or are not of this config.
        ParityError: There is not one box to compare.
        LdDeployError: A deployed file cannot be run.
    """
    compat.install()
    from ld_deploy.checkpoint import load_model
    from ld_deploy.config import load_config, student_only
    from ld_export.card import card_from_config, dataset_config
    from ld_export.ground_truth import load_truth

    specs = [one if isinstance(one, ModelSpec) else ModelSpec(one) for one in models]
    detectors = {
        name: Detector(spec.path, device=device, backend=spec.backend, precision=spec.precision)
        for name, spec in zip(names_of(specs), specs, strict=True)
    }
    card = common_card({name: detector.card for name, detector in detectors.items()})
    proofs = {name: proof_of(one.engine, spec.path) for (name, one), spec in zip(detectors.items(), specs, strict=True)}
    for name, proof in proofs.items():
        proof.require(detectors[name].engine.facts.precision, what=name)
    config = load_config(config)
    own = card_from_config(config, weights_sha256=sha256_of(checkpoint) if checkpoint.is_file() else "")
    config = student_only(config)
    dataset = dict(dataset_config(config, split=split))
    mmdet_dataset = dict(dataset)
    if own.preprocess != card.preprocess:
        dataset["pipeline"] = pipeline_of(dataset["pipeline"], card.preprocess)
    truth = load_truth(dataset, limit=limit)

    found = {REFERENCE: pytorch_detections(like_card(config, card), checkpoint, truth, progress=progress)}
    for name, detector in detectors.items():
        advance = progress(name, len(truth.paths))
        found[name] = [_advanced(detector(path), advance) for path in truth.paths]
    beside: dict[str, AveragePrecision] = {}
    recorded = dict(found)
    if with_mmdet and not card.is_rotated:
        plain = load_truth(mmdet_dataset, limit=limit)
        rows = pytorch_detections(like_mmdet(config, card), checkpoint, plain, progress=progress, name=MMDET)
        beside[MMDET] = average_precision(truth, rows)
        recorded[MMDET] = rows

    agreement = {
        name: compare_detections(
            found[REFERENCE],
            found[name],
            score_threshold=card.nms.score_threshold,
            max_detections=card.nms.max_detections,
            iou_threshold=card.nms.iou_threshold,
            distance_exponent=card.nms.distance_exponent,
        )
        for name in detectors
    }
    limits = {"max_ap_difference": max_ap_difference, "min_matched_share": min_matched_share}
    asked = {name: value for name, value in limits.items() if value is not None}
    report = ParityReport(
        reference=REFERENCE,
        ap={name: average_precision(truth, detections) for name, detections in found.items()},
        agreement=agreement,
        tolerance={
            name: replace(Tolerance.of_precision(one.engine.facts.precision), **asked)
            for name, one in detectors.items()
        },
        beside=beside,
        ap_interval=ap_intervals(truth, found),
    )
    facts = {
        "images": len(truth.paths),
        "split": split,
        "boxes": len(truth.document["annotations"]),
        "degenerate_boxes_left_out": truth.degenerate_boxes,
        "sizes_no_multiple_of_divisor": _odd_sizes(truth, card.preprocess.size_divisor),
        "checkpoint_sha256": own.weights_sha256,
        "models": {
            name: {
                "sha256": sha256_of(spec.path),
                **asdict(one.engine.facts),
                "precision_proof": asdict(proofs[name]),
                "exported_from_this_checkpoint": own.weights_sha256 == one.card.weights_sha256,
            }
            for (name, one), spec in zip(detectors.items(), specs, strict=True)
        },
        "machine": machine(),
    }
    record = DetectionRecord(
        reference=REFERENCE,
        paths=[path.resolve() for path in truth.paths],
        document=truth.document,
        category_ids=truth.category_ids,
        detections=recorded,
    )
    explanations: dict[str, Explanation | EngineExplanation] = {}
    unexplained: dict[str, str] = {}
    if explained:
        model = load_model(like_card(config, card), checkpoint)
        explanations, unexplained = _explain(
            model,
            detectors,
            paths={name: spec.path for name, spec in zip(detectors, specs, strict=True)},
            truth=truth,
            found=found,
            progress=progress,
        )
    return Verification(
        report=report,
        facts=facts,
        proofs=proofs,
        record=record,
        explanations=explanations,
        unexplained=unexplained,
    )


def _explain(
    model: Any,
    detectors: Mapping[str, Detector],
    *,
    paths: Mapping[str, Path],
    truth: Truth,
    found: Mapping[str, Sequence[Detections]],
    progress: Callable[[str, int], Callable[[], object]],
) -> tuple[dict[str, Explanation | EngineExplanation], dict[str, str]]:
    """By file, which stage owns its difference to the model; and of the others, why that cannot be told."""
    from ld_export.explain import explain
    from ld_export.explain_engine import explain_engine
    from ld_export.explain_stages import FileStages, TorchStages, can_be_split

    explanations: dict[str, Explanation | EngineExplanation] = {}
    unexplained: dict[str, str] = {}

    def average(detections: Sequence[Detections]) -> float | None:
        return average_precision(truth, detections).ap

    def stages_of(name: str, detector: Detector) -> Explanation:
        return explain(
            TorchStages(model, truth.dataset, truth.indices),
            detector,
            FileStages(detector, truth.paths),
            name=name,
            images=len(truth.paths),
            strides=tuple(int(stride[0]) for stride in model.bbox_head.prior_generator.strides),
            average_precision=average,
            advance=progress(f"stages of {name}", len(truth.paths)),
        )

    for name, detector in detectors.items():
        if paths[name].suffix.lower() == ".engine":
            told = explain_engine(
                paths[name],
                name=name,
                boxes=found[name],
                images=truth.paths,
                explain_onnx=stages_of,
                average_precision=average,
            )
            if isinstance(told, str):
                unexplained[name] = told
            else:
                explanations[name] = told
        elif can_be_split(detector):
            explanations[name] = stages_of(name, detector)
        else:
            unexplained[name] = _no_stages(name, detector)
    return explanations, unexplained


def common_card(cards: dict[str, ModelCard]) -> ModelCard:
    """The card of the first, when the others promise the same.

    Raises:
        ConfigError: They do not.
    """
    if not cards:
        raise ConfigError("no deployed file was given: ld-deploy verify CONFIG CHECKPOINT student.onnx")
    (first_name, first), *others = cards.items()
    for name, card in others:
        if promise(card) != promise(first):
            message = f"{name} and {first_name} differ in canvas, classes, candidates or NMS"
            raise ConfigError(f"{message}, so PyTorch has not one answer for both: verify them in separate calls")
    return first


def promise(card: ModelCard) -> ModelCard:
    """What a card says of canvas, classes, candidates and NMS, whatever the weights and their precision."""
    return replace(card, precision="fp32", weights_sha256="", training_config="", tool_versions={})


def average_precision(truth: Truth, detections: Iterable[Detections]) -> AveragePrecision:
    """AP of detections of the images of `truth`, in their order: COCO's, or DOTA's where boxes are rotated."""
    return evaluate_boxes(truth.document, coco_rows(truth, detections))


def ap_intervals(truth: Truth, found: Mapping[str, Sequence[Detections]]) -> dict[str, tuple[float, float]]:
    """95 % of what resampled image sets give for the AP of each deployed file minus the reference's."""
    if not truth.document["annotations"]:
        return {}
    reference: MatchedImages | None = None
    intervals = {}
    for name, detections in found.items():
        if name == REFERENCE:
            continue
        if all(_same(*pair) for pair in zip(found[REFERENCE], detections, strict=True)):
            intervals[name] = (0.0, 0.0)
            continue
        reference = reference or MatchedImages(truth.document, coco_rows(truth, found[REFERENCE]))
        difference = paired_difference(MatchedImages(truth.document, coco_rows(truth, detections)), reference)
        intervals[name] = (difference.low, difference.high)
    return intervals


def coco_rows(truth: Truth, detections: Iterable[Detections]) -> list[dict[str, Any]]:
    """COCO result rows of detections of the images of `truth`, in their order."""
    return [
        row
        for image_id, one in zip(truth.image_ids, detections, strict=True)
        for row in one.to_coco(image_id=image_id, category_ids=truth.category_ids)
    ]


def raise_on_failure(report: ParityReport) -> None:
    """Raises `ParityError` when the report has failed."""
    if not report.passed:
        raise ParityError("; ".join(report.failures()))


def _same(one: Detections, other: Detections) -> bool:
    """To the last bit."""
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("boxes", "scores", "labels"))


def _advanced(result: Detections, advance: Callable[[], object]) -> Detections:
    advance()
    return result


def _odd_sizes(truth: Truth, divisor: int) -> int:
    """How many images have a side that is no multiple of the divisor: the ones that need padding."""
    return sum(bool(one["height"] % divisor or one["width"] % divisor) for one in truth.document["images"])


def _no_stages(name: str, detector: Detector) -> str:
    """Why the stages of an .onnx file cannot be swapped, and what can be done."""
    message = f"{name}: decode and NMS run in the {detector.engine.facts.nms} of {detector.engine.facts.backend}"
    return f"{message}, so its stages cannot be swapped: take --device cpu with the host library (`ld-deploy doctor`)"
