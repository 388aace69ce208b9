"""All faults, in the order in which they are injected: what breaks most is looked at first."""

from __future__ import annotations

from bench.faults.matrix import stops

FAULTS = (*stops.FAULTS,)
