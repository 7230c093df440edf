"""The README's figures are those of the JSON files in docs/results, digit by digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
BCCD = {"teacher": "teacher", "student": "student alone", "ld_student": "distilled student"}


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def bccd_rows() -> list[str]:
    fps = {one["name"]: one["fps"] for one in read("bccd_bench.json")["measurements"]}
    rows = []
    for role, title in BCCD.items():
        found = read(f"bccd_{role}.json")
        file = f"{role}.onnx"
        ap, agreement = found["ap"]["PyTorch"], found["agreement"][file]
        rows.append(
            f"| {title} | {ap['ap']:.3f} | {ap['ap50']:.3f} | {ap['ap75']:.3f} | {found['ap_difference'][file]:+.4f} "
            f"| {agreement['matched_share']:.2%} | {fps[file]:.0f} |"
        )
    return rows


def nms_rows() -> list[str]:
    (case,) = [case for case in read("nms_candidates.json")["cases"] if case["top_k"] == 1000]
    return [
        f"| {name} | {ap['ap']:.4f} | {ap['ap50']:.4f} | {ap['ap75']:.4f} | {case['latency_ms'][name]['median']:.1f} |"
        for name, ap in case["ap"].items()
    ]


def test_readme_has_the_rows_of_the_results() -> None:
    for row in (*bccd_rows(), *nms_rows()):
        assert row in README, row


def test_deployed_files_agreed_within_the_tolerance() -> None:
    for role in BCCD:
        found = read(f"bccd_{role}.json")
        assert found["passed"] is True
        assert found["images"] == 72
        assert found["sizes_no_multiple_of_divisor"] == 0  # 640 x 480; the demo has other sizes
        assert abs(found["ap_difference"][f"{role}.onnx"]) <= 0.0002
        assert found["agreement"][f"{role}.onnx"]["matched_share"] >= 0.999


def test_all_forms_of_the_nms_gave_the_same_detections() -> None:
    for case in read("nms_candidates.json")["cases"]:
        assert set(case["same_detections_as_twin"]) == {"torch form", "ONNX function"}
        assert case["ap"]["ONNX function"] == case["ap"]["numpy twin"]
