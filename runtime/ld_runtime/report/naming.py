"""What the page calls its models and files: short, and no two alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.material import Bench, Parity


def model_of(names: Sequence[str]) -> str:
    """What some files are made of, by their names: `a` of `a.onnx`, `a.int8.onnx` and `a.onnx@openvino:bf16`.

    Args:
        names: `FILE[@BACKEND[:PRECISION]]`; of none it is "".
    """
    stems = [PurePath(name.partition("@")[0]).stem for name in names]
    shortest = min(stems, key=len, default="")
    return shortest if all(stem == shortest or stem.startswith(f"{shortest}.") for stem in stems) else stems[0]


def with_names(parities: Sequence[Parity]) -> list[Parity]:
    """The same with `model`, and `label` of each file, that no other on the page has."""
    details = [
        (
            "",
            one.split,
            one.path.stem,
            f"{one.split}, {one.path.stem}",
            f"{one.split}, {one.path.parent.name}/{one.path.stem}",
            f"{one.split}, {one.path}",
        )
        for one in parities
    ]
    counts = [
        Counter((one.model, detail) for one, detail in zip(parities, column, strict=True))
        for column in zip(*details, strict=True)
    ]
    files = Counter(file.name for one in parities for file in one.files)
    named = []
    for one, own in zip(parities, details, strict=True):
        alone = (detail for detail, count in zip(own, counts, strict=True) if count[one.model, detail] == 1)
        detail = next(alone, own[-1])
        model = f"{one.model}, {detail}" if detail else one.model
        labelled = tuple(
            replace(file, label=file.name if files[file.name] == 1 else f"{file.name}, {detail or one.model}")
            for file in one.files
        )
        named.append(replace(one, model=model, detail=detail, files=labelled))
    return named


def with_models(benches: Sequence[Bench], parities: Sequence[Parity]) -> list[Bench]:
    """The same with the model in the name of what is no file, where a parity has the same weights."""
    models = {one.reference_key.sha256: one.model for one in parities if one.reference_key.sha256}
    return [
        replace(
            bench,
            timed=tuple(
                one
                if one.is_file or one.key.sha256 not in models
                else replace(one, name=f"{one.name} · {models[one.key.sha256]}")
                for one in bench.timed
            ),
        )
        for bench in benches
    ]
