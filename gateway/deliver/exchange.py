"""One request over HTTP to whoever takes results, bounded in time and in what is read of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import requests

from gateway.deliver.destination import DeliveryError

SECONDS = (10.0, 60.0)
"""To connect, and between two pieces of the answer."""

MOST_ANSWER_BYTES = 1 << 20

PASSING = frozenset((401, 403, 404, 407, 408, 425, 429))
"""Statuses below 500 that are about who asks, where, or when: somebody or something will change that. The others are
about the objects."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, ca: Path | None, token: Path | None
) -> tuple[int, bytes]:
    """Posts a body; returns the status and the beginning of the answer.

    Args:
        url: where to.
        body: what is sent.
        headers: with it.
        ca: authorities that may vouch for the other side; None: those that Python brings.
        token: file with a bearer token, read anew each time.

    Raises:
        DeliveryError: there is no answer.
    """
    headers = dict(headers)
    try:
        if token is not None:
            headers["Authorization"] = f"Bearer {token.read_text('ascii').strip()}"
        with requests.Session() as session:
            session.trust_env = False  # no proxy, no .netrc: this box talks to whom it was told to
            session.verify = str(ca) if ca else True
            # What is sent elsewhere would go there as another request, and with the token.
            with session.post(
                url, body, headers=headers, timeout=SECONDS, allow_redirects=False, stream=True
            ) as answer:
                return answer.status_code, answer.raw.read(MOST_ANSWER_BYTES, decode_content=True)
    except requests.RequestException as error:
        raise DeliveryError(f"it cannot be reached ({type(error).__name__})") from None
    except (OSError, ValueError):
        raise DeliveryError("the answer, or the token's file, cannot be read") from None


def make_status_error(status: int) -> DeliveryError:
    """The error of an answer whose status is none of success."""
    is_refusal = 400 <= status < 500 and status not in PASSING
    return DeliveryError(f"it answered with HTTP status {status}", is_refusal=is_refusal)
