"""Quantization-aware training: the student computes as its deployed int8 or fp8 file will."""
