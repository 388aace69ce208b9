"""Tests share machines, on which Ray starts slowly."""

from cluster.bench.patience import be_patient

be_patient()
