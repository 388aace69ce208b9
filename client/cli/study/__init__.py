"""``python -m client study/``: one answer for a folder of slices."""
