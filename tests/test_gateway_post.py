"""FHIR and HL7 by POST: what is taken, what may be taken later, and what never will be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.deliver.destination import DeliveryError, ResultFile
from gateway.deliver.exchange import MOST_ANSWER_BYTES
from gateway.deliver.post import FHIR, HL7, PostDestination
from gateway.listen.command import main

FILES = [ResultFile("sr.dcm", b"DICM"), ResultFile(FHIR, b"{}"), ResultFile(HL7, b"MSH|\r")]


@dataclass
class Service:
    """What a service answers, and what it was sent."""

    url: str = ""
    status: int = 200
    answer: bytes = b""
    got: list[tuple[str, str | None, bytes]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    here = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            here.got.append((self.headers["Content-Type"], self.headers.get("Authorization"), body))
            self.send_response(here.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(here.answer)))
            self.end_headers()
            self.wfile.write(here.answer)

        def log_message(self, format: str, *values: object) -> None:
            """Writes nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here.url = f"http://127.0.0.1:{server.server_port}/base"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield here
        server.shutdown()
        thread.join()


def test_each_kind_goes_where_it_belongs(service: Service, tmp_path: Path) -> None:
    """By its content type, with the token that the file holds now."""
    token = tmp_path / "token"
    for kind in (FHIR, HL7):
        token.write_text(f"secret-{kind}\n")
        PostDestination(service.url, kind, token=token).send(FILES)

    assert service.got == [
        ("application/fhir+json", f"Bearer secret-{FHIR}", b"{}"),
        ("x-application/hl7-v2+er7; charset=utf-8", f"Bearer secret-{HL7}", b"MSH|\r"),
    ]


def test_results_without_its_kind_are_not_sent(service: Service) -> None:
    PostDestination(service.url, HL7).send(FILES[:2])

    assert service.got == []


@pytest.mark.parametrize(
    ("status", "is_refusal"), [(400, True), (422, True), (401, False), (429, False), (500, False), (307, False)]
)
def test_what_was_not_taken_may_be_taken_later_or_never(service: Service, status: int, is_refusal: bool) -> None:
    """What it says of the content does not get any further; nothing follows it elsewhere."""
    service.status, service.answer = status, b"Doe^Jane"
    with pytest.raises(DeliveryError) as caught:
        PostDestination(service.url, FHIR).send(FILES)

    assert str(caught.value) == f"it answered with HTTP status {status}"
    assert caught.value.is_refusal == is_refusal
    assert len(service.got) == 1


def test_acknowledgement_of_hl7_is_read(service: Service) -> None:
    """An error in it is one, whatever HTTP says; without one HTTP decides."""
    for answer in (b"", b"MSH|^~\\&|A\rMSA|AA|1\r", b"MSH|^~\\&|A\rMSA|CA|1\r"):
        service.answer = answer
        PostDestination(service.url, HL7).send(FILES)
    for code in ("AE", "AR", "CE", "CR"):
        service.answer = f"MSH|^~\\&|A\rMSA|{code}|1|Doe\r".encode()
        with pytest.raises(DeliveryError, match=f"^it acknowledged with {code}$") as caught:
            PostDestination(service.url, HL7).send(FILES)
        assert caught.value.is_refusal


def test_answer_without_end_is_not_read_to_its_end(service: Service) -> None:
    service.answer = bytes(2 * MOST_ANSWER_BYTES)

    PostDestination(service.url, FHIR).send(FILES)


def test_service_that_is_not_there_may_come(tmp_path: Path) -> None:
    """And a token that cannot be read may, too."""
    with pytest.raises(DeliveryError, match="cannot be reached") as caught:
        PostDestination("http://127.0.0.1:9/", FHIR).send(FILES)
    assert not caught.value.is_refusal
    with pytest.raises(DeliveryError, match="token's file"):
        PostDestination("http://127.0.0.1:9/", FHIR, token=tmp_path / "none").send(FILES)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--fhir-to", "http://a/fhir"], "--fhir-to gets nothing without fhir among --results"),
        (["--hl7-to", "http://a/", "--results", "sr,fhir"], "--hl7-to gets nothing without hl7 among --results"),
        (["--fhir-to", "a.example"], "--fhir-to is a URL with http:// or https://"),
    ],
)
def test_urls_that_would_get_nothing_are_refused(
    tmp_path: Path, flags: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--queue", str(tmp_path / "queue"), *flags])

    assert ended.value.code == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "queue").exists()
