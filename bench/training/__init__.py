"""Measurements of training: input, memory, evaluation, transfer, ablation."""
