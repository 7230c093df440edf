from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS

from ld_deploy.data_check import is_degenerate
from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@DATASETS.register_module()
class VOCFormatDataset(XMLDataset):
    """Any data set in VOC's XML format, with the classes of `metainfo`.

    Unlike mmdet's `XMLDataset`, a class that `metainfo` does not name is an error rather than left out, and boxes of
    less than a pixel a side are marked as ignored in every split.

    Raises:
        DataError: An annotation holds a class that `metainfo.classes` does not name.
    """

    def _parse_instance_info(self, raw_ann_info: Element, minus_one: bool = True) -> list[dict[str, Any]]:
        for item in raw_ann_info.findall("object"):
            name = item.findtext("name")
            if name not in self._metainfo["classes"]:
                file = raw_ann_info.findtext("filename")
                known = ", ".join(self._metainfo["classes"])
                raise DataError(f"{file} holds the class {name!r}, metainfo.classes has {known}: add it there")
        instances: list[dict[str, Any]] = super()._parse_instance_info(raw_ann_info, minus_one=minus_one)
        for instance in instances:
            instance["ignore_flag"] |= is_degenerate(instance["bbox"])
        return instances
