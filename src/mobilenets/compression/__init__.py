"""Quantization, pruning and distillation."""
