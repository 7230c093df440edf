"""The statements of `ld_deploy::RotatedClusterNMS` in ONNX text syntax, standard operators of opset 18.

The result is that of `ld_runtime.rotated_nms.rotated_cluster_nms`, whose twin says why the mathematics holds, in
float32: overlaps agree to about 1e-6 for boxes of usual shapes. Candidates are taken in chunks, as in
`ld_export.nms_text`, and so are the kept boxes when votes are counted, so that memory stays small: no array holds all
pairs. Cosine and sine are taken once a box; a pair costs sums, products, minima and maxima.

Written down here because a reader would ask: `most_kept` is taken between the two loops because TensorRT-RTX 1.7 does
not build a loop whose condition reads what another loop put out.
"""

from __future__ import annotations

from ld_export.nms_text import (
    constants,
    keep_statements,
    order_statements,
    output_statements,
    weight_statements,
)

_FIELDS = ("x", "y", "w", "h", "angle", "cos", "sin")


def _fields(name: str, rows: str, columns: str) -> list[str]:
    """Lines that give `r_x` (N, R, 1), `c_x` (N, 1, C) and so on, behind the prefix of `name`."""
    r, c = (", ".join(f"{name}_{side}_{field}" for field in _FIELDS) for side in "rc")
    return [
        f"{r} = Split <axis = 2, num_outputs = 7> ({rows})",
        f"{name}_turned = Transpose <perm = [0, 2, 1]> ({columns})",
        f"{c} = Split <axis = 1, num_outputs = 7> ({name}_turned)",
    ]


def _combine(result: str, operator: str, *factors: str) -> list[str]:
    """`result` = a * b + c * d of four factors, or - with operator Sub."""
    return [
        f"{result}_one = Mul ({', '.join(factors[:2])})",
        f"{result}_two = Mul ({', '.join(factors[2:])})",
        f"{result} = {operator} ({result}_one, {result}_two)",
    ]


def _place(p: str) -> list[str]:
    """Where the column's box is, seen from the row's: `x`, `y`, `cos`, `sin`; and half the sides of both."""
    lines = [
        f"{p}shift_x = Sub ({p}c_x, {p}r_x)",
        f"{p}shift_y = Sub ({p}c_y, {p}r_y)",
        *_combine(f"{p}x", "Add", f"{p}r_cos", f"{p}shift_x", f"{p}r_sin", f"{p}shift_y"),
        *_combine(f"{p}y", "Sub", f"{p}r_cos", f"{p}shift_y", f"{p}r_sin", f"{p}shift_x"),
        *_combine(f"{p}cos", "Add", f"{p}r_cos", f"{p}c_cos", f"{p}r_sin", f"{p}c_sin"),
        *_combine(f"{p}sin", "Sub", f"{p}r_cos", f"{p}c_sin", f"{p}r_sin", f"{p}c_cos"),
    ]
    for side in "rc":
        lines += [f"{p}{side}_half_{length} = Mul ({p}{side}_{length}, half)" for length in "wh"]
        lines += [f"{p}{side}_area = Mul ({p}{side}_w, {p}{side}_h)"]
    lines += [f"{p}r_less_{length} = Neg ({p}r_half_{length})" for length in "wh"]
    return lines


def _overlapping(p: str) -> list[str]:
    """`overlapping`: no side of one has all of the other on its outside."""
    lines = [
        f"{p}abs_cos = Abs ({p}cos)",
        f"{p}abs_sin = Abs ({p}sin)",
        *_combine(f"{p}u", "Add", f"{p}cos", f"{p}x", f"{p}sin", f"{p}y"),
        *_combine(f"{p}v", "Sub", f"{p}cos", f"{p}y", f"{p}sin", f"{p}x"),
    ]
    for own, other, axes in (("r", "c", "xy"), ("c", "r", "uv")):
        for axis, length, first, second in ((axes[0], "w", "cos", "sin"), (axes[1], "h", "sin", "cos")):
            parts = (f"{p}abs_{first}", f"{p}{other}_half_w", f"{p}abs_{second}", f"{p}{other}_half_h")
            lines += [
                *_combine(f"{p}other_{axis}", "Add", *parts),
                f"{p}reach_{axis} = Add ({p}{own}_half_{length}, {p}other_{axis})",
                f"{p}away_{axis} = Abs ({p}{axis})",
                f"{p}meet_{axis} = Less ({p}away_{axis}, {p}reach_{axis})",
            ]
    return [
        *lines,
        f"{p}meet_xy = And ({p}meet_x, {p}meet_y)",
        f"{p}meet_uv = And ({p}meet_u, {p}meet_v)",
        f"{p}overlapping = And ({p}meet_xy, {p}meet_uv)",
    ]


def _edge(p: str, along: str) -> list[str]:
    """An edge's extent `dx`, `dy` and the inverse of each, behind the prefix of `along`; 1 where it is as good as 0."""
    lines = []
    for axis in "xy":
        q = f"{p}{along}_"
        lines += [
            f"{q}d{axis} = Add ({p}{along}{axis}, {p}{along}{axis})",
            f"{q}size_{axis} = Abs ({q}d{axis})",
            f"{q}moves_{axis} = Greater ({q}size_{axis}, tiny)",
            f"{q}safe_{axis} = Where ({q}moves_{axis}, {q}d{axis}, one)",
            f"{q}per_{axis} = Div (one, {q}safe_{axis})",
        ]
    return lines


def _strip(p: str, side: str, along: str, out: str) -> list[str]:
    """`area`: integral of clip(y) dx along one of the two edges of direction `along`, at `side` (Sub, Add) of `out`."""
    q, d = f"{p}{along}{side}_", f"{p}{along}_"
    lines = []
    for axis in "xy":
        lines += [
            f"{q}middle_{axis} = {side} ({p}{axis}, {p}{out}{axis})",
            f"{q}{axis} = Sub ({q}middle_{axis}, {p}{along}{axis})",
        ]
    for end, limit, axis in (
        ("left", "less_w", "x"),
        ("right", "half_w", "x"),
        ("top", "less_h", "y"),
        ("bottom", "half_h", "y"),
    ):
        lines += [
            f"{q}{end}_far = Sub ({p}r_{limit}, {q}{axis})",
            f"{q}{end}_raw = Mul ({q}{end}_far, {d}per_{axis})",
        ]
    lines += [
        f"{q}left = Clip ({q}left_raw, zero, one)",
        f"{q}right = Clip ({q}right_raw, zero, one)",
        f"{q}enters = Min ({q}left, {q}right)",
        f"{q}leaves = Max ({q}left, {q}right)",
    ]
    for end in ("top", "bottom"):
        lines += [
            f"{q}{end}_low = Max ({q}{end}_raw, {q}enters)",
            f"{q}{end} = Min ({q}{end}_low, {q}leaves)",
        ]
    for end in ("enters", "leaves"):
        lines += [
            f"{q}rise_{end} = Mul ({d}dy, {q}{end})",
            f"{q}y_{end}_raw = Add ({q}y, {q}rise_{end})",
            f"{q}y_{end}_low = Max ({q}y_{end}_raw, {p}r_less_h)",
            f"{q}y_{end} = Min ({q}y_{end}_low, {p}r_half_h)",
        ]
    return [
        *lines,
        f"{q}both = Add ({q}top, {q}bottom)",
        f"{q}middle = Mul ({q}both, half)",
        f"{q}before = Sub ({q}middle, {q}enters)",
        f"{q}after = Sub ({q}leaves, {q}middle)",
        *_combine(f"{q}mean", "Add", f"{q}y_enters", f"{q}before", f"{q}y_leaves", f"{q}after"),
        f"{q}area = Mul ({d}dx, {q}mean)",
    ]


def rotated_iou(name: str, rows: str, columns: str) -> str:
    """Text that computes `name` = IoU of all pairs (N, R, C) of boxes `rows` (N, R, 7) and `columns` (N, C, 7).

    A box is x, y, w, h, angle, and the angle's cosine and sine.
    """
    p = f"{name}_"
    lines = [*_fields(name, rows, columns), *_place(p), *_overlapping(p)]
    lines += [
        f"{p}wx = Mul ({p}cos, {p}c_half_w)",
        f"{p}wy = Mul ({p}sin, {p}c_half_w)",
        f"{p}hx_less = Mul ({p}sin, {p}c_half_h)",
        f"{p}hx = Neg ({p}hx_less)",
        f"{p}hy = Mul ({p}cos, {p}c_half_h)",
    ]
    for along, out in (("w", "h"), ("h", "w")):
        lines += [*_edge(p, along), *_strip(p, "Sub", along, out), *_strip(p, "Add", along, out)]
    lines += [
        f"{p}from_w = Sub ({p}wAdd_area, {p}wSub_area)",
        f"{p}from_h = Sub ({p}hSub_area, {p}hAdd_area)",
        f"{p}inner_raw = Add ({p}from_w, {p}from_h)",
        f"{p}inner_low = Max ({p}inner_raw, zero)",
        f"{p}least = Min ({p}r_area, {p}c_area)",
        f"{p}inner = Min ({p}inner_low, {p}least)",
        f"{p}areas = Add ({p}r_area, {p}c_area)",
        f"{p}union = Sub ({p}areas, {p}inner)",
        f"{p}iou = Div ({p}inner, {p}union)",
        f"{name} = Where ({p}overlapping, {p}iou, zero)",
    ]
    return "\n".join(lines)


def _mean(field: str, voter: str) -> list[str]:
    """`voted_FIELD` (N, R, 1): the kept box's, and the weighted mean of how far the voters are from it."""
    return [
        f"m_{field}_moment = Mul (weight, {voter})",
        f"m_{field}_sum = ReduceSum <keepdims = 1> (m_{field}_moment, v2)",
        f"m_{field}_step = Div (m_{field}_sum, weight_sum)",
        f"voted_{field} = Add (v_r_{field}, m_{field}_step)",
    ]


def _vote_statements() -> str:
    """From `weight` and the fields of the pairs `v` to `block_boxes` (N, R, 5).

    Each voter is taken as it is written with the angle nearest to the kept box's: turned by `quarters` of a circle.
    """
    lines = [
        "turn = Sub (v_c_angle, v_r_angle)",
        "quarters_raw = Div (turn, quarter)",
        "quarters_half = Add (quarters_raw, half)",
        "quarters = Floor (quarters_half)",
        "halves_raw = Mul (quarters, half)",
        "halves = Floor (halves_raw)",
        "halves_left = Sub (halves_raw, halves)",
        "swapped = Greater (halves_left, zero)",
        "voter_w = Where (swapped, v_c_h, v_c_w)",
        "voter_h = Where (swapped, v_c_w, v_c_h)",
        "step_w = Sub (voter_w, v_r_w)",
        "step_h = Sub (voter_h, v_r_h)",
        "turned_by = Mul (quarters, quarter)",
        "step_angle = Sub (turn, turned_by)",
    ]
    steps = {"x": "v_shift_x", "y": "v_shift_y", "w": "step_w", "h": "step_h", "angle": "step_angle"}
    for field, voter in steps.items():
        lines += _mean(field, voter)
    lines += [
        # Into [-pi/2, pi/2), whose end is its beginning.
        "half_turns_raw = Div (voted_angle, pi)",
        "half_turns_half = Add (half_turns_raw, half)",
        "half_turns = Floor (half_turns_half)",
        "turned_back = Mul (half_turns, pi)",
        "low_angle = Sub (voted_angle, turned_back)",
        "less_quarter = Neg (quarter)",
        "angle_in = Max (low_angle, less_quarter)",
        "is_low = Less (angle_in, quarter)",
        "normal_angle = Where (is_low, angle_in, less_quarter)",
        "block_boxes = Concat <axis = 2> (voted_x, voted_y, voted_w, voted_h, normal_angle)",
    ]
    return "\n".join(lines)


def rotated_nms_statements() -> str:
    """The function's statements, in ONNX text syntax."""
    return f"""
    {constants()}
    tiny = Constant <value_float = 1.0e-30> ()
    largest = Constant <value_float = 3.4028234e38> ()
    pi = Constant <value_float = 3.14159274> ()
    quarter = Constant <value_float = 1.57079637> ()
    unit_box = Constant <value_floats = [0.0, 0.0, 1.0, 1.0, 0.0]> ()

    sizes5 = Abs (boxes)
    finite5_bool = LessOrEqual (sizes5, largest)
    finite5 = Cast <to = 1> (finite5_bool)
    finite_float = ReduceMin <keepdims = 1> (finite5, v2)
    finite = Greater (finite_float, half)
    _in_x, _in_y, in_w, in_h, _in_angle = Split <axis = 2, num_outputs = 5> (boxes)
    wide = Greater (in_w, zero)
    tall = Greater (in_h, zero)
    area_in = And (wide, tall)
    solid = And (area_in, finite)
    solid1 = Squeeze (solid, v2)
    good = Greater (scores, score_threshold)
    is_in = And (solid1, good)
    clean5 = Where (solid, boxes, unit_box)
    _clean_x, _clean_y, _clean_w, _clean_h, clean_angle = Split <axis = 2, num_outputs = 5> (clean5)
    clean_cos = Cos (clean_angle)
    clean_sin = Sin (clean_angle)
    clean = Concat <axis = 2> (clean5, clean_cos, clean_sin)
    {order_statements()}
    {keep_statements(rotated_iou("d", "b_boxes", "a_boxes"))}
    k_labels = GatherElements <axis = 1> (s_labels, kept)
    k_scores = GatherElements <axis = 1> (s_scores, kept)
    most_kept = ReduceMax <keepdims = 0> (count)
    most_index = Sub (max_detections, i1)
    rounded_up = Add (most_index, chunk)
    blocks = Div (rounded_up, chunk)
    five = Constant <value_ints = [5]> ()
    voted_shape = Concat <axis = 0> (n1, m1, five)
    voted_start = Expand (zero, voted_shape)
    voted = Loop (blocks, true, voted_start) <body = vote_block (
        int64 block, bool vote_in, float[N, M, F] voted_in
    ) => (bool vote_out, float[N, M, F] voted_out) {{
        v_begin = Mul (block, chunk)
        v_slots_raw = Add (v_begin, in_chunk)
        v_slots = Min (v_slots_raw, most_index)
        v_kept = Gather <axis = 1> (kept, v_slots)
        v_kept3 = Unsqueeze (v_kept, v2)
        v_boxes = GatherND <batch_dims = 1> (s_boxes, v_kept3)
        v_labels = GatherElements <axis = 1> (s_labels, v_kept)
        {rotated_iou("v", "v_boxes", "s_boxes")}
        {weight_statements("v_kept3", "v_labels")}
        {_vote_statements()}
        v_row = Sub (slots, v_begin)
        v_after = Less (v_row, chunk)
        v_from = GreaterOrEqual (v_row, i0)
        v_new = And (v_after, v_from)
        v_new_row = Add (v_row, max_detections)
        v_source = Where (v_new, v_new_row, slots)
        v_both = Concat <axis = 1> (voted_in, block_boxes)
        voted_out = Gather <axis = 1> (v_both, v_source)
        v_next = Add (v_begin, chunk)
        vote_out = Less (v_next, most_kept)
    }}>
    {output_statements()}
"""
