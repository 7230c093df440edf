"""Distillation as two small families: regions say where, terms say what. Neither knows which head it serves."""
