"""What an engine is built with: precision, input sizes, GPUs, plugin; and the key that all of it hashes to."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ld_runtime.engine_file import ShapeRange
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from ld_runtime.engine_file import EngineBackend
    from ld_runtime.model_card import ModelCard, Precision

KEY_VERSION = 1  # raised when the same settings would build another engine


@dataclass(frozen=True)
class BuildProfile:
    """Smallest, usual and largest input of an engine; the usual one is tuned for.

    Args:
        batch: three batch sizes.
        min_hw: height and width in pixels. Where the model's are fixed, these three are not looked at.
        opt_hw: the usual.
        max_hw: the largest.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    min_hw: tuple[int, int] | None = None
    opt_hw: tuple[int, int] | None = None
    max_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class BuildSettings:
    """How to build.

    Args:
        backend: `tensorrt-rtx` builds on any machine when it is told the GPUs; `tensorrt` for the GPU at hand.
        precision: None: as the file is. fp16 and bf16 convert an fp32 file; int8 and fp8 need a file that has them.
        compute_capabilities: such as 8.6 and 8.9, for tensorrt-rtx; none: every GPU that it knows.
        profile: the range of input sizes.
        plugin: decode and NMS as our plugin, for tensorrt. None: where it was built for this version.
        plugin_library: of that plugin; None: in `ld_runtime/lib`.
        serialize_plugin: puts the plugin's library into the engine, which then needs none beside it.
        tf32: lets float32 products be rounded to TF32, 10 bits in the place of 23: faster, and not at parity.
        timing_cache: what tensorrt measured, for the next build; None: `timing.cache` beside the engine.
        force: builds although an engine with the same key is there.
    """

    backend: EngineBackend = "tensorrt-rtx"
    precision: Precision | None = None
    compute_capabilities: tuple[str, ...] = ()
    profile: BuildProfile = BuildProfile()
    plugin: bool | None = None
    plugin_library: Path | None = None
    serialize_plugin: bool = False
    tf32: bool = False
    timing_cache: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        if self.plugin is False and (self.plugin_library is not None or self.serialize_plugin):
            raise ConfigError("--no-plugin goes with neither --plugin-library nor --serialize-plugin")
        if self.backend == "tensorrt":
            if self.compute_capabilities:
                wanted = " ".join(self.compute_capabilities)
                message = f"tensorrt builds for the GPU at hand alone, --compute-capability {wanted} was asked for"
                raise ConfigError(f"{message}: leave it out, or use --backend tensorrt-rtx")
            return
        if self.plugin or self.plugin_library is not None or self.serialize_plugin:
            raise ConfigError("tensorrt-rtx has no plugins: leave --plugin out, or use --backend tensorrt")
        if self.timing_cache is not None:
            raise ConfigError("tensorrt-rtx measures nothing when it builds: leave --timing-cache out")


def cache_key(
    settings: BuildSettings,
    *,
    content_sha256: str,
    version: str,
    compute_capabilities: tuple[str, ...] | None,
    shapes: ShapeRange,
    plugin_sha256: str,
) -> str:
    """Hash of everything that an engine depends on: the same key, the same engine.

    Args:
        settings: of the build.
        content_sha256: of the ONNX file in the precision that is built, so the converter is in it.
        version: of the library.
        compute_capabilities: of the GPU, or of those that are built for.
        shapes: that the profile came to.
        plugin_sha256: of the plugin's library, or "".
    """
    content: dict[str, Any] = {
        "key_version": KEY_VERSION,
        "content": content_sha256,
        "backend": settings.backend,
        "version": version,
        "compute_capabilities": compute_capabilities,
        "shapes": [shapes.min, shapes.opt, shapes.max],
        "plugin": plugin_sha256,
        "serialize_plugin": settings.serialize_plugin,
        "tf32": settings.tf32,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def profile_shapes(input_hw: tuple[int, int] | None, *, card: ModelCard, profile: BuildProfile) -> ShapeRange:
    """Smallest, usual and largest shape (N, H, W, 3) of the input.

    Args:
        input_hw: height and width of the file's input; None where they are dynamic.
        card: its resize rule gives the sides that the profile leaves open.
        profile: what was asked for.

    Raises:
        ConfigError: Sizes that do not grow, or are no multiples of the model's divisor.
    """
    rule = card.preprocess
    divisor = rule.size_divisor
    sides: list[tuple[int, int]]
    if input_hw is not None:
        sides = [input_hw] * 3
    else:
        long_edge, short_edge = (-(-edge // divisor) * divisor for edge in sorted(rule.scale or (640, 640))[::-1])
        sides = [
            profile.min_hw or (divisor, divisor),
            profile.opt_hw or (short_edge, long_edge),
            profile.max_hw or (long_edge, long_edge),
        ]
    small, usual, large = ((batch, *hw, 3) for batch, hw in zip(profile.batch, sides, strict=True))
    for low, high in ((small, usual), (usual, large)):
        if any(a > b for a, b in zip(low, high, strict=True)):
            found = f"{small}, {usual}, {large}"
            raise ConfigError(f"the sizes must grow from min to opt to max, got {found} as (batch, height, width, 3)")
    if any(side < 1 or side % divisor for hw in sides for side in hw) or profile.batch[0] < 1:
        found = f"{small}, {usual}, {large}"
        raise ConfigError(f"heights and widths must be multiples of {divisor} and batches 1 or more, got {found}")
    return ShapeRange(small, usual, large)
