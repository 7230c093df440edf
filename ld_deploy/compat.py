"""What mmcv-lite, mmdet 3.3 and mmengine 0.10 need on today's torch: operators without a compiler, and checkpoints.

`install()` imports neither torch nor mmcv, so it is free to call before anything else.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pickle
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from typing import TYPE_CHECKING, Any, NoReturn

from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

EXTENSION = "mmcv._ext"

SUPPLIED_OPS = (
    "nms",
    "softnms",
    "deform_conv_forward",
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "modulated_deform_conv_forward",
    "modulated_deform_conv_backward",
    "sigmoid_focal_loss_forward",
    "sigmoid_focal_loss_backward",
    "roi_align_forward",
    "roi_align_backward",
)
ROTATED_OPS = ("box_iou_rotated", "nms_rotated")

# Warnings on every run that a user here can do nothing about: a pattern of the message, and its class.
NEEDLESS_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # mmengine 0.10 imports it for every `mmdet::` config, and setuptools < 82 is pinned for just that.
    ("pkg_resources is deprecated as an API", UserWarning),
    # mmdet 3.3's own GFLHead asks for mmdet's old name.
    ("DeprecationWarning: `num_anchors` is deprecated", UserWarning),
    # mmdet 3.3's points of FCOS.
    (r"torch\.meshgrid: in an upcoming release", UserWarning),
    # mmengine 0.10's AmpOptimWrapper makes its scaler under torch's old name.
    (r"`torch\.cuda\.amp\.GradScaler\(", FutureWarning),
)

HISTORY_STATISTICS = ("min", "max", "current", "mean")


def missing_op(name: str) -> Callable[..., NoReturn]:
    """A stand-in for an operator that is not supplied: calling it raises `BackendMissingError`."""

    def operator(*_args: object, **_kwargs: object) -> NoReturn:
        message = (
            f"mmcv's operator {name!r} is not among those that ld-deploy supplies for mmcv-lite "
            f"({', '.join(SUPPLIED_OPS + ROTATED_OPS)}): install a compiled mmcv 2.1 with a torch that it supports "
            "(pip uninstall mmcv-lite; pip install openmim; mim install mmcv==2.1.0), or use a model without it"
        )
        raise BackendMissingError(message)

    operator.__name__ = name
    return operator


class _ExtensionLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        from ld_deploy import compat_ops, compat_rotated

        def get_missing(name: str) -> Any:
            if name.startswith("__"):  # importlib and inspect ask modules for these
                raise AttributeError(name)
            return missing_op(name)

        supplied: dict[str, Any] = {name: getattr(compat_ops, name) for name in SUPPLIED_OPS}
        supplied |= {name: getattr(compat_rotated, name) for name in ROTATED_OPS}
        # mmcv's collect_env prints these two; nothing was compiled.
        supplied |= {"get_compiler_version": lambda: "n/a", "get_compiling_cuda_version": lambda: "n/a"}
        vars(module).update(supplied, __getattr__=get_missing)


class _ExtensionFinder(MetaPathFinder):
    """Finds `mmcv._ext` where no other finder does: it stands last, so a compiled one always wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != EXTENSION:
            return None
        return importlib.util.spec_from_loader(fullname, _ExtensionLoader(), origin="ld_deploy.compat")


def install() -> None:
    """Makes mmcv-lite importable as if it had operators. Call before mmcv or mmdet is imported; again does nothing.

    A compiled `mmcv._ext` is used when it is installed, and nothing is replaced. One that is installed and cannot be
    loaded stays an ImportError: it is not hidden behind the operators here.
    """
    if not any(isinstance(finder, _ExtensionFinder) for finder in sys.meta_path):
        sys.meta_path.append(_ExtensionFinder())
    for message, category in NEEDLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


def _history_statistic(owner: object, name: str) -> object:
    """Stands for `getattr` in checkpoints, where HistoryBuffer pickles the functions of its statistics.

    Raises:
        pickle.UnpicklingError: Anything but a statistic of HistoryBuffer is asked for.
    """
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in HISTORY_STATISTICS:
        raise pickle.UnpicklingError(f"the checkpoint asks for attribute {name!r} of {owner!r}, which is not allowed")
    return vars(HistoryBuffer)[name]


def allow_checkpoint_classes() -> None:
    """Lets `torch.load(weights_only=True)` read mmengine's own checkpoints, and nothing more. Again does nothing.

    torch >= 2.6 refuses every class that it does not know. mmengine 0.10 writes its message hub into the checkpoint:
    HistoryBuffer, and numpy arrays and scalars of the plain number types. `weights_only` stays on.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    numbers = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    functions: list[Any] = [
        (_history_statistic, "builtins.getattr"),
        # numpy 1 and numpy 2 write different names.
        *((reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
        *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    ]
    classes: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(number)) for number in numbers)]
    torch.serialization.add_safe_globals(functions + classes)
