"""What DICOM files and studies cost."""
