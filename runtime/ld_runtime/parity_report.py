"""The verdict of `ld-deploy verify`: AP and boxes of deployed files against PyTorch, as JSON and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from ld_runtime.coco import AveragePrecision
    from ld_runtime.parity import BoxAgreement


@dataclass(frozen=True)
class Tolerance:
    """What a deployed file may differ by.

    Args:
        max_ap_difference: of `ap`, either way, 0-1.
        min_matched_share: of the boxes of both sides, 0-1.
    """

    max_ap_difference: float = 0.0002
    min_matched_share: float = 0.999

    @classmethod
    def of_precision(cls, precision: str) -> Tolerance:
        """What is usual for a network of a precision, as `EngineFacts.precision` names it."""
        return TOLERANCES[precision]


# A box of a coarser network need not match at IoU 0.99 to be as good: there the AP judges alone.
TOLERANCES = {
    "fp32": Tolerance(),
    "fp16": Tolerance(max_ap_difference=0.002, min_matched_share=0.95),
    "bf16": Tolerance(max_ap_difference=0.005, min_matched_share=0.0),
    "int8": Tolerance(max_ap_difference=0.005, min_matched_share=0.0),
    "fp8": Tolerance(max_ap_difference=0.005, min_matched_share=0.0),
}


@dataclass(frozen=True)
class ParityReport:
    """AP of the reference and of each deployed file on the same images, and how their boxes agree.

    Args:
        reference: name of the reference, a key of `ap`.
        ap: by source: the reference and each deployed file.
        agreement: by deployed file, with the reference.
        tolerance: what `passed` asks for, of every deployed file or by its name.
        ap_interval: by deployed file, low and high end of what 95 % of resampled image sets give for the difference in
            AP; where it holds 0, the images cannot tell the file from the reference.
        beside: AP of sources that are shown for comparison and not judged, such as mmdet's own test pipeline.
    """

    reference: str
    ap: Mapping[str, AveragePrecision]
    agreement: Mapping[str, BoxAgreement]
    tolerance: Tolerance | Mapping[str, Tolerance] = field(default_factory=Tolerance)
    beside: Mapping[str, AveragePrecision] = field(default_factory=dict)
    ap_interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def ap_difference(self, name: str) -> float | None:
        """The `ap` of a deployed file minus the reference's; None when one of them has none."""
        deployed, reference = self.ap[name].ap, self.ap[self.reference].ap
        return None if deployed is None or reference is None else deployed - reference

    def tolerance_of(self, name: str) -> Tolerance:
        """What a deployed file may differ by."""
        return self.tolerance if isinstance(self.tolerance, Tolerance) else self.tolerance[name]

    def failures(self) -> tuple[str, ...]:
        """What exceeds the tolerance, in words; nothing to compare is a failure too."""
        found = [] if self.agreement else ["no deployed file was compared"]
        for name, agreement in self.agreement.items():
            difference, tolerance = self.ap_difference(name), self.tolerance_of(name)
            if difference is None:
                found.append(f"{name}: there is no AP to compare")
            elif abs(difference) > tolerance.max_ap_difference:
                found.append(f"{name}: AP differs by {difference:+.4f}, allowed are {tolerance.max_ap_difference:.4f}")
            if agreement.matched_share < tolerance.min_matched_share:
                wanted = tolerance.min_matched_share
                found.append(f"{name}: {agreement.matched_share:.4%} of the boxes match, wanted are {wanted:.4%}")
        return tuple(found)

    def turns(self) -> tuple[str, ...]:
        """Of files with rotated boxes, how far matched ones are shifted and turned, in words."""
        return tuple(
            f"{name}: matched boxes differ by at most {one.max_box_difference_px:.4f} px and "
            f"{one.max_angle_difference_deg:.4f} degrees"
            for name, one in self.agreement.items()
            if one.max_angle_difference_deg is not None
        )

    @property
    def passed(self) -> bool:
        """Whether every deployed file is within the tolerance, and there was one."""
        return not self.failures()

    def content(self) -> dict[str, Any]:
        """All of this as one JSON object, with the differences and the verdict."""
        return {
            "reference": self.reference,
            "ap": {name: asdict(value) for name, value in self.ap.items()},
            "ap_difference": {name: self.ap_difference(name) for name in self.agreement},
            "ap_interval": {name: list(value) for name, value in self.ap_interval.items()},
            "agreement": {name: _known(asdict(value)) for name, value in self.agreement.items()},
            "beside": {name: asdict(value) for name, value in self.beside.items()},
            "tolerance": {name: asdict(self.tolerance_of(name)) for name in self.agreement},
            "failures": self.failures(),
            "passed": self.passed,
        }

    def table(self) -> Table:
        """What counts of it, for a screen of 80 columns."""
        from rich.table import Table

        table = Table(title=f"against {self.reference}: {'[green]passed[/]' if self.passed else '[red]failed[/]'}")
        table.add_column("source", overflow="fold")
        for heading in ("AP", "AP50", "AP75", "AP diff\n95 %", "matched"):
            table.add_column(heading, justify="right")
        table.add_column("unmatched, by cause")
        for name, ap in {**self.ap, **self.beside}.items():
            figures = ["-" if value is None else f"{value:.4f}" for value in (ap.ap, ap.ap50, ap.ap75)]
            agreement = self.agreement.get(name)
            if agreement is None:
                table.add_row(name, *figures, "", "", "not judged" if name in self.beside else "the reference")
                continue
            difference = self.ap_difference(name)
            causes = Counter(box.cause for box in agreement.unmatched)
            table.add_row(
                name,
                *figures,
                _with_interval(difference, self.ap_interval.get(name)),
                f"{agreement.matched_share:.3%}",
                ", ".join(f"{cause} {count}" for cause, count in causes.most_common()) or "none",
            )
        return table


def _known(content: dict[str, Any]) -> dict[str, Any]:
    """Without what there is not of upright boxes."""
    return {key: value for key, value in content.items() if value is not None}


def _with_interval(difference: float | None, interval: tuple[float, float] | None) -> str:
    if difference is None:
        return "-"
    ends = "".join(f"\n{end:+.4f}" for end in interval or ())
    return f"{difference:+.4f}{ends}"
