"""What Schemathesis sends where the document of the API says that there is an image: real ones, and other bytes."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies

from tests.fakes import encode, make_slice

BRIGHT = encode(make_slice(200))
IMAGES = (BRIGHT, encode(make_slice(40)), encode(make_slice(200), "JPEG"), BRIGHT[:1000], b"", b"no image")

for kind in ("image/png", "image/jpeg", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, strategies.sampled_from(IMAGES))
