"""A plugin library in a real registry: TensorRT-RTX's, whose parser aborts where a plugin is registered.

So it is a process of its own. Called as `in_registry.py LIBRARY` it prints what the registry says, as JSON; as
`in_registry.py LIBRARY MODEL` it parses an ONNX file, which ends the process, with the parser's log on stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx as trt

DTYPES = {trt.PluginFieldType.FLOAT32: np.float32, trt.PluginFieldType.INT32: np.int32}


def created(creator: Any, **changed: Any) -> bool:
    """Whether the creator makes a plugin of fields that are 1, but for those that are given."""
    fields = []
    for field in creator.field_names:
        values = np.ones(1, DTYPES[field.type])
        if field.name in changed:
            values = changed[field.name]
        kind = trt.PluginFieldType.FLOAT32 if values.dtype == np.float32 else trt.PluginFieldType.INT32
        fields.append(trt.PluginField(field.name, values, kind))
    collection = trt.PluginFieldCollection(fields)
    plugins = [
        creator.create_plugin("tail", collection, phase)
        for phase in (trt.TensorRTPhase.BUILD, trt.TensorRTPhase.RUNTIME)
    ]
    for plugin in plugins:
        if plugin is not None:
            core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
            assert (core.plugin_name, core.plugin_version) == (creator.name, creator.plugin_version)
            assert core.plugin_namespace == creator.plugin_namespace
    return all(plugin is not None for plugin in plugins)


def facts(registry: Any) -> dict[str, Any]:
    found = {}
    for name in ("ClusterDIoUNMS", "GFLDetect", "RotatedClusterNMS", "RotatedGFLDetect"):
        creator = registry.get_creator(name, "1", "ld_deploy")
        found[name] = {
            "fields": [[field.name, field.type.name] for field in creator.field_names],
            "creates": created(creator),
            "refuses_another_type": not created(creator, max_detections=np.ones(1, np.float32)),
            "refuses_another_length": not created(creator, iou_threshold=np.ones(2, np.float32)),
            "in_other_namespaces": [one for one in ("", "other") if registry.get_creator(name, "1", one) is not None],
        }
    return found


def main(library: str, *models: str) -> None:
    logger = trt.Logger(trt.Logger.VERBOSE if models else trt.Logger.ERROR)
    registry = trt.get_plugin_registry()
    registry.load_library(library)
    if not models:
        sys.stdout.write(json.dumps(facts(registry)))
        return
    network = trt.Builder(logger).create_network(0)
    trt.OnnxParser(network, logger).parse(Path(models[0]).read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
