"""Whole archives of files: each judged once, in partitions that are there as a whole or not at all."""
