"""Synthetic head-CT slices."""
