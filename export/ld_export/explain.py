"""Which stage owns the difference between a deployed file and PyTorch: stages are swapped one after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_export.explain_maps import LevelDifference, LevelDifferences
from ld_export.explain_stages import STAGES, in_image
from ld_runtime.errors import ParityError
from ld_runtime.parity import match_boxes
from ld_runtime.parity_decisions import Chosen, Decision, decision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ld_export.explain_stages import FileStages, Maps, Stage, Stages
    from ld_runtime.cluster_nms import Detected
    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector
    from ld_runtime.model_card import NmsSettings
    from ld_runtime.preprocess import Prepared
    from ld_runtime.rotated_nms import RotatedNmsSettings

# By stage, P for PyTorch's and A for the artifact's: the prefixes are the chain, each step of which swaps one stage.
CHAIN = ("PPPP", "APPP", "AAPP", "AAAP", "AAAA")
SINGLES = ("APPP", "PAPP", "PPAP", "PPPA")
SCORE_MOVED = 0.01
WORST = 20
# Of the boxes of both sides: what float32 rounding moves is no stage's.
NEGLIGIBLE = 0.001
# Of all moved boxes: a stage that moves so many is named beside the owner.
WORTH_NAMING = 0.05
_NAMES: dict[Stage, str] = {"preprocess": "preprocess", "trunk": "trunk", "decode": "decode", "nms": "NMS"}


@dataclass(frozen=True)
class Swap:
    """One combination of stages, and what its last swap changed.

    Args:
        stages: a letter for each: P PyTorch's, A the artifact's.
        ap: on all images; None where there is none.
        ap_difference: to what it is compared with: in the chain the step before, for a single swap all of PyTorch.
        boxes: of both in that comparison.
        moved: of them without a partner of their class at IoU 0.99 whose score is within 0.01.
    """

    stages: str
    ap: float | None
    ap_difference: float | None
    boxes: int
    moved: int

    @property
    def moved_share(self) -> float:
        """Of the boxes of both sides, 0-1."""
        return self.moved / max(1, self.boxes)


@dataclass(frozen=True)
class Difference:
    """A detection without a partner, and the reason.

    Args:
        image: index of the image.
        side: `reference` or `candidate`: who has it.
        label: class index.
        score: its score.
        decision: what became of it on the other side.
    """

    image: int
    side: str
    label: int
    score: float
    decision: Decision


@dataclass(frozen=True)
class Explanation:
    """Where a deployed file leaves PyTorch.

    Args:
        name: of the file.
        precision: of its network.
        owner: the stage whose step moves most boxes; None where no stage differs.
        owner_share: of the boxes that all steps moved, 0-1.
        chain: PyTorch's stages replaced one after the other.
        singles: one of them replaced, the others PyTorch's.
        levels: differences of the maps on one canvas, over all locations.
        levels_above: the same over the locations with a score above the threshold.
        at_threshold: detections without a partner whose fate was decided at a threshold, by reason.
        real: the others, by reason.
        worst: of the real differences the ones with the highest score.
    """

    name: str
    precision: str
    owner: Stage | None
    owner_share: float
    chain: tuple[Swap, ...]
    singles: tuple[Swap, ...]
    levels: tuple[LevelDifference, ...]
    levels_above: tuple[LevelDifference, ...]
    at_threshold: dict[str, int]
    real: dict[str, int]
    worst: tuple[Difference, ...]

    def sentence(self) -> str:
        """What it comes to."""
        if self.owner is None:
            return f"{self.name}: no stage differs"
        moved = sum(one.moved for one in self.chain)
        why = f"; {self.precision} rounding" if self.owner == "trunk" and self.precision != "fp32" else ""
        others = [
            f"{_NAMES[stage]} {step.moved / moved:.0%}"
            for stage, step in zip(STAGES, self.chain[1:], strict=True)
            if stage != self.owner and step.moved >= WORTH_NAMING * moved
        ]
        rest = f" ({', '.join(others)})" if others else ""
        owner = _NAMES[self.owner]
        return f"{self.name}: the {owner} owns it: {self.owner_share:.0%} of the {moved} moved boxes{rest}{why}"

    def content(self) -> dict[str, Any]:
        """All of it as one JSON object, of bounded size."""
        return {**asdict(self), "sentence": self.sentence()}


def explain(
    reference: Stages,
    detector: Detector,
    deployed: FileStages,
    *,
    name: str,
    images: int,
    strides: tuple[int, ...],
    average_precision: Callable[[Sequence[Detections]], float | None],
    advance: Callable[[], object] = lambda: None,
) -> Explanation:
    """Swaps the stages of PyTorch and of a deployed file.

    Args:
        reference: PyTorch's.
        detector: of the file.
        deployed: its stages.
        name: of the file.
        images: how many.
        strides: of the levels, in pixels.
        average_precision: of detections of all images.
        advance: called after each image.

    Raises:
        ParityError: There is no image.
    """
    if not images:
        raise ParityError("comparing nothing proves nothing: give images")
    settings = detector.card.nms
    distributions = 5 if detector.card.is_rotated else 4
    every = LevelDifferences(strides=strides, distributions=distributions)
    above = LevelDifferences(strides=strides, score_threshold=settings.score_threshold, distributions=distributions)
    found: dict[str, list[Detections]] = {stages: [] for stages in (*CHAIN, *SINGLES)}
    differences: list[Difference] = []
    for index in range(images):
        one = _Image(reference, deployed, index)
        every.add(one.maps("PP"), one.maps("PA"))
        above.add(one.maps("PP"), one.maps("PA"))
        for stages, detections in found.items():
            detections.append(in_image(one.detections(stages), one.prepared(stages[0]), detector))
        differences += _differences(one, index, found["PPPP"][-1], found["AAAA"][-1], settings)
        advance()
    ap = {stages: average_precision(detections) for stages, detections in found.items()}
    chain = [swap(found, ap, CHAIN[0], CHAIN[0]), *(swap(found, ap, *pair) for pair in pairwise(CHAIN))]
    owner, share = _owner(chain)
    real = [one for one in differences if not one.decision.at_threshold]
    near = [one for one in differences if one.decision.at_threshold]
    return Explanation(
        name=name,
        precision=detector.engine.facts.precision,
        owner=owner,
        owner_share=share,
        chain=tuple(chain),
        singles=tuple(swap(found, ap, CHAIN[0], stages) for stages in SINGLES),
        levels=every.result(),
        levels_above=above.result(),
        at_threshold=dict(Counter(one.decision.reason for one in near)),
        real=dict(Counter(one.decision.reason for one in real)),
        worst=tuple(sorted(real, key=lambda one: -one.score)[:WORST]),
    )


class _Image:
    """One image through any combination of stages; what two combinations share is computed once."""

    def __init__(self, reference: Stages, deployed: Stages, index: int) -> None:
        self._sides = {"P": reference, "A": deployed}
        self._prepared = {letter: side.preprocess(index) for letter, side in self._sides.items()}
        one, other = (self._prepared[letter].canvas for letter in "PA")
        self._same_canvas = one.shape == other.shape and bool((one == other).all())
        self._maps: dict[str, Maps] = {}
        self._candidates: dict[str, Detected] = {}

    def prepared(self, letter: str) -> Prepared:
        return self._prepared[letter]

    def maps(self, stages: str) -> Maps:
        key = f"P{stages[1]}" if self._same_canvas else stages[:2]
        if key not in self._maps:
            self._maps[key] = self._sides[key[1]].trunk(self._prepared[key[0]].canvas)
        return self._maps[key]

    def candidates(self, stages: str) -> Detected:
        key = (f"P{stages[1]}" if self._same_canvas else stages[:2]) + stages[2]
        if key not in self._candidates:
            self._candidates[key] = self._sides[key[2]].decode(self.maps(key))
        return self._candidates[key]

    def detections(self, stages: str) -> Detected:
        return self._sides[stages[3]].nms(self.candidates(stages))


def swap(found: dict[str, list[Detections]], ap: dict[str, float | None], before: str, after: str) -> Swap:
    """What changes between two of several results.

    Args:
        found: detections of all images, by a name.
        ap: of each; None where there is none.
        before: name of what is compared with.
        after: name of what is compared.
    """
    moved = boxes = 0
    for one, other in zip(found[before], found[after], strict=True):
        pairs = [
            pair
            for pair in match_boxes(one, other)
            if abs(float(one.scores[pair[0]]) - float(other.scores[pair[1]])) <= SCORE_MOVED
        ]
        boxes += len(one) + len(other)
        moved += len(one) + len(other) - 2 * len(pairs)
    first, second = ap[before], ap[after]
    return Swap(after, second, None if first is None or second is None else second - first, boxes, moved)


def _owner(chain: Sequence[Swap]) -> tuple[Stage | None, float]:
    """The stage whose step moved most boxes, and its share of them; (None, 0) where that is next to nothing."""
    steps = chain[1:]
    largest = max(range(len(steps)), key=lambda at: steps[at].moved)
    if steps[largest].moved_share <= NEGLIGIBLE:
        return None, 0.0
    return STAGES[largest], steps[largest].moved / sum(one.moved for one in steps)


def _differences(
    one: _Image, image: int, reference: Detections, candidate: Detections, settings: NmsSettings | RotatedNmsSettings
) -> list[Difference]:
    """The detections of one image without a partner at IoU 0.99, each with its reason."""
    pairs = match_boxes(reference, candidate)
    if len(pairs) == len(reference) == len(candidate):
        return []
    chosen = Chosen(one.candidates("PPP"), settings), Chosen(one.candidates("AAA"), settings)
    found = []
    for side, detections, at in (("reference", reference, 0), ("candidate", candidate, 1)):
        back = np.array([*one.prepared("PA"[at]).scale_factor * 2, 1], np.float32)[: detections.boxes.shape[1]]
        for index in sorted(set(range(len(detections))) - {pair[at] for pair in pairs}):
            score, label = float(detections.scores[index]), int(detections.labels[index])
            source = chosen[at].index_of(score, label, detections.boxes[index] * back)
            if source is None:  # the sides have different rules, and this one's NMS would not have kept it
                why = Decision("missing", None, at_threshold=False, shift_px=None)
            else:
                why = decision(chosen[at], chosen[1 - at], source)
            found.append(Difference(image, side, label, score, why))
    return found
