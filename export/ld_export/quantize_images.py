"""On which images a file is calibrated, and on which labelled ones its accuracy is measured."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ld_runtime.errors import ConfigError, DataError
from ld_runtime.media import list_images
from ld_runtime.nearest import nearest, nearest_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.model_card import ModelCard

# Of labelled images that are all there is, one in so many is held out.
HELD_OUT_EVERY = 4
# Unlabelled images that are enough to calibrate on, where labelled ones could be taken too.
ENOUGH = 16


@dataclass(frozen=True)
class LabelledImages:
    """Images that nothing is calibrated on, and their ground truth.

    Args:
        paths: image files.
        image_ids: COCO id of each.
        category_ids: COCO id of each label of the model.
        document: COCO `images`, `annotations`, `categories` of these images.
    """

    paths: tuple[Path, ...]
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    document: dict[str, Any]

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """Some of the images, with their part of the document."""
        ids = tuple(self.image_ids[index] for index in indices)
        wanted = set(ids)
        document = {
            **self.document,
            "images": [one for one in self.document["images"] if one["id"] in wanted],
            "annotations": [one for one in self.document["annotations"] if one["image_id"] in wanted],
        }
        return LabelledImages(tuple(self.paths[index] for index in indices), ids, self.category_ids, document)


@dataclass(frozen=True)
class ChosenImages:
    """What a quantization uses.

    Args:
        calibration: scales come from these.
        compared: maps are compared on these.
        labelled: AP is measured on these, None without ground truth. None of them is among the first.
    """

    calibration: tuple[Path, ...]
    compared: tuple[Path, ...]
    labelled: LabelledImages | None


def choose_images(
    *,
    images: str | None,
    annotations: Path | None,
    config: str | None,
    split: Literal["val", "test"],
    card: ModelCard,
) -> ChosenImages:
    """Images by what the command line names.

    Args:
        images: folder or glob; None: the training set of `config`.
        annotations: COCO file; None: none.
        config: a training config, whose `split` is labelled; None: none.
        split: of the config.
        card: of the file.

    Raises:
        ConfigError: Neither images nor a config, or two sources of ground truth.
        InputError: There is no image.
        DataError: The ground truth cannot be used.
    """
    if annotations and config:
        raise ConfigError("--annotations and --config both name ground truth: give one")
    if images is None and config is None:
        raise ConfigError("name images to calibrate on: --images DIR, or --config CONFIG for its training set")
    found = tuple(training_images(config)) if images is None and config else tuple(list_images(images or ""))
    labelled = None
    if annotations:
        labelled = labelled_of_coco(annotations, images=found, class_names=card.class_names)
    elif config:
        labelled = labelled_of_config(config, split=split)
    if labelled is None:
        free, held = hold_out_of(found)
        return ChosenImages(free, held, None)
    calibration, labelled = hold_out(found, labelled)
    return ChosenImages(calibration, labelled.paths, labelled)


def labelled_of_coco(annotations: Path, *, images: Sequence[Path], class_names: Sequence[str]) -> LabelledImages:
    """Those of some image files that a COCO file has annotations for.

    Args:
        annotations: COCO JSON with `images`, `annotations`, `categories`.
        images: files; they are found by their name.
        class_names: of the model; each must be among the categories.

    Raises:
        DataError: The file cannot be read, lacks a class, is of none of the images, or two of them have one name.
    """
    try:
        document = json.loads(annotations.read_text(encoding="utf-8"))
        names = [Path(one["file_name"]).name for one in document["images"]]
        records = dict(zip(names, document["images"], strict=True))
        categories = {one["name"]: int(one["id"]) for one in document["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{annotations} is no COCO annotation file that can be read ({error}){nearest_path(annotations)}"
        raise DataError(message) from error
    if missing := [name for name in class_names if name not in categories]:
        guess = nearest(missing[0], categories) or ";"
        message = f"{annotations} has no category {', '.join(missing)}{guess} it has {', '.join(categories)}"
        raise DataError(f"{message}: give the annotations that the model was trained for")
    known = [path for path in images if path.name in records]
    if not known:
        raise DataError(f"none of the {len(images)} images is in {annotations}, which names {next(iter(records), '-')}")
    in_file, in_folder = Counter(names), Counter(path.name for path in known)
    if twice := [path.name for path in known if max(in_file[path.name], in_folder[path.name]) > 1]:
        message = f"images are found in {annotations} by their name, and several are called {twice[0]}"
        raise DataError(f"{message}: give one folder, and annotations of its images alone")
    ids = tuple(int(records[path.name]["id"]) for path in known)
    whole = LabelledImages(tuple(known), ids, tuple(categories[name] for name in class_names), document)
    return whole.subset(range(len(known)))


def hold_out_of(images: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Unlabelled images to calibrate on, and one in `HELD_OUT_EVERY` to compare maps on; one image does for both."""
    held = tuple(images[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    return (tuple(one for one in images if one not in set(held)), held) if held else (tuple(images), tuple(images))


def hold_out(images: Sequence[Path], labelled: LabelledImages) -> tuple[tuple[Path, ...], LabelledImages]:
    """Images to calibrate on, and labelled ones that are not among them.

    Where all images are labelled, or all but a few, three in `HELD_OUT_EVERY` of the labelled are calibrated on too.

    Raises:
        DataError: All images are labelled, and too few to hold one out.
    """
    given, taken = ({path.resolve() for path in paths} for paths in (images, labelled.paths))
    free = tuple(path for path in images if path.resolve() not in taken)
    shared = [index for index, path in enumerate(labelled.paths) if path.resolve() in given]
    if free and (len(free) >= min(ENOUGH, len(shared)) or len(shared) < HELD_OUT_EVERY):
        return free, labelled
    used = [index for place, index in enumerate(shared) if place % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    held = labelled.subset([index for index in range(len(labelled.paths)) if index not in set(used)])
    if not held.paths:
        raise DataError(f"{len(images)} labelled images are too few to hold one out: give {HELD_OUT_EVERY} or more")
    return (*free, *(labelled.paths[index] for index in used)), held


def labelled_of_config(config: str, *, split: Literal["val", "test"] = "val") -> LabelledImages:
    """The images of a training config's split.

    Raises:
        ConfigError: The config cannot be read or has no such split.
        DataError: The data set cannot be used.
    """
    from ld_deploy import compat

    compat.install()
    from ld_deploy.config import load_config
    from ld_export.card import dataset_config
    from ld_export.ground_truth import load_truth

    truth = load_truth(dict(dataset_config(load_config(config), split=split)))
    return LabelledImages(truth.paths, truth.image_ids, truth.category_ids, truth.document)


def training_images(config: str) -> list[Path]:
    """The images that a config trains on.

    Raises:
        ConfigError: The config cannot be read or trains on none.
        DataError: The data set cannot be used.
    """
    from ld_deploy import compat

    compat.install()
    from ld_deploy.config import load_config
    from ld_export.card import dataset_config
    from ld_export.ground_truth import load_truth

    settings = dict(dataset_config(load_config(config), split="train"))
    settings["pipeline"] = []  # of the annotations and files alone
    return list(load_truth(settings).paths)
