"""Requests that a page of somebody else lets a browser send: they could use this server in their reader's name.

Programs send neither header. Browsers tell what page a request comes from: by ``Sec-Fetch-Site`` where the address is
encrypted or of this machine, otherwise by ``Origin`` (Fetch Metadata, and RFC 6454). Requests that only read are
answered: a page of somebody else cannot see the answer, since nothing here allows it to (no CORS).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from server.errors import ForbiddenError

READING = ("GET", "HEAD")
OWN_PAGE = ("same-origin", "none")


def check_origin(verb: str, headers: Mapping[str, str]) -> None:
    """Refuses what a page of another origin sends.

    Args:
        verb: of the request.
        headers: by their names in lower case.

    Raises:
        ForbiddenError: reason CROSS_SITE.
    """
    if verb in READING:
        return
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = origin is None or origin.partition("://")[2] == headers.get("host") if site is None else site in OWN_PAGE
    if not is_own:
        raise ForbiddenError("CROSS_SITE", "Pages of other servers may not call this one.")


def check_host(host: str) -> None:
    """Refuses a request for another name than those of this machine itself: to a browser, the page of somebody else
    whose name has been made to point here is of this origin, and may read the answer (DNS rebinding).

    Args:
        host: the header ``Host``.

    Raises:
        ForbiddenError: reason CROSS_SITE.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        is_own = name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_own = False
    if not is_own:
        raise ForbiddenError("CROSS_SITE", "Without TLS and tokens this is for localhost alone, by that name.")
