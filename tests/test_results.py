"""The README's figures are those of the JSON files in docs/results, digit by digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ld_deploy.published import read_rows

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
TITLES = {"teacher": "teacher", "student": "student alone", "ld_student": "distilled student"}


def read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def trained_rows(data: str) -> list[str]:
    """Of `bccd` or `ssdd`."""
    fps = {one["name"]: one["fps"] for one in read(f"{data}_bench.json")["measurements"]}
    rows = []
    for role, title in TITLES.items():
        found = read(f"{data}_{role}.json")
        file = f"{role}.onnx"
        ap, agreement = found["ap"]["PyTorch"], found["agreement"][file]
        rows.append(
            f"| {title} | {ap['ap']:.3f} | {ap['ap50']:.3f} | {ap['ap75']:.3f} | {found['ap_difference'][file]:+.4f} "
            f"| {agreement['matched_share']:.2%} | {fps[file]:.0f} |"
        )
    return rows


def demo_rows() -> list[str]:
    return [
        f"| {TITLES[row['role']]} | {row['ap']:.3f} | {row['ap50']:.3f} | {row['ap75']:.3f} "
        f"| {row['onnx_ap_difference']:+.4f} | {row['matched_share']:.2%} | {row['fps']:.0f} |"
        for row in read("demo.json")["rows"]
    ]


def nms_cases() -> list[Any]:
    """Score > 0.05 with the best 1000, score > 0.02 with the best 3000."""
    cases = read("nms_candidates.json")["cases"]
    assert [(case["top_k"], case["score_threshold"]) for case in cases] == [(1000, 0.05), (3000, 0.02)]
    return list(cases)


def nms_sentences() -> list[str]:
    first, _ = nms_cases()
    ms = {name: latency["median"] for name, latency in first["latency_ms"].items()}
    times = ", ".join(f"{name} {ms[name]:.2f}" for name in ("native", "ONNX function", "torch form"))
    ap = {name: found["ap"] for name, found in first["ap"].items()}
    return [
        f"{times}, the published PyTorch form {ms['published PyTorch form']:.2f}",
        f"AP {ap['native']:.4f}, with plain NMS {ap['plain NMS (torchvision)']:.4f}",
    ]


def test_sentences_about_the_comparison() -> None:
    text = README.replace("\n", " ")
    default = load_default_recipe()
    assert f"{len(read('compare_bccd.json')['rows'])} recipes" in text
    for name, words in (("bccd", "points of test AP on BCCD"), ("demo", "on the demo's data over the student alone")):
        found = {row["name"]: row for row in read(f"compare_{name}.json")["rows"]}
        best = max(found.values(), key=lambda row: row["val_ap"]["mean"])
        assert best["name"] == default
        assert (best["seeds"], found["baseline"]["seeds"]) == (3, 3)
        gain = 100 * (best["test_ap"]["mean"] - found["baseline"]["test_ap"]["mean"])
        assert f"{gain:+.1f} {words}" in text


def test_published_table_shows_what_was_measured() -> None:
    rows = {row.config: row for row in read_rows(ROOT / "configs", RESULTS)}
    for config, name in (("configs/compare/bccd_student.py", "bccd"), ("configs/demo/student.py", "demo")):
        (measured,) = rows[config].measured
        (baseline,) = [row for row in read(f"compare_{name}.json")["rows"] if row["name"] == "baseline"]
        assert sorted(measured.ap) == sorted(baseline["test_ap"]["each"])


def test_sentences_about_the_training_step() -> None:
    found = read("bench_train.json")
    assert found["terms"] == ["loss_cross_bkd_full", "loss_cross_ld_teacher_score"]
    ratio = {one["name"]: one["median"] for one in found["ratios"]}
    assert ratio["ratio_to_bound"] <= 1.10
    assert ratio["ratio_to_bound_bfloat16"] <= 1.10
    assert ratio["ours_to_mmdet_bfloat16"] < 1
    text = README.replace("\n", " ")
    for name, words in (
        ("ratio_to_bound", "times the plain student's step plus the teacher's forward"),
        ("ours_to_mmdet", "times mmdet's own LD on the same batch"),
    ):
        assert f"{ratio[name]:.2f} {words}, with the teacher in bfloat16 {ratio[name + '_bfloat16']:.2f}" in text


def load_default_recipe() -> str:
    """Its name in the comparisons: the terms and the cut of configs/_base_/default_recipe.py are those of this row."""
    text = (ROOT / "configs" / "_base_" / "default_recipe.py").read_text(encoding="utf-8")
    assert "cross=dict(convs='all')" in text
    assert text.count("branch='cross'") == 2
    return "CrossKD, cut at the end"


def test_readme_has_the_rows_of_the_results() -> None:
    for row in (*trained_rows("bccd"), *trained_rows("ssdd"), *demo_rows()):
        assert row in README, row
    for sentence in nms_sentences():
        assert sentence in " ".join(README.split()), sentence


def test_demo_is_what_the_readme_says_of_it() -> None:
    demo = read("demo.json")
    for verdict in demo["verdicts"]:
        assert verdict in README.replace("\n", " ")
    teacher, student, _ = demo["rows"]
    assert teacher["ap"] - student["ap"] >= 0.08
    assert sum(demo["elapsed_s"].values()) <= 12 * 60


def test_sentences_about_bccd() -> None:
    teacher, student, distilled = (read(f"bccd_{role}.json")["ap"]["PyTorch"]["ap"] * 100 for role in TITLES)
    spans = {one["name"]: one["spans"]["end_to_end"]["median_ms"] for one in read("bccd_bench.json")["measurements"]}
    assert f"by {teacher - student:.1f} AP points only. Distillation changed AP by {distilled - student:.1f}" in README
    assert f"PyTorch took {spans['PyTorch']:.0f} ms" in README
    assert f"the same student's file {spans['ld_student.onnx']:.0f} ms" in README


def test_sentences_about_ssdd() -> None:
    """The duplicates of SSDD are not in the training: see the test of its lists."""
    train, val = (len((ROOT / "configs" / "ssdd" / f"{name}.txt").read_text().split()) for name in ("train", "val"))
    assert f"train {train}, val {val}, test {read('ssdd_student.json')['images']} images" in README
    teacher, student, distilled = (read(f"ssdd_{role}.json")["ap"]["PyTorch"] for role in TITLES)
    text = README.replace("\n", " ")
    gain = {key: 100 * (distilled[key] - student[key]) for key in ("ap", "ap50")}
    assert f"Distillation gave {gain['ap']:+.1f} points of AP and {gain['ap50']:+.1f} of AP50" in text
    assert f"the teacher leads by {100 * (teacher['ap'] - student['ap']):.1f}" in text
    spans = {one["name"]: one["spans"]["end_to_end"]["median_ms"] for one in read("ssdd_bench.json")["measurements"]}
    ours = f"{spans['ld_student.onnx']:.0f} ms from file to boxes, PyTorch {spans['PyTorch']:.0f} ms"
    assert f"The distilled student takes {ours}" in text


def test_deployed_files_of_rotated_boxes_agreed_within_the_tolerance() -> None:
    for role in TITLES:
        found = read(f"ssdd_{role}.json")
        assert found["passed"] is True
        assert found["images"] == 232
        assert abs(found["ap_difference"][f"{role}.onnx"]) <= 0.0005
        assert found["agreement"][f"{role}.onnx"]["matched_share"] >= 0.999


def test_deployed_files_agreed_within_the_tolerance() -> None:
    for role in TITLES:
        found = read(f"bccd_{role}.json")
        assert found["passed"] is True
        assert found["images"] == 72
        assert found["sizes_no_multiple_of_divisor"] == 0  # 640 x 480; the demo has other sizes
        assert abs(found["ap_difference"][f"{role}.onnx"]) <= 0.0002
        assert found["agreement"][f"{role}.onnx"]["matched_share"] >= 0.999


def test_all_forms_of_the_nms_gave_the_same_detections() -> None:
    for case in nms_cases():
        assert set(case["same_detections_as_twin"]) == {"native", "torch form", "ONNX function"}
        assert case["ap"]["native"] == case["ap"]["numpy twin"] == case["ap"]["ONNX function"]
        assert f"on {case['images_where_published_differs']} images it decides otherwise" in README


def test_native_nms_is_as_fast_as_it_must_be() -> None:
    for case, least in zip(nms_cases(), (40, 100), strict=True):
        assert case["published_takes_times"]["native"] >= least
        latency = case["latency_ms"]
        assert latency["native"]["median"] <= latency["plain NMS (torchvision)"]["median"]
        assert latency["native"]["p99"] <= latency["plain NMS (torchvision)"]["p99"]


SPEED_TITLES = {
    "student.onnx": "fp32, ONNX Runtime",
    "student.onnx@openvino": "fp32, OpenVINO",
    "student.onnx@openvino:bf16": "bf16, OpenVINO",
    "ld_student_trained.int8.onnx": "int8, ONNX Runtime",
    "ld_student_trained.int8.onnx@openvino": "int8, OpenVINO",
    "PyTorch": "fp32, PyTorch",
    "mmdet inference_detector": "fp32, mmdet's `inference_detector`",
}
R18_NAMES = {
    "student.onnx": "r18.onnx",
    "student.onnx@openvino": "r18.onnx@openvino",
    "student.onnx@openvino:bf16": "r18.onnx@openvino:bf16",
    "ld_student_trained.int8.onnx": "r18.int8.onnx",
    "ld_student_trained.int8.onnx@openvino": "r18.int8.onnx@openvino",
}


def speed_of(name: str) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Medians of the engine and of the whole way, and the share of the ceiling, by runner."""
    found = read(name)
    spans = {one["name"]: one["spans"] for one in found["measurements"]}
    engine = {key: value["engine"]["median_ms"] for key, value in spans.items() if "engine" in value}
    whole = {key: value["end_to_end"]["median_ms"] for key, value in spans.items()}
    return engine, whole, {one["name"]: one["share_of_ceiling"] for one in found["ceiling"]["runners"]}


def speed_rows() -> list[str]:
    student, r18 = speed_of("speed_bccd.json"), speed_of("speed_r18.json")
    rows = []
    for name, title in SPEED_TITLES.items():
        cells = []
        for (engine, whole, share), key in ((student, name), (r18, R18_NAMES.get(name, name))):
            mmdet = whole["mmdet inference_detector"]
            cells += [f"{engine[key]:.1f}" if key in engine else "-", f"{whole[key]:.1f}", f"{mmdet / whole[key]:.1f}"]
            cells.append(f"{share[key]:.0%}" if key in share else "-")
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def test_speed_on_a_cpu_is_what_the_readme_says() -> None:
    for row in speed_rows():
        assert row in README, row


def test_the_cpu_is_as_fast_as_it_must_be() -> None:
    _, whole, _ = speed_of("speed_bccd.json")
    times = {name: whole["mmdet inference_detector"] / value for name, value in whole.items()}
    assert max(times["student.onnx"], times["student.onnx@openvino"]) >= 1.15
    assert times["student.onnx@openvino:bf16"] >= 2
    assert max(times["ld_student_trained.int8.onnx"], times["ld_student_trained.int8.onnx@openvino"]) >= 3.5


QUANTIZED_TITLES = {
    "student.onnx": "fp32",
    "student.int8.onnx": "int8, calibrated",
    "ld_student_trained.int8.onnx": "int8, trained on with LD",
    "student.fp8.onnx": "fp8, calibrated",
    "ld_student_trained.fp8.onnx": "fp8, trained on with LD",
}


def quantized(name: str, split: str) -> Any:
    (found,) = (one for one in read("quantization_bccd.json")["files"] if (one["name"], one["split"]) == (name, split))
    return found


def quantization_rows() -> list[str]:
    rows = []
    for name, title in QUANTIZED_TITLES.items():
        cells = []
        for split in ("val", "test"):
            found = quantized(name, split)
            difference = {key: 100 * value for key, value in found["difference"].items()}
            interval = f"{difference['ap']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"
            cells += [f"{100 * found['ap']:.1f}", interval if name != "student.onnx" else "-"]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return rows


def test_quantization_is_what_the_readme_says() -> None:
    for row in quantization_rows():
        assert row in README, row


def test_quantization_loses_as_little_as_it_must() -> None:
    for split in ("val", "test"):
        for backend in ("", "@openvino"):
            assert quantized(f"student.int8.onnx{backend}", split)["difference"]["ap"] >= -0.005
            assert quantized(f"ld_student_trained.int8.onnx{backend}", split)["difference"]["ap"] >= -0.002
        calibrated, trained = (quantized(f"{name}.fp8.onnx", split) for name in ("student", "ld_student_trained"))
        assert trained["difference"]["ap"] > calibrated["difference"]["ap"]  # LD wins back what fp8 lost
        assert trained["difference"]["ap"] >= -0.002
