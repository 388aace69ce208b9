"""DICOM files: CT values instead of grey levels, which a model's own window makes grey levels of."""
