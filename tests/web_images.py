"""What Schemathesis sends where the document of the API says that there is an image: real ones, and other bytes."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies

from tests.dicom_files import make_dicom, make_hu
from tests.fakes import encode, make_slice

BRIGHT, SCAN = encode(make_slice(200)), make_dicom(make_hu())
IMAGES = (
    BRIGHT,
    encode(make_slice(40)),
    encode(make_slice(200), "JPEG"),
    SCAN,
    BRIGHT[:1000],
    SCAN[:1000],
    b"",
    b"no image",
)

for kind in ("image/png", "image/jpeg", "application/dicom", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, strategies.sampled_from(IMAGES))
