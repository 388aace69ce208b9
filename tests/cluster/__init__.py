"""Tests of what runs on Ray, in an environment of its own: ``make test-cluster``."""
