"""The statements of `ld_deploy::GFLCandidates` in ONNX text syntax, standard operators of opset 18.

From the maps of a GFL head to the candidates for the NMS: the best (location, class) pairs, found without a sort of
all pairs, for the best k pairs lie in the k locations with the best class. Where a level may give as many pairs as all
together, which is the usual rule, the levels are looked at as one. The result is that of `ld_runtime.gfl_candidates`.

Written down here because a reader would ask:
- Locations that are not there are put behind those that are, so that there are k of them at every size. Their score
  is 0, below every threshold.
- The locations are put back into their own order before pairs are compared: among equal logits the lower index then
  wins, where the runtime's TopK breaks ties so.
- No MatMul for the expectation: TensorRT-RTX has no FP32 GEMM for Turing, and TF32 moves boxes.
"""

from __future__ import annotations

# Logit of a location that is not there: its sigmoid is 0.
ABSENT_LOGIT = -1e4


def _best_pairs(p: str, *, class_logits: str, locations: str, top_k: str) -> str:
    """Text that finds the best pairs of maps (N, C, P): `{p}logit`, `{p}label`, `{p}location` (N, top_k)."""
    return f"""
    {p}taken_shape = Concat <axis = 0> (n1, classes1, {top_k})
    {p}padding = Expand (absent, {p}taken_shape)
    {p}padded = Concat <axis = 2> ({class_logits}, {p}padding)
    {p}best_class = ReduceMax <keepdims = 0> ({p}padded, v1)
    _{p}best, {p}ranked = TopK <axis = 1, largest = 1, sorted = 1> ({p}best_class, {top_k})
    {p}taken, _{p}order = TopK <axis = 1, largest = 0, sorted = 1> ({p}ranked, {top_k})
    {p}taken_row = Unsqueeze ({p}taken, v1)
    {p}taken_index = Expand ({p}taken_row, {p}taken_shape)
    {p}taken_logits = GatherElements <axis = 2> ({p}padded, {p}taken_index)
    {p}by_location = Transpose <perm = [0, 2, 1]> ({p}taken_logits)
    {p}pairs = Flatten <axis = 1> ({p}by_location)
    {p}logit, {p}pair = TopK <axis = 1, largest = 1, sorted = 1> ({p}pairs, {top_k})
    {p}place = Div ({p}pair, classes1)
    {p}place_start = Mul ({p}place, classes1)
    {p}label = Sub ({p}pair, {p}place_start)
    {p}there = GatherElements <axis = 1> ({p}taken, {p}place)
    {p}last = Sub ({locations}, v1)
    {p}location = Min ({p}there, {p}last)
    """


def _names(form: str, levels: int) -> str:
    return ", ".join(form.format(level) for level in range(levels))


def _all_levels_at_once(levels: int) -> str:
    return f"""
    all_classes = Concat <axis = 2> ({_names("classes_{}", levels)})
    {_best_pairs("", class_logits="all_classes", locations="total1", top_k="most1")}
    """


def _level_by_level(levels: int) -> str:
    lines = []
    for level in range(levels):
        p = f"at{level}_"
        lines += [
            _best_pairs(p, class_logits=f"classes_{level}", locations=f"locations_{level}", top_k="of_level1"),
            f"{p}global = Add ({p}location, start_{level})",
        ]
    return "\n".join(
        [
            *lines,
            "rows_shape = Concat <axis = 0> (n1, most1)",
            "absent_rows = Expand (absent, rows_shape)",
            "zero_rows = Expand (i0, rows_shape)",
            f"level_logits = Concat <axis = 1> ({_names('at{}_logit', levels)}, absent_rows)",
            f"level_labels = Concat <axis = 1> ({_names('at{}_label', levels)}, zero_rows)",
            f"level_locations = Concat <axis = 1> ({_names('at{}_global', levels)}, zero_rows)",
            "logit, chosen = TopK <axis = 1, largest = 1, sorted = 1> (level_logits, most1)",
            "label = GatherElements <axis = 1> (level_labels, chosen)",
            "location = GatherElements <axis = 1> (level_locations, chosen)",
        ]
    )


def candidate_statements(*, levels: int, cut_levels: bool) -> str:
    """The function's statements: class_logits_0 ..., edge_logits_0 ... -> boxes, scores, labels.

    Args:
        levels: how many maps of each kind.
        cut_levels: `per_level_top_k` is below `pre_nms_top_k`, so a level has a limit of its own.
    """
    return f"""
    {selection_statements(levels=levels, cut_levels=cut_levels, distributions=4)}
    zero = Constant <value_float = 0.0> ()
    distances_px = Mul (means, stride_row)
    left, top, right, bottom = Split <axis = 1, num_outputs = 4> (distances_px)
    x1 = Sub (x_row, left)
    y1 = Sub (y_row, top)
    x2 = Add (x_row, right)
    y2 = Add (y_row, bottom)
    first_stride = Slice (strides, v0, v1)
    canvas_height1 = Mul (height_0, first_stride)
    canvas_width1 = Mul (width_0, first_stride)
    canvas_height_int = Squeeze (canvas_height1, v0)
    canvas_width_int = Squeeze (canvas_width1, v0)
    canvas_height = Cast <to = 1> (canvas_height_int)
    canvas_width = Cast <to = 1> (canvas_width_int)
    in_x1 = Clip (x1, zero, canvas_width)
    in_y1 = Clip (y1, zero, canvas_height)
    in_x2 = Clip (x2, zero, canvas_width)
    in_y2 = Clip (y2, zero, canvas_height)
    sides = Concat <axis = 1> (in_x1, in_y1, in_x2, in_y2)
    boxes = Transpose <perm = [0, 2, 1]> (sides)
    """


def selection_statements(*, levels: int, cut_levels: bool, distributions: int) -> str:
    """From the maps to the best pairs: `scores` and `labels` (N, K), and what a decode needs of them.

    That is `x_row`, `y_row` and `stride_row` (N, 1, K) of the priors, in pixels; `distribution` (N, D, B, K), the
    softmax of the D distributions of a location, and `means` (N, D, K), their mean bins.

    Args:
        levels: how many maps of each kind.
        cut_levels: as for `candidate_statements`.
        distributions: D, of a location.
    """
    lines = []
    for level in range(levels):
        lines += [
            f"height_{level} = Shape <start = 2, end = 3> (class_logits_{level})",
            f"width_{level} = Shape <start = 3, end = 4> (class_logits_{level})",
            f"locations_{level} = Mul (height_{level}, width_{level})",
            f"classes_{level} = Reshape (class_logits_{level}, flat)",
            f"edges_{level} = Reshape (edge_logits_{level}, flat)",
        ]
    lines.append("start_0 = Sub (v1, v1)")
    for level in range(1, levels):
        lines.append(f"start_{level} = Add (start_{level - 1}, locations_{level - 1})")
    maps = "\n    ".join(lines)
    return f"""
    strides = Constant <value_ints: ints = @strides> ()
    of_level = Constant <value_int: int = @per_level_top_k> ()
    most = Constant <value_int: int = @pre_nms_top_k> ()
    absent = Constant <value_float = {ABSENT_LOGIT}> ()
    i0 = Constant <value_int = 0> ()
    i1 = Constant <value_int = 1> ()
    v0 = Constant <value_ints = [0]> ()
    v1 = Constant <value_ints = [1]> ()
    v2 = Constant <value_ints = [2]> ()
    rows1 = Constant <value_ints = [{distributions}]> ()
    flat = Constant <value_ints = [0, 0, -1]> ()
    bins_column = Constant <value_ints = [-1, 1]> ()

    n1 = Shape <start = 0, end = 1> (class_logits_0)
    classes1 = Shape <start = 1, end = 2> (class_logits_0)
    edges1 = Shape <start = 1, end = 2> (edge_logits_0)
    of_level1 = Reshape (of_level, v1)
    most1 = Reshape (most, v1)
    {maps}
    total1 = Add (start_{levels - 1}, locations_{levels - 1})
    {_level_by_level(levels) if cut_levels else _all_levels_at_once(levels)}
    scores = Sigmoid (logit)
    labels = Identity (label)

    starts = Concat <axis = 0> ({_names("start_{}", levels)})
    widths = Concat <axis = 0> ({_names("width_{}", levels)})
    location_column = Unsqueeze (location, v2)
    passed = GreaterOrEqual (location_column, starts)
    passed_int = Cast <to = 7> (passed)
    passed_levels = ReduceSum <keepdims = 0> (passed_int, v2)
    level = Sub (passed_levels, i1)
    level_start = Gather <axis = 0> (starts, level)
    level_width = Gather <axis = 0> (widths, level)
    level_stride = Gather <axis = 0> (strides, level)
    in_level = Sub (location, level_start)
    row = Div (in_level, level_width)
    row_start = Mul (row, level_width)
    column = Sub (in_level, row_start)
    x_int = Mul (column, level_stride)
    y_int = Mul (row, level_stride)
    x = Cast <to = 1> (x_int)
    y = Cast <to = 1> (y_int)
    stride = Cast <to = 1> (level_stride)

    all_edges = Concat <axis = 2> ({_names("edges_{}", levels)})
    location_row = Unsqueeze (location, v1)
    edge_shape = Concat <axis = 0> (n1, edges1, most1)
    edge_index = Expand (location_row, edge_shape)
    edges = GatherElements <axis = 2> (all_edges, edge_index)
    bins1 = Div (edges1, rows1)
    row_shape = Concat <axis = 0> (n1, rows1, bins1, most1)
    edge_logits = Reshape (edges, row_shape)
    distribution = Softmax <axis = 2> (edge_logits)
    bins = Squeeze (bins1, v0)
    bin_range = Range (i0, bins, i1)
    bin_float = Cast <to = 1> (bin_range)
    bin_values = Reshape (bin_float, bins_column)
    moments = Mul (distribution, bin_values)
    means = ReduceSum <keepdims = 0> (moments, v2)
    stride_row = Unsqueeze (stride, v1)
    x_row = Unsqueeze (x, v1)
    y_row = Unsqueeze (y, v1)
    """
