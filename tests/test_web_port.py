"""The port of HTTP: paths and methods, health, who may call, what the protocol allows, start and stop."""

from __future__ import annotations

import logging
import random
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes import encode, make_slice
from tests.web_calls import WebServer, read_answer, serve_web

IMAGE = encode(make_slice(200))


@pytest.fixture(scope="module")
def web(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with serve_web(tiny_models, tmp_path_factory.mktemp("web")) as server:
        yield server


def read_all(plain: socket.socket) -> bytes:
    found = b""
    while piece := plain.recv(65536):
        found += piece
    return found


@pytest.mark.parametrize(
    ("verb", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("HEAD", "/predict", "POST"),
        ("PUT", "/predict/batch", "POST"),
        ("OPTIONS", "/predict", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/models/tiny", "GET, HEAD"),
        ("TRACE", "/health/live", "GET, HEAD"),
    ],
)
def test_other_methods_learn_which_there_are(web: WebServer, verb: str, path: str, allow: str) -> None:
    """405, with ``Allow``; no page of another server is allowed anything by ``OPTIONS``."""
    answer = web.ask(verb, path)

    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/nothing", "/models/", "/predict/", "//", "/models/a/b", "/docs", "*", "/%00", "/predict%0d%0aX:y"]
)
def test_unknown_path_is_not_found(web: WebServer, path: str) -> None:
    """And leads nowhere else."""
    answer = web.ask("GET", path)

    assert answer.outcome == (404, "PATH_UNKNOWN")
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/openapi.json", "/models", "/models/tiny", "/health/live", "/health/ready"])
def test_head_is_get_without_its_body(web: WebServer, path: str) -> None:
    """The same head."""
    head, found = web.ask("HEAD", path), web.ask("GET", path)

    assert head.body == b""
    assert head.headers | {"date": ""} == found.headers | {"date": ""}
    assert head.status == found.status == 200


def test_models_are_described_as_by_grpc(web: WebServer) -> None:
    """By the names of the proto's fields; the model's card is in the answer about one alone."""
    from google.protobuf.descriptor import FieldDescriptor

    from proto import stroke_pb2

    listed, single = web.ask("GET", "/models").json["models"], web.ask("GET", "/models/tiny?version=1").json
    fields: dict[str, FieldDescriptor] = stroke_pb2.DESCRIPTOR.message_types_by_name["Model"].fields_by_name

    assert set(single) == set(fields)
    assert listed == [{key: value for key, value in single.items() if key != "model_card"}]
    assert (single["name"], single["is_default"]) == ("tiny", True)
    assert web.ask("GET", "/models/none").outcome == (404, "MODEL_NOT_FOUND")
    assert web.ask("GET", "/models/tiny?version=9").outcome == (404, "MODEL_NOT_FOUND")


def test_health(web: WebServer) -> None:
    """Two questions: whether the process lives, and whether it judges now."""
    assert web.ask("GET", "/health/live").json == {"status": "ALIVE"}
    assert web.ask("GET", "/health/ready").json == {"status": "SERVING"}


def test_page_has_a_policy_of_its_own(web: WebServer) -> None:
    """Its own script and style by their digests, and nobody else's anything."""
    policy = web.ask("HEAD", "/").headers["content-security-policy"]

    assert policy.startswith("default-src 'self'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


CROSS = {
    "by its own word": {"sec_fetch_site": "cross-site"},
    "of a neighbour": {"sec_fetch_site": "same-site"},
    "of a browser that says less": {"origin": "http://evil.example"},
    "of another port": {"origin": "http://127.0.0.1:1"},
    "of a page without origin": {"origin": "null"},
}


@pytest.mark.parametrize("case", CROSS)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_pages_of_others_may_not_let_browsers_send(web: WebServer, path: str, case: str) -> None:
    """A form needs no permission of CORS to be sent: it would be judged in the reader's name, from within the net."""
    answer = web.post_form(path, ("file", IMAGE), **CROSS[case])

    assert answer.outcome == (403, "CROSS_SITE")
    assert "access-control-allow-origin" not in answer.headers


def test_own_page_and_programs_may(web: WebServer) -> None:
    """A link from elsewhere may be followed, too."""
    own = [{"sec_fetch_site": "same-origin", "origin": "https://proxy.example"}, {"sec_fetch_site": "none"}, {}]
    own.append({"origin": f"http://127.0.0.1:{web.port}"})

    assert [web.post_image(IMAGE, **headers).status for headers in own] == [200] * 4
    assert web.ask("GET", "/models", sec_fetch_site="cross-site").status == 200


def test_request_may_name_the_server(web: WebServer) -> None:
    """As proxies get them: RFC 9112, 3.2.2."""
    assert web.ask("GET", f"http://127.0.0.1:{web.port}/models/tiny?version=1").json["name"] == "tiny"
    assert web.ask("GET", "HTTPS://elsewhere").headers["content-type"].startswith("text/html")


def test_connection_is_used_again(web: WebServer) -> None:
    """After answers, and after refusals whose body was not read."""
    connection = web.connect()
    statuses = []
    for path, body in [("/predict", IMAGE), ("/nothing", IMAGE), ("/predict?modell=x", IMAGE), ("/predict", IMAGE)]:
        connection.request("POST", path, body, {"content-type": "image/png"})
        statuses.append(read_answer(connection).status)
    first = connection.sock
    connection.request("GET", "/health/live")
    assert read_answer(connection).status == 200
    assert connection.sock is first
    connection.close()
    assert statuses == [200, 404, 400, 200]


def test_body_that_is_held_back_is_not_waited_for(web: WebServer) -> None:
    """``Expect: 100-continue``: who is refused need not send it; then the connection is at its end."""
    head = b"POST /predict?modell=x HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9999\r\n"
    head += b"Expect: 100-continue\r\n\r\n"
    with web.dial() as plain:
        plain.sendall(head)
        found = read_all(plain)
    assert found.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in found

    length = str(len(IMAGE)).encode()
    with web.dial() as plain:
        plain.sendall(head.replace(b"?modell=x", b"").replace(b"9999", length))
        assert plain.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        plain.sendall(IMAGE)
        assert plain.recv(100).startswith(b"HTTP/1.1 200")


GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_requests_that_come_together_are_answered_one_after_the_other(web: WebServer) -> None:
    """In their order; what comes behind the last one is ignored."""
    many = GET.replace(b"Connection: close\r\n", b"")
    with web.dial() as plain:
        plain.sendall(many * 50 + GET + b"\r\n")
        found = read_all(plain)

    assert found.count(b"HTTP/1.1 200 OK") == found.count(b"ALIVE") == 51


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50) + b"\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA\x00: b\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
        (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            + GET,
            b"400",
        ),
        (b"POST /predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET, b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", b"400"),
        (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"400",
        ),
        (b"GET /" + b"a" * 65536 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 200_000, b"431"),
        (GET.replace(b"Connection: close\r\n", b"") + b"garbage\r\n\r\n", b"200 400"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_what_is_no_request_is_answered_and_ended(web: WebServer, request_: bytes, status: bytes) -> None:
    """One answer, as all errors are, and the connection is closed: nothing behind it is taken for another request."""
    with web.dial() as plain:
        plain.sendall(request_)
        found = read_all(plain)

    assert b" ".join(re.findall(rb"HTTP/1\.1 (\d+)", found)) == status
    assert b"application/problem+json" in found
    assert b"connection: close" in found or b"HTTP/1.0" in request_
    assert b"nosniff" in found


def test_answers_repeat_no_secret_and_no_pixel(web: WebServer) -> None:
    """What was sent in a head or a body is nobody's business, least of all that of a log of answers."""
    secret = "S3CRET" * 10
    answers = [
        web.post_image(secret.encode() * 100, authorization=f"Bearer {secret}", cookie=secret, x_patient=secret),
        web.ask("POST", "/predict", secret, content_type=f"multipart/form-data; boundary={secret}"),
        web.ask("GET", "/nothing", authorization=f"Bearer {secret}"),
        web.ask("POST", f"/predict?image_sha256={secret}", IMAGE, content_type="image/png"),
    ]

    assert not [answer for answer in answers if secret[:12] in f"{answer.headers} {answer.body!r}"]
    with web.dial() as plain:
        plain.sendall(f"GET / HTTP/1.1\r\nAuthorization : Bearer {secret}\r\n\r\n".encode())
        assert secret.encode() not in read_all(plain)


PIECES = [
    *(
        b"GET",
        b"POST",
        b"HEAD",
        b"PRI",
        b"\x16\x03",
        b" ",
        b"/predict",
        b"/health/live",
        b"*",
        b"http://x/",
        b"/%00%ff",
    ),
    *(
        b" HTTP/1.1",
        b" HTTP/1.0",
        b" HTTP/2.0",
        b"\r\n",
        b"\n",
        b"\r",
        b"\x00",
        b"Host: x\r\n",
        b"Content-Length: 3\r\n",
    ),
    *(b"Content-Length: 9999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
    *(b"Connection: upgrade\r\n", b"Expect: 100-continue\r\n", b"Content-Type: multipart/form-data; boundary=x\r\n"),
    *(
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"fffffffff\r\n",
        b"--x\r\n",
        b"--x--",
        b"abc",
        GET,
        GET.replace(b"live", b"ready"),
    ),
]


def test_nothing_that_is_sent_is_a_fault_of_the_server(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """400 connections with any pieces of requests, in any order and torn anywhere: nothing is logged as an error."""
    chance = random.Random(0)
    for _ in range(400):
        pieces = chance.choices(PIECES, k=chance.randint(1, 12))
        start = chance.choice([b"", GET[:-25], b"POST /predict HTTP/1.1\r\nHost: x\r\n"])
        data = start + b"".join(pieces)
        torn = chance.randint(0, len(data))
        with web.dial() as plain, suppress(OSError):
            plain.sendall(data[:torn])
            time.sleep(chance.choice([0, 0, 0.001]))
            plain.sendall(data[torn:])
            plain.settimeout(0.002)
            plain.recv(65536)
    assert web.post_image(IMAGE).status == 200
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
