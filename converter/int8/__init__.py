"""The INT8 variant: calibration, quantisation and the accuracy gate."""
