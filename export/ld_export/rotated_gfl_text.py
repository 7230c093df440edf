"""The statements of `ld_deploy::RotatedGFLCandidates` in ONNX text syntax, standard operators of opset 18.

The pairs are those of `ld_export.gfl_text`; the decode is that of `ld_runtime.gfl_candidates.rotated_gfl_candidates`.
ONNX has no atan2: half of it is atan(sin / (length + cos)), and atan((length - cos) / sin) where the cosine is negative
and the first would divide two small numbers.
"""

from __future__ import annotations

from ld_export.gfl_text import selection_statements


def rotated_candidate_statements(*, levels: int, cut_levels: bool) -> str:
    """The function's statements: class_logits_0 ..., edge_logits_0 ... -> boxes, scores, labels.

    Args:
        levels: how many maps of each kind.
        cut_levels: `per_level_top_k` is below `pre_nms_top_k`, so a level has a limit of its own.
    """
    return f"""
    {selection_statements(levels=levels, cut_levels=cut_levels, distributions=5)}
    zero = Constant <value_float = 0.0> ()
    half = Constant <value_float = 0.5> ()
    one_float = Constant <value_float = 1.0> ()
    two = Constant <value_float = 2.0> ()
    tiny = Constant <value_float = 1.0e-30> ()
    least_direction = Constant <value_float = 1.0e-6> ()
    full_turn = Constant <value_float = 6.2831853> ()
    quarter = Constant <value_float = 1.57079637> ()
    less_quarter = Constant <value_float = -1.57079637> ()

    mean_x, mean_y, half_w, half_h, _mean_angle = Split <axis = 1, num_outputs = 5> (means)
    last_bin_int = Sub (bins, i1)
    last_bin = Cast <to = 1> (last_bin_int)
    middle = Mul (last_bin, half)
    offset_x = Sub (mean_x, middle)
    offset_y = Sub (mean_y, middle)
    offset_x_px = Mul (offset_x, stride_row)
    offset_y_px = Mul (offset_y, stride_row)
    centre_x = Add (x_row, offset_x_px)
    centre_y = Add (y_row, offset_y_px)
    twice_stride = Mul (stride_row, two)
    w = Mul (half_w, twice_stride)
    h = Mul (half_h, twice_stride)

    v5 = Constant <value_ints = [5]> ()
    fourth = Constant <value_ints = [4]> ()
    angle_rows = Slice (distribution, fourth, v5, v1)
    bins_float = Cast <to = 1> (bins)
    step = Div (full_turn, bins_float)
    turns = Mul (bin_values, step)
    turn_sin = Sin (turns)
    turn_cos = Cos (turns)
    sin_moments = Mul (angle_rows, turn_sin)
    cos_moments = Mul (angle_rows, turn_cos)
    sin2 = ReduceSum <keepdims = 0> (sin_moments, v2)
    cos2 = ReduceSum <keepdims = 0> (cos_moments, v2)
    sin2_squared = Mul (sin2, sin2)
    cos2_squared = Mul (cos2, cos2)
    length_squared = Add (sin2_squared, cos2_squared)
    length = Sqrt (length_squared)
    is_behind = Less (cos2, zero)
    length_ahead = Add (length, cos2)
    ahead_below = Where (is_behind, one_float, length_ahead)
    ahead_divisor = Max (ahead_below, tiny)
    ahead = Div (sin2, ahead_divisor)
    length_behind = Sub (length, cos2)
    behind_divisor = Where (is_behind, sin2, one_float)
    behind = Div (length_behind, behind_divisor)
    tangent = Where (is_behind, behind, ahead)
    angle_raw = Atan (tangent)
    is_end = GreaterOrEqual (angle_raw, quarter)
    angle_in = Where (is_end, less_quarter, angle_raw)
    is_short = Less (length, least_direction)
    angle = Where (is_short, zero, angle_in)

    numbers = Concat <axis = 1> (centre_x, centre_y, w, h, angle)
    boxes = Transpose <perm = [0, 2, 1]> (numbers)
    """
