"""Benchmarks: ``python -m bench.serving`` (``make bench``) and ``python -m bench.peers`` (``make bench-peers``)."""
