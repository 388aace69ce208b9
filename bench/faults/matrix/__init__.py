"""All faults, in the order in which they are injected: what breaks most is looked at first."""

from __future__ import annotations

from bench.faults.matrix import activation, crowds, disks, files, inputs, overload, scarcity, stops

FAULTS = (
    *stops.FAULTS,
    *files.FAULTS,
    *activation.FAULTS,
    *disks.FAULTS,
    *crowds.FAULTS,
    *inputs.FAULTS,
    *overload.FAULTS,
    *scarcity.FAULTS,
)
