"""Coded terms of the results: the standard's where it has one, else of a scheme of this project's own."""

from __future__ import annotations

from pydicom.sr.coding import Code

SCHEME = "99STROKESERVE"
SCHEME_NAME = "StrokeServe, whole-study classification"

CT_HEAD = Code("24725-4", "LN", "CT Head")
IMAGING = Code("363679005", "SCT", "Imaging procedure")
BRAIN = Code("12738006", "SCT", "Brain")
CT = Code("CT", "DCM", "Computed Tomography")
MEAN = Code("373098007", "SCT", "Mean")
NO_UNITS = Code("1", "UCUM", "no units")

PROBABILITY = Code("122157", "DCM", "Probability")
THRESHOLD = Code("122411", "DCM", "Threshold Value")
COMMENT = Code("121106", "DCM", "Comment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

STATUS = Code("status", SCHEME, "Status of the analysis")
CLASSIFICATION = Code("classification", SCHEME, "Classification of the whole study")
REASON = Code("reason", SCHEME, "Reason why it was not analysed")
FIRST_LOOK = Code("first-look", SCHEME, "Slice to look at first")


def own(value: str, meaning: str = "") -> Code:
    """A word of a model or of the server as a term of this project's scheme."""
    return Code(value, SCHEME, (meaning or value)[:64])
