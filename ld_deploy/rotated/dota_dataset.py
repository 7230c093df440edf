"""Data sets of rotated boxes for mmdet's pipelines: `LoadAnnotations(with_bbox=True, box_type='rbox')` reads them."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from PIL import Image

from ld_deploy.rotated.annotations import CocoImage, RotatedObject, read_coco, read_dota, read_hrsc
from ld_deploy.rotated.boxes import from_polygons
from ld_runtime.errors import DataError
from ld_runtime.image_header import read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
SHOWN_PROBLEMS = 10


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shown_files(folder: Path) -> Iterator[Path]:
    """Without those that begin with a dot: a Mac's notes beside its files, what a killed process was writing."""
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, by name, without hidden ones.

    Raises:
        DataError: There is no such folder, or two of its images differ in the suffix only.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: look at data_root, ann_file and data_prefix")
    found = sorted(path for path in shown_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    stems = [path.stem for path in found]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None) if len(set(stems)) < len(stems) else None
    if twice is not None:
        raise DataError(f"{folder} has two images named {twice}")
    return found


class RotatedDataset(BaseDetDataset):
    """What the formats have in common.

    A record's `instances` have `bbox` (cx cy w h angle, the smallest rectangle around the polygon, angle in
    [-pi/2, pi/2)), `bbox_label` and `ignore_flag`. A box with a side under one pixel is left out and counted in
    `degenerate_boxes`; an image left out as a copy in `copies`.

    Args:
        data_prefix: `img`, the folder of images.
        filter_cfg: `filter_empty_gt=True` leaves out images without a box that counts; by default they are kept.
        difficult: what a difficult object is: 'ignore' (neither trained on nor counted) or 'keep'.
        leave_out: folders, under `data_root`, of images that must not be here: one with the same bytes is left out.
        unique: of images with the same bytes keep the first only.
        kwargs: of mmdet's `BaseDetDataset`; `metainfo=dict(classes=...)` names the classes.

    Raises:
        DataError: Broken annotations (files and lines are named), a class that `metainfo.classes` does not name, or
            files that are not there.
    """

    degenerate_boxes = 0
    copies = 0

    def __init__(
        self,
        *args: Any,
        difficult: str = "ignore",
        leave_out: Sequence[str] = (),
        unique: bool = False,
        **kwargs: Any,
    ) -> None:
        if difficult not in ("ignore", "keep"):
            raise DataError(f"difficult must be 'ignore' or 'keep', got {difficult!r}")
        self.difficult = difficult
        self.leave_out = tuple(leave_out)
        self.unique = unique
        super().__init__(*args, **kwargs)

    def images(self) -> Iterable[tuple[Path, CocoImage]]:
        """Each image's file and what is known of it."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict[str, Any]]:
        """Mmdet's records, see the class."""
        self.degenerate_boxes = self.copies = 0
        seen = {content_hash(path) for folder in self.leave_out for path in images_in(Path(self.data_root) / folder)}
        hashing = bool(self.leave_out) or self.unique
        records = []
        for path, image in self.images():
            if hashing:
                if not path.is_file():
                    raise DataError(f"there is no image {path}: look at data_prefix")
                digest = content_hash(path)
                if digest in seen:
                    self.copies += 1
                    continue
                if self.unique:
                    seen.add(digest)
            height, width = image.image_hw
            records.append(
                {
                    "img_path": str(path),
                    "img_id": image.image_id,
                    "height": height,
                    "width": width,
                    "instances": self._instances(image),
                }
            )
        if not records:
            raise DataError(f"{type(self).__name__} has no image: look at data_root, ann_file and data_prefix")
        return records

    def _instances(self, image: CocoImage) -> list[dict[str, Any]]:
        classes = list(self.metainfo["classes"])
        boxes, usable = from_polygons([each.polygon for each in image.objects])
        self.degenerate_boxes += int((~usable).sum())
        kept = [each for each, use in zip(image.objects, usable, strict=True) if use]
        for each in image.objects:
            if each.name not in classes:
                message = (
                    f"{image.file_name} holds the class {each.name!r}, metainfo.classes has {', '.join(classes)}: "
                    "add it there"
                )
                raise DataError(message)
        return [
            {
                "bbox": [float(number) for number in box],
                "bbox_label": classes.index(each.name),
                "ignore_flag": int(each.difficult and self.difficult == "ignore"),
            }
            for box, each in zip(boxes, kept, strict=True)
        ]

    def filter_data(self) -> list[dict[str, Any]]:
        """The records that `filter_cfg` leaves."""
        if self.test_mode or not (self.filter_cfg or {}).get("filter_empty_gt", False):
            return list(self.data_list)
        return [each for each in self.data_list if any(not one["ignore_flag"] for one in each["instances"])]


class _FolderDataset(RotatedDataset):
    """One annotation file an image: `ann_file` is their folder.

    An image without an annotation file, and a file without an image, is an error. With `ann_file=''` no image has
    objects: for prediction.

    Args:
        split: file under `data_root` with the names of the images to take, without suffix, one a line.
        kwargs: see `RotatedDataset`.
    """

    annotation_suffix: str

    def __init__(self, *args: Any, split: str | None = None, **kwargs: Any) -> None:
        self.split = split
        super().__init__(*args, **kwargs)

    def read(self, path: Path) -> list[RotatedObject]:
        raise NotImplementedError

    def images(self) -> Iterable[tuple[Path, CocoImage]]:
        files = {path.stem: path for path in images_in(Path(self.data_prefix["img"]))}
        if self.split is not None:
            files = self._chosen(files)
        objects = self._objects(files) if self.ann_file else {}
        for index, (stem, path) in enumerate(files.items()):
            yield path, CocoImage(index, path.name, image_hw(path), objects.get(stem, []))

    def _chosen(self, files: dict[str, Path]) -> dict[str, Path]:
        lines = (Path(self.data_root) / str(self.split)).read_text(encoding="utf-8").split()
        missing = [stem for stem in lines if stem not in files]
        if missing:
            raise DataError(f"{self.split} names {len(missing)} images that are not there, the first is {missing[0]}")
        return {stem: files[stem] for stem in lines}

    def _objects(self, files: dict[str, Path]) -> dict[str, list[RotatedObject]]:
        folder = Path(self.ann_file)
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}: ann_file is the folder of the annotation files")
        annotated = {path.stem for path in shown_files(folder) if path.suffix == self.annotation_suffix}
        if lacking := sorted(files.keys() - annotated):
            raise DataError(f"{len(lacking)} images have no file in {folder}, the first is {lacking[0]}")
        if self.split is None and (extra := sorted(annotated - files.keys())):
            raise DataError(f"{len(extra)} files of {folder} have no image, the first is {extra[0]}")
        return collect(lambda stem: self.read(folder / f"{stem}{self.annotation_suffix}"), list(files))


def collect(read: Callable[[str], list[RotatedObject]], stems: Sequence[str]) -> dict[str, list[RotatedObject]]:
    """The objects of each stem; what is wrong with all files is said at once.

    Raises:
        DataError: Some file is broken.
    """
    found, problems = {}, []
    for stem in stems:
        try:
            found[stem] = read(stem)
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = f"\nand {len(problems) - SHOWN_PROBLEMS} more files" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataError("\n".join(problems[:SHOWN_PROBLEMS]) + more)
    return found


def image_hw(path: Path) -> tuple[int, int]:
    """Height and width, from the file's header.

    Raises:
        DataError: It is no image.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = read_header(data)
        if header is not None:  # Pillow refuses large images, though it reads their headers alone
            return header.image_hw
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


@DATASETS.register_module()
class DOTAFormatDataset(_FolderDataset):
    """Any data set in DOTA's text format, SSDD among them; see `RotatedDataset` and `read_dota`."""

    annotation_suffix = ".txt"

    def read(self, path: Path) -> list[RotatedObject]:  # noqa: D102 - `read_dota` says it
        return read_dota(path)


@DATASETS.register_module()
class HRSCDataset(_FolderDataset):
    """HRSC2016's XML format; see `RotatedDataset`.

    Args:
        classwise: the class is the object's `Class_ID`; otherwise all are the one class of `metainfo`.
        kwargs: see `RotatedDataset`.
    """

    annotation_suffix = ".xml"

    def __init__(self, *args: Any, classwise: bool = False, **kwargs: Any) -> None:
        self.classwise = classwise
        super().__init__(*args, **kwargs)

    def read(self, path: Path) -> list[RotatedObject]:  # noqa: D102 - `read_hrsc` says it
        return read_hrsc(path, name=None if self.classwise else str(self.metainfo["classes"][0]))


@DATASETS.register_module()
class RotatedCocoDataset(RotatedDataset):
    """A COCO file whose objects have polygons; see `RotatedDataset` and `read_coco`.

    Args:
        image_suffix: in place of the suffix of the file names in the COCO file, such as '.png'.
        only_existing: take the images that are in the folder, where the file lists those of other splits too; otherwise
            one that is not there is an error.
        kwargs: see `RotatedDataset`.
    """

    def __init__(self, *args: Any, image_suffix: str | None = None, only_existing: bool = False, **kwargs: Any) -> None:
        self.image_suffix = image_suffix
        self.only_existing = only_existing
        super().__init__(*args, **kwargs)

    def images(self) -> Iterable[tuple[Path, CocoImage]]:
        """Each image's file and what is known of it."""
        folder = Path(self.data_prefix["img"])
        for image in read_coco(Path(self.ann_file)):
            path = folder / image.file_name
            path = path if self.image_suffix is None else path.with_suffix(self.image_suffix)
            if not path.is_file():
                if self.only_existing:
                    continue
                raise DataError(f"there is no image {path}, which {self.ann_file} lists: look at data_prefix")
            yield path, image
