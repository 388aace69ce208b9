"""Compressed DICOM slices, which processes of their own decode: whatever a file does to a codec, the server goes on."""
