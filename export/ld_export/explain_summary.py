"""A report of `ld-deploy verify --explain` without its list of boxes: `python -m ld_export.explain_summary IN OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ld_runtime.files import write_text


def main(source: Path, target: Path) -> None:
    """Writes `source` to `target` with the number of boxes without a partner in the place of the boxes."""
    content = json.loads(source.read_text(encoding="utf-8"))
    for agreement in content["agreement"].values():
        agreement["unmatched"] = len(agreement["unmatched"])
    write_text(target, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
