"""From the JSON of a command to `material`. Each reader takes a content that `find` has recognised."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from ld_runtime.detection_record import record_path
from ld_runtime.report.material import (
    PYTORCH,
    Accuracy,
    Bench,
    Comparison,
    Interval,
    Judged,
    ModelKey,
    Parity,
    Recipe,
    Recommendation,
    RecommendedPoint,
    Span,
    Timed,
)
from ld_runtime.report.naming import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Content = Mapping[str, Any]


def read_parity(content: Content, path: Path, *, hashes: Mapping[str, str] | None = None) -> Parity:
    """A JSON of `ld-deploy verify`.

    Args:
        content: of it.
        path: of it.
        hashes: SHA-256 by file name, for a content that has none.
    """
    reference, models = content["reference"], content.get("models", {})
    explanations = content.get("explanation") or {}
    files = []
    for name, agreement in content["agreement"].items():
        facts = models.get(name, {})
        difference = content["ap_difference"][name]
        files.append(
            Judged(
                name=name,
                key=ModelKey(
                    facts.get("sha256") or (hashes or {}).get(name, ""),
                    facts.get("backend", ""),
                    facts.get("precision", ""),
                ),
                accuracy=_accuracy(content["ap"][name]),
                difference=_interval(difference, (content.get("ap_interval") or {}).get(name)),
                matched_share=agreement["matched_share"],
                max_score_shift=agreement.get("max_score_difference"),
                max_box_shift_px=agreement["max_box_difference_px"],
                causes=_causes(agreement["unmatched"]),
                explanation=explanations.get(name),
                failures=tuple(
                    line.removeprefix(f"{name}: ") for line in content["failures"] if line.startswith(f"{name}: ")
                ),
            )
        )
    first: dict[str, Any] = next(iter(content["agreement"].values()), {})
    images = content.get("images") or first.get("images", 0)
    boxes = f", {content['boxes']:,} boxes" if "boxes" in content else ""
    record = record_path(path)
    named = " ".join(shlex.quote(name) for name in content["agreement"])
    split = content.get("split", "test")
    return Parity(
        path=path,
        model=model_of([file.name for file in files]) or path.stem,
        reference=reference,
        reference_key=ModelKey(content.get("checkpoint_sha256", ""), PYTORCH, "fp32"),
        reference_accuracy=_accuracy(content["ap"][reference]),
        files=tuple(files),
        beside={name: _accuracy(one) for name, one in content.get("beside", {}).items()},
        split=split,
        data=_data(split, images, boxes, content["ap"][reference].get("per_class_ap", {})),
        record=record if record.is_file() else None,
        machine=content.get("machine", {}),
        command=content.get("command")
        or f"ld-deploy verify CONFIG CHECKPOINT {named}{'' if split == 'test' else ' --split ' + split} -o {path.name}",
    )


def _causes(unmatched: int | Sequence[Content]) -> Counter[str]:
    """By cause; a summary of `verify --explain` has only the number of boxes."""
    if isinstance(unmatched, int):
        return Counter({"cause not in this summary": unmatched} if unmatched else {})
    return Counter(box["cause"] for box in unmatched)


def read_precision_report(content: Content, path: Path) -> list[Parity]:
    """A JSON of `ld-deploy precision-report`: one for each split, all against its first file."""
    found = []
    for split in dict.fromkeys(one["split"] for one in content["files"]):
        reference, *others = [one for one in content["files"] if one["split"] == split]
        keys = {
            one["name"]: ModelKey(content["models_sha256"][one["name"]], one["backend"], one["precision"])
            for one in (reference, *others)
        }
        files = " ".join(shlex.quote(name) for name in keys)
        found.append(
            Parity(
                path=path,
                model=model_of([reference["name"]]),
                reference=reference["name"],
                reference_key=keys[reference["name"]],
                reference_accuracy=Accuracy(reference["ap"]),
                files=tuple(
                    Judged(
                        one["name"],
                        keys[one["name"]],
                        Accuracy(one["ap"]),
                        Interval(one["difference"]["ap"], one["difference"]["low"], one["difference"]["high"]),
                    )
                    for one in others
                ),
                beside={},
                split=split,
                data=_data(split, reference["images"], "", {}),
                record=None,
                machine=content.get("machine", {}),
                command=f"ld-deploy precision-report {content['config']} {files} -o {path.name}",
            )
        )
    return found


def read_bench(content: Content, path: Path) -> Bench:
    """A JSON of `ld-deploy bench`."""
    settings = content["settings"]
    device = settings["device"]
    sizes = ",".join(map(str, settings["batch_sizes"]))
    models = " ".join(
        shlex.quote(one["settings"]["model"]) for one in content["measurements"] if "model" in one["settings"]
    )
    against = "" if all("model" in one["settings"] for one in content["measurements"]) else " --against CHECKPOINT"
    return Bench(
        path=path,
        timed=tuple(_timed(one, folder=path.parent) for one in content["measurements"]),
        images=content["images"]["count"],
        stable=content.get("stable"),
        machine=content["machine"],
        command=f"ld-deploy bench {models} --images IMAGES{against} --device {device} "
        f"--seconds {settings['seconds']:g} --batch-sizes {sizes} -o {path.name}",
    )


def read_comparison(content: Content, path: Path) -> Comparison:
    """A JSON of `ld-deploy compare`."""
    return Comparison(
        path=path,
        name=content["comparison"],
        teacher_ap=content["teacher"]["ap"],
        recipes=tuple(
            Recipe(one["name"], tuple(one["val_ap"]["each"]), tuple(one["test_ap"]["each"])) for one in content["rows"]
        ),
        machine=content.get("machine", {}),
        command=f"ld-deploy compare {content['comparison']} -o {path.name}",
    )


def read_recommendation(content: Content, path: Path) -> Recommendation:
    """A JSON of `ld-deploy recommend`."""
    points, settings = content["points"], content["settings"]
    word = "AP" if "ap" in points[0] else "agreement"
    files = " ".join(shlex.quote(one) for one in dict.fromkeys(point["model"] for point in points))
    budget = "".join(
        f" --{name.replace('_', '-')} {settings[name]:g}" for name in ("max_latency_ms", "min_ap") if settings[name]
    )
    return Recommendation(
        path=path,
        word=word,
        points=tuple(
            RecommendedPoint(
                name=one["name"],
                key=ModelKey(one["model_sha256"], one["backend"], one["precision"]),
                quality=one[word.lower()],
                median_ms=one["latency"]["median_ms"],
                p90_ms=one["latency"]["p90_ms"],
                on_front=one["on_front"],
                command=one["command"],
            )
            for one in points
        ),
        take=content["take"],
        advice=content["advice"],
        images=content["images"]["count"],
        machine=content["machine"],
        command=f"ld-deploy recommend {files} --images IMAGES{' --annotations FILE' if word == 'AP' else ''} "
        f"--target {content['target']}{budget} --seconds {settings['seconds']:g} -o {path.name}",
    )


def read_demo_report(content: Content, path: Path) -> tuple[list[Parity], list[Bench]]:
    """The parities and benchmark inside a demo's `report.json`, for whoever has no more than that."""
    stages = content["stages"]
    hashes = {f"{role}.onnx": one["sha256"] for role, one in stages.get("export", {}).items()}
    parities = [read_parity(one, path, hashes=hashes) for one in stages.get("verify", {}).get("reports", {}).values()]
    return parities, [read_bench(stages["bench"], path)] if "bench" in stages else []


def _timed(one: Content, *, folder: Path) -> Timed:
    settings = one["settings"]
    checkpoint = settings.get("checkpoint_sha256", "")
    is_file = "model_sha256" in settings
    key = ModelKey(
        settings["model_sha256"] if is_file else checkpoint,
        settings.get("backend", "") if is_file else one["name"],
        settings.get("precision", ""),
    )
    return Timed(
        name=one["name"],
        key=key,
        is_file=is_file,
        spans={name: _span(span) for name, span in one["spans"].items()},
        fps=one["fps"],
        size_mb=settings.get("file_mb") or _size_mb(settings.get("model"), folder),
    )


def _span(span: Content) -> Span:
    """An older JSON has three quantiles only."""
    known = span.get("quantiles_ms") or {"50": span["median_ms"], "90": span["p90_ms"], "99": span["p99_ms"]}
    quantiles = tuple((float(percent), value) for percent, value in known.items())
    return Span(span["mean_ms"], span["median_ms"], span["p90_ms"], span["p99_ms"], span["n"], quantiles)


def _size_mb(model: str | None, folder: Path) -> float | None:
    """Of the file, when it still lies beside the JSON or a folder above: an older JSON does not say it."""
    if model is None:
        return None
    found = next((place / model for place in (folder, *folder.parents[:2]) if (place / model).is_file()), None)
    return None if found is None else found.stat().st_size / 1e6


def _accuracy(one: Content) -> Accuracy:
    return Accuracy(one["ap"], one.get("ap50"), one.get("ap75"), one.get("per_class_ap", {}))


def _interval(difference: float | None, interval: Sequence[float] | None) -> Interval | None:
    if difference is None:
        return None
    return Interval(difference, *(interval or (None, None)))


def _data(split: str, images: int, boxes: str, classes: Mapping[str, Any]) -> str:
    named = f", {len(classes)} classes" if classes else ""
    return f"{split} split, {images:,} images{boxes}{named}"
