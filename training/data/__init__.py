"""Data sets: labels, files, pixels and splits by patient."""
