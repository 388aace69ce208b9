"""Faults that are really injected into servers that really run, and what became of their promises."""
