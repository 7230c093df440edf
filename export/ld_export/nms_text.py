"""The statements of `ld_deploy::ClusterDIoUNMS` in ONNX text syntax, standard operators of opset 18.

Runtimes that know no such operator expand the function. The result is that of `ld_runtime.cluster_diou_nms`; how it
gets there differs, for speed: candidates are taken in chunks, best first, and each chunk is compared with the boxes
kept so far and with itself only. A box can be removed by better boxes alone, so the first `max_detections` kept are
final and the loop ends there. Inside a chunk a second loop runs to the fixed point: any fixed number of passes is wrong
for some input.

Written down here because a reader would ask:
- No MatMul: TensorRT-RTX has no FP32 GEMM for Turing, and TF32 moves voted boxes by up to a pixel.
- The order is made certain by a second TopK on (score group, index): not every runtime breaks ties by index.
- Rows that are out become a unit box with score 0, so that NaN reaches no sum.
"""

from __future__ import annotations

# Candidates that are settled together: on two CPU cores and real candidates 48 to 64 were the fastest of 32 to 256.
CHUNK = 64


def _distance_iou(name: str, rows: str, columns: str) -> str:
    """Text that computes `name` = D of all pairs (N, R, C) from boxes `rows` (N, R, 4) and `columns` (N, C, 4)."""
    lines = [
        "{p}r_x1, {p}r_y1, {p}r_x2, {p}r_y2 = Split <axis = 2, num_outputs = 4> (ROWS)",
        "{p}turned = Transpose <perm = [0, 2, 1]> (COLUMNS)",
        "{p}c_x1, {p}c_y1, {p}c_x2, {p}c_y2 = Split <axis = 1, num_outputs = 4> ({p}turned)",
    ]
    for side in "rc":
        lines += [
            f"{{p}}{side}_w = Sub ({{p}}{side}_x2, {{p}}{side}_x1)",
            f"{{p}}{side}_h = Sub ({{p}}{side}_y2, {{p}}{side}_y1)",
            f"{{p}}{side}_area = Mul ({{p}}{side}_w, {{p}}{side}_h)",
        ]
    for axis in "xy":
        one, two, p = f"_{axis}1", f"_{axis}2", "{p}"
        lines += [
            f"{p}low{axis} = Max ({p}r{one}, {p}c{one})",
            f"{p}high{axis} = Min ({p}r{two}, {p}c{two})",
            f"{p}both{axis} = Sub ({p}high{axis}, {p}low{axis})",
            f"{p}inner{axis} = Relu ({p}both{axis})",
            f"{p}left{axis} = Min ({p}r{one}, {p}c{one})",
            f"{p}right{axis} = Max ({p}r{two}, {p}c{two})",
            f"{p}outer{axis} = Sub ({p}right{axis}, {p}left{axis})",
            f"{p}outer2{axis} = Mul ({p}outer{axis}, {p}outer{axis})",
            f"{p}r_twice{axis} = Add ({p}r{one}, {p}r{two})",
            f"{p}c_twice{axis} = Add ({p}c{one}, {p}c{two})",
            # Halving is exact, so half the shift squared is the quarter of the shift squared.
            f"{p}r_mid{axis} = Mul ({p}r_twice{axis}, half)",
            f"{p}c_mid{axis} = Mul ({p}c_twice{axis}, half)",
            f"{p}shift{axis} = Sub ({p}r_mid{axis}, {p}c_mid{axis})",
            f"{p}shift2{axis} = Mul ({p}shift{axis}, {p}shift{axis})",
        ]
    lines += [
        "{p}inner = Mul ({p}innerx, {p}innery)",
        "{p}areas = Add ({p}r_area, {p}c_area)",
        "{p}union = Sub ({p}areas, {p}inner)",
        "{p}iou = Div ({p}inner, {p}union)",
        "{p}diagonal0 = Add ({p}outer2x, {p}outer2y)",
        "{p}diagonal = Add ({p}diagonal0, tiny)",
        "{p}rho2 = Add ({p}shift2x, {p}shift2y)",
        "{p}distance = Div ({p}rho2, {p}diagonal)",
        "{p}penalty = Pow ({p}distance, distance_exponent)",
        f"{name} = Sub ({{p}}iou, {{p}}penalty)",
    ]
    text = "\n".join(lines).format(p=f"{name}_")
    return text.replace("ROWS", rows).replace("COLUMNS", columns)


def constants() -> str:
    """What the statements of every NMS name, and the attributes that all of them have."""
    return f"""
    iou_threshold = Constant <value_float: float = @iou_threshold> ()
    vote_threshold = Constant <value_float: float = @vote_threshold> ()
    vote_sigma = Constant <value_float: float = @vote_sigma> ()
    score_threshold = Constant <value_float: float = @score_threshold> ()
    max_detections = Constant <value_int: int = @max_detections> ()
    true = Constant <value = bool {{1}}> ()
    half = Constant <value_float = 0.5> ()
    one = Constant <value_float = 1.0> ()
    zero = Constant <value_float = 0.0> ()
    i0 = Constant <value_int = 0> ()
    i1 = Constant <value_int = 1> ()
    minus_one = Constant <value_int = -1> ()
    v0 = Constant <value_ints = [0]> ()
    v1 = Constant <value_ints = [1]> ()
    v2 = Constant <value_ints = [2]> ()
    v3 = Constant <value_ints = [3]> ()
    chunk = Constant <value_int = {CHUNK}> ()
    chunk1 = Constant <value_ints = [{CHUNK}]> ()
"""


def order_statements() -> str:
    """From the candidates to the same in order, `s_boxes`, `s_scores`, `s_labels` and `s_in`, and `how_many` are in.

    Needs `is_in` (N, K), and `clean` (N, K, ...): what is known of each box, without NaN.
    """
    return """
    k1 = Shape <start = 1, end = 2> (scores)
    k = Squeeze (k1, v0)
    masked = Where (is_in, scores, score_threshold)
    ranked, ranked_index = TopK <axis = 1, largest = 1, sorted = 1> (masked, k1)
    k_less1 = Sub (k1, v1)
    ranked_to = Slice (ranked, v0, k_less1, v1)
    ranked_from = Slice (ranked, v1, k1, v1)
    ranked_first = Slice (ranked_index, v0, v1, v1)
    steps = Less (ranked_from, ranked_to)
    steps_int = Cast <to = 7> (steps)
    step0 = Sub (ranked_first, ranked_first)
    all_steps = Concat <axis = 1> (step0, steps_int)
    group = CumSum (all_steps, i1)
    group_start = Mul (group, k1)
    certain_key = Add (group_start, ranked_index)
    _key, certain = TopK <axis = 1, largest = 0, sorted = 1> (certain_key, k1)
    order = GatherElements <axis = 1> (ranked_index, certain)
    order3 = Unsqueeze (order, v2)
    s_boxes = GatherND <batch_dims = 1> (clean, order3)
    s_labels = GatherElements <axis = 1> (labels, order)
    s_in_index = Cast <to = 1> (is_in)
    s_in = GatherElements <axis = 1> (s_in_index, order)
    weightless = Where (is_in, scores, zero)
    s_scores = GatherElements <axis = 1> (weightless, order)
    how_many_float = ReduceSum <keepdims = 1> (s_in, v1)
    how_many = Cast <to = 7> (how_many_float)
"""


def keep_statements(pairs: str) -> str:
    """From the candidates in order to the places of the kept ones: `kept` (N, max_detections) and `count` (N, 1).

    Args:
        pairs: text that computes `d` (N, R, C), which is compared with `iou_threshold`, from rows `b_boxes` (N, R, ...)
            and columns `a_boxes` (N, C, ...) of `s_boxes`.
    """
    return f"""
    in_chunk = Range (i0, chunk, i1)
    slots = Range (i0, max_detections, i1)
    m_less = Neg (max_detections)
    others = Range (m_less, chunk, i1)
    in_chunk_column = Unsqueeze (in_chunk, v1)
    better = Greater (in_chunk_column, others)
    m1 = Reshape (max_detections, v1)
    width = Add (max_detections, chunk)
    first_come = Range (width, i0, minus_one)
    first_come_float = Cast <to = 1> (first_come)
    last_row = Sub (k, i1)
    rounded = Add (last_row, chunk)
    chunks = Div (rounded, chunk)
    chunk_passes = Add (chunk, i1)
    n1 = Shape <start = 0, end = 1> (scores)
    kept_shape = Concat <axis = 0> (n1, m1)
    kept_start = Expand (i0, kept_shape)
    count_shape = Concat <axis = 0> (n1, v1)
    count_start = Expand (i0, count_shape)

    kept, count = Loop (chunks, true, kept_start, count_start) <body = take_chunk (
        int64 step, bool go_in, int64[N, M] kept_in, int64[N, o] count_in
    ) => (bool go_out, int64[N, M] kept_out, int64[N, o] count_out) {{
        begin = Mul (step, chunk)
        at = Add (begin, in_chunk)
        exists = Less (at, k)
        row = Min (at, last_row)
        b_boxes = Gather <axis = 1> (s_boxes, row)
        b_labels = Gather <axis = 1> (s_labels, row)
        b_in_raw = Gather <axis = 1> (s_in, row)
        exists_float = Cast <to = 1> (exists)
        b_in = Mul (b_in_raw, exists_float)
        kept_in3 = Unsqueeze (kept_in, v2)
        a_kept_boxes = GatherND <batch_dims = 1> (s_boxes, kept_in3)
        a_kept_labels = GatherElements <axis = 1> (s_labels, kept_in)
        a_boxes = Concat <axis = 1> (a_kept_boxes, b_boxes)
        a_labels = Concat <axis = 1> (a_kept_labels, b_labels)
        {pairs}
        close = Greater (d, iou_threshold)
        b_labels_column = Unsqueeze (b_labels, v2)
        a_labels_row = Unsqueeze (a_labels, v1)
        same = Equal (b_labels_column, a_labels_row)
        close_same = And (close, same)
        removes_bool = And (close_same, better)
        removes = Cast <to = 1> (removes_bool)
        filled_bool = Less (slots, count_in)
        filled = Cast <to = 1> (filled_bool)
        sizes = Concat <axis = 0> (m1, chunk1)
        removes_kept, removes_chunk = Split <axis = 2> (removes, sizes)
        filled_row = Unsqueeze (filled, v1)
        by_kept = Mul (removes_kept, filled_row)
        gone = ReduceMax <keepdims = 0> (by_kept, v2)
        stays = Less (gone, half)
        stays_float = Cast <to = 1> (stays)
        candidate = Mul (stays_float, b_in)
        keep = Loop (chunk_passes, true, candidate) <body = settle (
            int64 turn, bool more_in, float[N, B] keep_in
        ) => (bool more, float[N, B] keep_out) {{
            keep_row = Unsqueeze (keep_in, v1)
            hits = Mul (removes_chunk, keep_row)
            hit = ReduceMax <keepdims = 0> (hits, v2)
            free = Less (hit, half)
            free_float = Cast <to = 1> (free)
            keep_out = Mul (free_float, candidate)
            change = Sub (keep_out, keep_in)
            changed = Abs (change)
            most = ReduceMax <keepdims = 0> (changed)
            more = Greater (most, half)
        }}>
        flags = Concat <axis = 1> (filled, keep)
        take_key = Mul (flags, first_come_float)
        _taken, taken = TopK <axis = 1, largest = 1, sorted = 1> (take_key, m1)
        row_2d = Unsqueeze (row, v0)
        row_shape = Concat <axis = 0> (n1, chunk1)
        rows_2d = Expand (row_2d, row_shape)
        index_2d = Concat <axis = 1> (kept_in, rows_2d)
        kept_out = GatherElements <axis = 1> (index_2d, taken)
        added_float = ReduceSum <keepdims = 1> (keep, v1)
        added = Cast <to = 7> (added_float)
        sum = Add (count_in, added)
        count_out = Min (sum, max_detections)
        next = Add (begin, chunk)
        room = Less (count_out, max_detections)
        left = Less (next, how_many)
        open = And (room, left)
        open_float = Cast <to = 1> (open)
        any_open = ReduceMax <keepdims = 0> (open_float)
        go_out = Greater (any_open, half)
    }}>
"""


def weight_statements(places: str, labels: str) -> str:
    """From `v` (N, R, K), which is compared with `vote_threshold`, to `weight` and `weight_sum` (N, R, 1).

    A box votes for itself as if `v` were 1 there, which rounding may have made something else.

    Args:
        places: int64 (N, R, 1), where the R kept boxes stand among the K candidates.
        labels: int64 (N, R), theirs.
    """
    return f"""
    near = Greater (v, vote_threshold)
    k_labels_column = Unsqueeze ({labels}, v2)
    s_labels_row = Unsqueeze (s_labels, v1)
    v_same = Equal (k_labels_column, s_labels_row)
    every = Range (i0, k, i1)
    worse = Greater (every, {places})
    itself = Equal (every, {places})
    near_same = And (near, v_same)
    near_worse = And (near_same, worse)
    votes = Or (near_worse, itself)
    away_raw = Sub (one, v)
    away = Where (itself, zero, away_raw)
    away2 = Mul (away, away)
    spread = Div (away2, vote_sigma)
    fade = Neg (spread)
    gauss = Exp (fade)
    s_scores_row = Unsqueeze (s_scores, v1)
    full_weight = Mul (gauss, s_scores_row)
    weight = Where (votes, full_weight, zero)
    weight_sum = ReduceSum <keepdims = 1> (weight, v2)
"""


def output_statements() -> str:
    """From `voted` (N, max_detections, 4 or 5) to the four outputs, padded."""
    return """
    found = Less (slots, count)
    found3 = Unsqueeze (found, v2)
    det_boxes = Where (found3, voted, zero)
    det_scores = Where (found, k_scores, zero)
    det_labels = Where (found, k_labels, minus_one)
    num_detections = Cast <to = 6> (count)
"""


def nms_statements() -> str:
    """The function's statements, in ONNX text syntax."""
    return f"""
    {constants()}
    distance_exponent = Constant <value_float: float = @distance_exponent> ()
    tiny = Constant <value_float = 0.0000001> ()
    unit_box = Constant <value_floats = [0.0, 0.0, 1.0, 1.0]> ()

    in_x1, in_y1, in_x2, in_y2 = Split <axis = 2, num_outputs = 4> (boxes)
    wide = Greater (in_x2, in_x1)
    tall = Greater (in_y2, in_y1)
    solid = And (wide, tall)
    solid1 = Squeeze (solid, v2)
    good = Greater (scores, score_threshold)
    is_in = And (solid1, good)
    clean = Where (solid, boxes, unit_box)
    {order_statements()}
    {keep_statements(_distance_iou("d", "b_boxes", "a_boxes"))}
    kept3 = Unsqueeze (kept, v2)
    k_boxes = GatherND <batch_dims = 1> (s_boxes, kept3)
    k_labels = GatherElements <axis = 1> (s_labels, kept)
    k_scores = GatherElements <axis = 1> (s_scores, kept)
    {_distance_iou("v", "k_boxes", "s_boxes")}
    {weight_statements("kept3", "k_labels")}
    weight4 = Unsqueeze (weight, v1)
    sides = Transpose <perm = [0, 2, 1]> (s_boxes)
    sides4 = Unsqueeze (sides, v2)
    moments = Mul (weight4, sides4)
    moment = ReduceSum <keepdims = 0> (moments, v3)
    moment_t = Transpose <perm = [0, 2, 1]> (moment)
    voted = Div (moment_t, weight_sum)
    {output_statements()}
"""
