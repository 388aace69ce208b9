"""Addresses of servers: what they mean, what is refused, and what counts as this machine."""

from __future__ import annotations

import logging
import socket

import pytest

from client import RetryConfig, ServerUnavailableError, StrokeClient
from client._address import parse_address


@pytest.mark.parametrize(
    ("given", "meant", "target"),
    [
        ("box", "box:50051", "dns:///box:50051"),
        ("box.local:1234", "box.local:1234", "dns:///box.local:1234"),
        ("10.0.0.7", "10.0.0.7:50051", "dns:///10.0.0.7:50051"),
        ("[::1]", "[::1]:50051", "dns:///[::1]:50051"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80", "dns:///[fe80::1%eth0]:80"),
        ("unix:50051", "unix:50051", "dns:///unix:50051"),
        ("unixbox:5000", "unixbox:5000", "dns:///unixbox:5000"),
        ("dns:///boxes", "dns:///boxes:50051", "dns:///boxes:50051"),
        ("dns:///[::1]:5000", "dns:///[::1]:5000", "dns:///[::1]:5000"),
        ("dns://10.0.0.53/boxes", "dns://10.0.0.53/boxes:50051", "dns://10.0.0.53/boxes:50051"),
        ("unix:/run/stroke.sock", "unix:/run/stroke.sock", "unix:/run/stroke.sock"),
        ("unix:run/stroke.sock", "unix:run/stroke.sock", "unix:run/stroke.sock"),
        ("xds:///boxes", "xds:///boxes", "xds:///boxes"),
        ("127.0.0.1,127.0.0.2:7", "127.0.0.1:50051,127.0.0.2:7", "ipv4:127.0.0.1:50051,127.0.0.2:7"),
        ("ipv4:127.0.0.1:5,127.0.0.2", "127.0.0.1:5,127.0.0.2:50051", "ipv4:127.0.0.1:5,127.0.0.2:50051"),
        ("[::1]:5,[::2]", "[::1]:5,[::2]:50051", "ipv6:[::1]:5,[::2]:50051"),
        ("ipv6:[::1]:5,[::2]:6", "[::1]:5,[::2]:6", "ipv6:[::1]:5,[::2]:6"),
    ],
)
def test_forms_of_addresses(given: str, meant: str, target: str) -> None:
    """A host alone means port 50051; what gRPC is given leaves no doubt."""
    address = parse_address(given)

    assert address.text == meant
    assert address.resolve() == target


@pytest.mark.parametrize(
    "text",
    ["", "box:", "box:x", "box:0", "box:65536", "box:500510", "a box:1", "box\n:1", "box,", ",", "box:1,,box:2",
     "http://box:1", "box/path", "::1", "[::1", "[box]:1", "me@box:1", "dns:///", "dns:///box:x", "ipv4:box:99999"],
)  # fmt: skip
def test_unusable_address_is_refused(text: str) -> None:
    """A port that gRPC would silently take modulo 65536, or none at all, is a ValueError that says the form."""
    with pytest.raises(ValueError, match="address"):
        StrokeClient(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://box:50051", "the server's address stands without http://: box:50051"),
        ("grpc://box", "the server's address stands without grpc://: box"),
        ("HTTP://box:1/stroke", "the server's address stands without HTTP://: box:1"),
        ("http://a:1,http://b:2/", "the server's address stands without http://: a:1,b:2"),
        ("tcp://[::1]:5", "the server's address stands without tcp://: [::1]:5"),
        ("http://", "the server's address stands without http://: HOST:PORT"),
        (
            "https://box:1",
            "the server's address stands without https://: box:1; "
            "TLS has settings of its own: tls=TLSConfig(...), --tls-ca",
        ),
    ],
)  # fmt: skip
def test_url_is_told_from_an_address(text: str, message: str) -> None:
    """The sentence has what to write instead, rather than that the port is wrong."""
    with pytest.raises(ValueError, match="without") as caught:
        parse_address(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("box:50051/", "the server's address stands without a path: box:50051"),
        ("box/", "the server's address stands without a path: box"),
        ("[::1]:5/stroke?x=1", "the server's address stands without a path: [::1]:5"),
        ("a:1,b:2/", "the server's address stands without a path: a:1,b:2"),
        ("dns:///box:1/", "the server's address stands without a path: dns:///box:1"),
        ("dns://box:1", "the server's address has three slashes: dns:///box:1"),
        ("unix://run/s", "the server's address has three slashes: unix:///run/s"),
    ],
)
def test_slashes_too_many_or_too_few_are_told(text: str, message: str) -> None:
    """What somebody has copied or mistyped, with what to write instead."""
    with pytest.raises(ValueError, match="the server's address") as caught:
        parse_address(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "is_balanced"),
    [
        ("box", False),
        ("a,b", True),
        ("dns:///boxes", True),
        ("dns://ns:53/boxes", True),
        ("unix:/s", False),
        ("ipv4:1.2.3.4:5,1.2.3.5:5", True),
    ],
)
def test_several_servers_take_turns(text: str, is_balanced: bool) -> None:
    """A list and a name that may have several addresses are balanced; one host is not."""
    assert parse_address(text).is_balanced is is_balanced


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.9.9.9:1,127.0.0.1:2", True), ("ipv4:127.0.0.1:5", True),
        ("[::1]:2", True), ("unix:/run/s", True), ("unix-abstract:s", True), ("dns:///localhost", True), ("box", False),
        ("127.0.0.1,box", False), ("unixbox:5000", False), ("unix:50051", False), ("unix-box", False),
        ("127.0.0.1.example.org", False), ("localhost.example.org", False), ("xds:///localhost", False),
        ("vsock:1:2", False), ("passthrough:127.0.0.1:1", False), ("0.0.0.0", False),
    ],
)  # fmt: skip
def test_token_leaves_the_machine_in_tls_alone(text: str, is_local: bool) -> None:
    """A bearer token in plain text is for sockets and loopback addresses; everything else is refused at once."""
    assert parse_address(text).is_local is is_local
    if is_local:
        StrokeClient(text, token="open-sesame").close()
    else:
        with pytest.raises(ValueError, match="plain text") as caught:
            StrokeClient(text, token="open-sesame")
        assert "open-sesame" not in str(caught.value)


def fake_lookup(monkeypatch: pytest.MonkeyPatch, hosts: dict[str, list[str]]) -> None:
    """Names of these hosts are known, and no others."""

    def look_up(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        if host not in hosts:
            raise socket.gaierror(-2, "Name or service not known")
        kinds = [(socket.AF_INET6 if ":" in found else socket.AF_INET, found) for found in hosts[host]]
        return [(kind, 1, 6, "", (found, port)) for kind, found in kinds]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize(
    ("hosts", "target"),
    [
        ({"a": ["10.0.0.1"], "b": ["10.0.0.2", "10.0.0.3"]}, "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ({"a": ["fd00::1", "10.0.0.1"], "b": ["10.0.0.2", "fd00::2"]}, "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ({"a": ["fd00::1", "10.0.0.1"], "b": ["fd00::2"]}, "ipv6:[fd00::1]:1,[fd00::2]:2"),
    ],
)
def test_names_of_a_list_become_addresses_of_one_kind(
    monkeypatch: pytest.MonkeyPatch, hosts: dict[str, list[str]], target: str
) -> None:
    """Each name gives its first address of the kind that all have: gRPC takes no mixed list."""
    fake_lookup(monkeypatch, hosts)

    assert parse_address("a:1,b:2").resolve() == target


def test_hosts_without_a_common_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv4 here and IPv6 there cannot be one list."""
    fake_lookup(monkeypatch, {"a": ["10.0.0.1"], "b": ["fd00::2"]})

    with pytest.raises(ValueError, match="one kind"):
        StrokeClient("a,b")


def test_unknown_name_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A box whose name is gone is left out, and the log says which."""
    fake_lookup(monkeypatch, {"b": ["10.0.0.2"]})

    with caplog.at_level(logging.WARNING, "client"):
        assert parse_address("a:1,b:2").resolve() == "ipv4:10.0.0.2:2"
    assert "left out of the servers: a" in caplog.text


def test_list_of_unknown_names_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of a list are looked up when the client is made: then it is said that none is known."""
    fake_lookup(monkeypatch, {})

    with pytest.raises(ServerUnavailableError, match="a:50051,b:50051") as caught:
        StrokeClient("a,b")
    assert caught.value.reason == "HOST_UNKNOWN"


@pytest.mark.parametrize(("target", "is_told"), [("localhost:1,127.0.0.1:2", True), ("127.0.0.1:1,127.0.0.1:2", False)])
def test_names_of_a_list_may_have_moved(target: str, is_told: bool) -> None:
    """Nobody answers, and a name of the list was looked up when the client was made: both are said."""
    with (
        StrokeClient(target, retry=RetryConfig(max_attempts=1)) as client,
        pytest.raises(ServerUnavailableError, match="no server answers") as caught,
    ):
        client.predict(b"image")

    assert caught.value.reason == "SERVER_UNREACHABLE"
    assert ("looked up once" in str(caught.value)) is is_told
