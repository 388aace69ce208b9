"""Figures of a model on labelled slices, with confidence intervals."""
