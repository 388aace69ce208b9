"""The page: one file, sent with a policy under which a browser runs nothing else and asks nobody else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")


def make_page() -> Response:
    """The page, read once."""
    content = PAGE.read_bytes()
    scripts, styles = (hash_elements(content, name) for name in ("script", "style"))
    policy = (
        f"default-src 'self'; script-src {scripts}; style-src {styles}; img-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return Response(content, media_type="text/html", headers=headers)


def hash_elements(page: bytes, name: str) -> str:
    """The sources of a policy (Content Security Policy, level 3) that allow the elements of the page itself."""
    pattern = rb"<%b[^>]*>(.*?)</%b>" % (name.encode(), name.encode())
    found = [hashlib.sha256(body).digest() for body in re.findall(pattern, page, re.DOTALL)]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in found) or "'none'"
