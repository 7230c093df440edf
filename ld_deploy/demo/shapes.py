"""A small COCO-format data set of rendered scenes: see `ld_deploy.demo.scenes`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ld_deploy.demo.scenes import CLASSES, Scene, draw_scene
from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SPLITS = ("train", "val", "test")
VARIED_SHARE = {"train": 0.25, "val": 0.5, "test": 0.75}  # images whose size is not the common one
EMPTY_SHARE = 0.04
FINGERPRINT_IMAGES = 6  # of each split: most changes of the renderer show in them


@dataclass(frozen=True)
class RenderSettings:
    """What a rendered data set is made from: equal settings give equal pixels.

    Args:
        seed: every image has a generator of its own, seeded with (seed, split, index).
        num_train: images.
        num_val: images.
        num_test: images.
        image_hw: height and width of the common size in pixels; a share of each split has other sizes.
    """

    seed: int
    num_train: int
    num_val: int
    num_test: int
    image_hw: tuple[int, int]


def manifest_of(settings: RenderSettings) -> dict[str, Any]:
    """What `manifest.json` holds: the settings, and a hash of some scenes, so that a changed renderer renders again."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for index in range(FINGERPRINT_IMAGES):
            scene = scene_of(settings, split=split, index=index)
            digest.update(scene.image.tobytes())
            digest.update(repr(scene.objects).encode())
    content = {"settings": asdict(settings), "classes": CLASSES, "scenes_sha256": digest.hexdigest()}
    as_stored: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists
    return as_stored


def render(root: Path, *, settings: RenderSettings) -> bool:
    """Renders the data set into `root`, or leaves it when it is there already with the same settings.

    Args:
        root: folder that will hold train/, val/, test/, annotations/instances_{train,val,test}.json, manifest.json. A
            folder that an earlier call made with other settings is replaced.
        settings: sizes and seed.

    Returns:
        Whether it rendered; False when it found what it would have made.

    Raises:
        DataError: `root` holds something that is not such a data set, or the settings ask for nothing.
    """
    counts = (settings.num_train, settings.num_val, settings.num_test)
    if min(counts) < 1 or min(settings.image_hw) < 32:
        raise DataError(f"each split needs an image, each side 32 pixels; got {settings}")
    manifest = manifest_of(settings)
    path = root / "manifest.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == manifest:
        return False
    if root.exists() and any(root.iterdir()) and not path.is_file():
        raise DataError(f"{root} is no rendered data set: it has no manifest.json. Name another folder, or empty it")

    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        (temporary / "annotations").mkdir(parents=True)
        for split, count in zip(SPLITS, counts, strict=True):
            coco = render_split(temporary, split=split, count=count, settings=settings)
            (temporary / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco), encoding="utf-8")
        (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(root, ignore_errors=True)
        temporary.rename(root)
    except OSError as error:
        raise DataError(f"cannot write the data set {root}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def render_split(root: Path, *, split: str, count: int, settings: RenderSettings) -> dict[str, Any]:
    """Writes `root`/`split`/NNNNNN.png and returns the split's COCO annotations."""
    folder = root / split
    folder.mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        scene = scene_of(settings, split=split, index=index)
        name = f"{index:06d}.png"
        if not cv2.imwrite(str(folder / name), scene.image):
            raise DataError(f"cannot write {folder / name}: is the disk full, or the folder read-only?")
        height, width = scene.image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for one in scene.objects:
            x1, y1, x2, y2 = one.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": one.label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(one.mostly_hidden),
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def scene_of(settings: RenderSettings, *, split: str, index: int) -> Scene:
    """The scene of one image: it depends on the seed, the split and the index, not on how many images there are."""
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])
    image_hw = settings.image_hw
    if rng.random() < VARIED_SHARE[split]:
        image_hw = draw_size(rng, image_hw=image_hw)
    return draw_scene(rng, image_hw=image_hw, empty=rng.random() < EMPTY_SHARE)


def draw_size(rng: np.random.Generator, *, image_hw: tuple[int, int]) -> tuple[int, int]:
    """A size between 0.6 and 1.4 of the common one, neither side a multiple of 32."""
    height, width = (int(side * rng.uniform(0.6, 1.4)) for side in image_hw)
    return height + (height % 32 == 0), width + (width % 32 == 0)
