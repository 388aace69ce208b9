"""The port of HTTP: paths and methods, health, who may call, what the protocol allows, start and stop."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from server.core import detector
from server.errors import UnavailableError
from tests.fakes import encode, make_slice, wait_until
from tests.web_calls import TIMEOUT, Answer, WebServer, read_answer, serve_web

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


class Blocked:
    """A server with one worker, which stops before it decodes its first image until it is released."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.held, self.release = threading.Event(), threading.Event()
        self.judged = 0
        decode = detector.load_pixels

        def wait(*arguments: Any, **options: Any) -> Any:
            self.judged += 1
            self.held.set()
            assert self.release.wait(TIMEOUT)
            return decode(*arguments, **options)

        patch.setattr(detector, "load_pixels", wait)


@contextmanager
def waiting(web: WebServer, blocked: Blocked) -> Iterator[list[Answer]]:
    """A request that is in work until the end of the block, and then its answer."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(web.post_image(IMAGE, "?id=first")))
    thread.start()
    assert blocked.held.wait(TIMEOUT)
    yield answers
    blocked.release.set()
    thread.join()


def test_caller_who_has_gone_is_not_worked_for(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An image that still waits for its turn is dropped, and the log says CANCELLED."""
    caplog.set_level(logging.INFO, "server.core.outcomes")
    with serve_web(tiny_models, tmp_path, workers=1) as web:
        blocked = Blocked(monkeypatch)
        boundary = web.application._boundary
        with waiting(web, blocked):
            with web.dial() as gone:
                gone.sendall(make_post(IMAGE, "gone"))
                wait_until(lambda: boundary.in_flight == 2)
                time.sleep(0.05)  # its body has come, too
            wait_until(lambda: boundary.in_flight == 1)
        assert web.post_image(IMAGE).status == 200

    assert blocked.judged == 2
    assert [line for line in caplog.messages if "id=gone" in line and "code=CANCELLED" in line]


def make_post(image: bytes, request_id: str) -> bytes:
    head = (
        f"POST /predict?id={request_id} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(image)}"
    )
    return f"{head}\r\n\r\n".encode() + image


def test_full_queue_says_when_to_come_again(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whole seconds for HTTP, in milliseconds for those who can read them."""
    with serve_web(tiny_models, tmp_path, workers=1, queue=0, max_wait_seconds=0.2) as web:
        blocked = Blocked(monkeypatch)
        with waiting(web, blocked):
            answer = web.post_image(IMAGE)

    assert answer.outcome == (503, "QUEUE_FULL")
    assert answer.json["retry_after_ms"] > 0
    assert int(answer.headers["retry-after"]) >= 1


def test_image_waits_for_its_turn_only_so_long(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, or one of several."""
    with serve_web(tiny_models, tmp_path, workers=1, max_wait_seconds=0.2) as web:
        blocked = Blocked(monkeypatch)
        with waiting(web, blocked):
            alone = web.post_image(IMAGE)
            several = web.post_form("/predict/batch", ("file", IMAGE), ("file", IMAGE))

    assert alone.outcome == (504, "DEADLINE_IN_QUEUE")
    assert [one["error"]["reason"] for one in several.json["results"]] == ["DEADLINE_IN_QUEUE"] * 2


def test_stop_finishes_what_is_in_flight(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered, and what comes just after the stop; idle connections are closed, and the port is free."""
    with serve_web(tiny_models, tmp_path, workers=1) as web:
        blocked = Blocked(monkeypatch)
        idle = web.connect()
        idle.request("GET", "/health/live")
        read_answer(idle)
        with waiting(web, blocked) as first:
            web.application.stop()
            wait_until(lambda: not web.application._health.is_serving)
            assert web.ask("GET", "/health/ready").status == 503
            late: list[Answer] = []
            thread = threading.Thread(target=lambda: late.append(web.post_image(IMAGE)))
            thread.start()
            wait_until(lambda: web.application._boundary.in_flight == 2)
            wait_until(lambda: not can_connect(web.port))
        thread.join()
        web.thread.join()

    assert [answer.status for answer in (*first, *late)] == [200, 200]
    assert idle.sock.recv(1) == b""
    idle.close()
    socket.create_server(("127.0.0.1", web.port)).close()


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True


def test_stop_cuts_off_what_does_not_end(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for it, and nobody waits for a body that does not come."""
    with serve_web(tiny_models, tmp_path, drain_seconds=0.3) as web, web.dial() as slow:
        slow.sendall(make_post(IMAGE, "slow")[:-1])
        wait_until(lambda: web.application._boundary.in_flight == 1)
        web.application.stop()
        web.thread.join(TIMEOUT)
        assert not web.thread.is_alive()
        with suppress(ConnectionResetError):
            assert slow.recv(1) == b""


def test_audit_log_that_cannot_be_written_stops_images_alone(tiny_models: Path, tmp_path: Path) -> None:
    """Where it is required."""
    (tmp_path / "audit").mkdir()
    settings: dict[str, Any] = {"audit": tmp_path / "audit" / "log", "audit_required": True}
    with serve_web(tiny_models, tmp_path, **settings) as web:
        assert web.post_image(IMAGE).status == 200
        web.application._detector._check_ready = fail_audit
        assert web.post_image(IMAGE).outcome == (503, "AUDIT_UNAVAILABLE")
        assert web.ask("GET", "/models").status == 200


def fail_audit() -> None:
    raise UnavailableError("AUDIT_UNAVAILABLE", "The audit log cannot be written.", retry_after=1)
