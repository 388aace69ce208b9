"""Settings of the client: addresses and limits are checked before anything is sent."""

from __future__ import annotations

import pytest

from client import StrokeClient
from client._address import parse_address


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("box", "box:50051"),
        ("box.local:1234", "box.local:1234"),
        ("10.0.0.7", "10.0.0.7:50051"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:80", "[::1]:80"),
        ("unix:/run/stroke.sock", "unix:/run/stroke.sock"),
        ("dns:///box:5000", "dns:///box:5000"),
    ],
)
def test_address_without_port_gets_the_default(given: str, meant: str) -> None:
    """A host alone means port 50051; gRPC's own forms are left alone."""
    assert parse_address(given).text == meant


@pytest.mark.parametrize("target", ["", "box:", "box:x", "box:0", "box:65536", "box:500510", "a box:1", "box\n:1"])
def test_unusable_address_is_refused(target: str) -> None:
    """A port that gRPC would silently take modulo 65536, or none at all, is a ValueError."""
    with pytest.raises(ValueError, match="address"):
        StrokeClient(target)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_timeout_must_be_finite_and_positive(timeout: float) -> None:
    """No client waits for ever."""
    with pytest.raises(ValueError, match="timeout"):
        StrokeClient(timeout=timeout)
    with StrokeClient() as client:
        with pytest.raises(ValueError, match="timeout"):
            client.predict(b"x", timeout=timeout)
        with pytest.raises(ValueError, match="timeout"):
            client.predict_many([], timeout=timeout)


def test_size_limit_must_be_positive() -> None:
    """The message names the setting."""
    with pytest.raises(ValueError, match="max_image_bytes"):
        StrokeClient(max_image_bytes=0)
