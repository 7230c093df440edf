"""The teacher's outputs on disk: a schedule that shows the same pixels again does not run the teacher again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ld_runtime.errors import CheckpointError
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Maps = list[list[Tensor]]

DIGEST_BYTES = 16


def pixel_key(image: Tensor) -> str:
    """Hash of an image as the network gets it, float32 (3, H, W): of its pixels, its augmentation and its padding."""
    digest = hashlib.blake2b(str(tuple(image.shape)).encode(), digest_size=DIGEST_BYTES)
    digest.update(image.detach().contiguous().cpu().numpy().data)
    return digest.hexdigest()


class TeacherCache:
    """Maps of a teacher by image: one file each, float16, in a folder named by the teacher's weights.

    An image is found again when its pixels are the same: augmentations of few values (flips, a fixed size) repeat, a
    random crop or resize does not, and then the cache only costs time and disk. The hash is taken on the host: on a GPU
    each step waits for the copy.

    Args:
        folder: of all caches; made where it is not there. Delete it to empty the cache.
        teacher: names the weights and the precision.
        kind: names what is kept of each image.
    """

    def __init__(self, folder: str | Path, *, teacher: str, kind: str) -> None:
        self.folder = Path(folder) / f"{teacher}_{kind}"
        self.hits = self.misses = 0

    def __call__(self, images: Tensor, compute: Callable[[Tensor], Maps]) -> Maps:
        """What `compute` gives for the batch, of which only the unknown images are computed.

        Args:
            images: float32 (N, 3, H, W).
            compute: gives lists of maps (n, C, H, W) for n images, each image by itself.

        Raises:
            CheckpointError: A file of the cache is damaged.
            LdDeployError: The disk is full.
        """
        paths = [self.folder / f"{pixel_key(image)}.pt" for image in images]
        found = {place: self._read(path, images) for place, path in enumerate(paths) if path.is_file()}
        missing = [place for place in range(len(paths)) if place not in found]
        self.hits += len(found)
        self.misses += len(missing)
        if missing:
            computed = compute(images[missing])
            for row, place in enumerate(missing):
                found[place] = [[maps[row].to(torch.float16) for maps in kind] for kind in computed]
                if not all(maps.isfinite().all() for kind in found[place] for maps in kind):
                    raise CheckpointError("the teacher's outputs do not fit into float16: train without its cache")
                with written_whole(paths[place]) as temporary:
                    torch.save([[maps.cpu() for maps in kind] for kind in found[place]], temporary)
        kinds = [found[place] for place in range(len(paths))]
        return [
            [torch.stack(level).float() for level in zip(*of_images, strict=True)]
            for of_images in zip(*kinds, strict=True)
        ]

    @staticmethod
    def _read(path: Path, images: Tensor) -> Sequence[Sequence[Tensor]]:
        try:
            stored: list[list[Tensor]] = torch.load(path, weights_only=True, map_location=images.device)
        except (RuntimeError, EOFError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} of the teacher's cache is damaged ({error}): delete it") from error
        return stored
