"""What DICOM slices cost, in each transfer syntax."""
