"""A DICOMweb service (PS3.18): its address, how it is spoken to, and which other addresses count as the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from gateway.deliver.exchange import EXCHANGE_SECONDS, PASSING, Answer, NoAnswerError, ask

JSON = "application/dicom+json"
MOST_BODY_BYTES = 8 << 20
"""Of an answer that is not images."""


class WebError(Exception):
    """A service has not done what it was asked for; the message has nothing of its answer's content.

    Attributes:
        may_pass: it may do so later.
    """

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


@dataclass(frozen=True)
class DicomWeb:
    """A service by its URL."""

    url: str
    ca: Path | None = None
    """Authorities that may vouch for it; None: those of this machine."""

    token: Path | None = None
    """File with a bearer token, read before each request."""

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, bytes]:
        """Asks for what is no image. Returns the status and the body.

        Raises:
            WebError: there is no whole answer, or one that is too long.
        """
        headers = {"Accept": JSON} | ({"Content-Type": JSON} if body is not None else {})
        url = self.name(path) + (f"?{urlencode(query)}" if query else "")
        with self.open(method, url, headers, body) as answer:
            content = answer.read(MOST_BODY_BYTES + 1)
            if len(content) > MOST_BODY_BYTES:
                raise WebError(f"its answer is longer than {MOST_BODY_BYTES} bytes", may_pass=False)
            return answer.status, content

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        seconds: float = EXCHANGE_SECONDS,
    ) -> Iterator[Answer]:
        """Asks for a URL, which is one of this service.

        Raises:
            WebError: there is no whole answer; also while it is read.
        """
        try:
            with ask(method, url, body, headers, ca=self.ca, token=self.token, seconds=seconds) as answer:
                yield answer
        except NoAnswerError as error:
            raise WebError(str(error), may_pass=True) from None

    def name(self, path: str) -> str:
        """The URL of something of this service."""
        return f"{self.url.rstrip('/')}/{path}"


def make_status_error(status: int, what: str) -> WebError:
    """The error of an answer whose status is none of success."""
    may_pass = not 400 <= status < 500 or status in PASSING - {404}
    return WebError(f"{what}: HTTP status {status}", may_pass=may_pass)


def find_origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL (RFC 6454).

    Raises:
        ValueError: it is none with http or https, or it says who is asking.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("it is no URL with http:// or https:// and a host")
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
