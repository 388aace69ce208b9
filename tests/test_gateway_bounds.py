"""What hostile or clumsy senders cannot do to the gateway's receiver."""

from __future__ import annotations

import io
import socket
import ssl
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pydicom
import pytest
import trustme
from pynetdicom import _config
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from gateway.receive import bounded, receiver
from tests.dicom_files import make_dicom
from tests.fakes import wait_until
from tests.gateway_box import Box, associate, make_files, open_box, send
from tests.studies import make_slice

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of pynetdicom as the other side


@pytest.fixture
def box(tmp_path: Path):
    with open_box(tmp_path / "queue") as opened:
        yield opened


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection; what it has said before does not matter."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_connections_that_ask_nothing_are_closed_and_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load balancers look whether a port is open; some keep it open."""
    monkeypatch.setattr(receiver, "ASSOCIATION_SECONDS", 0.2)
    with open_box(tmp_path / "queue") as box:
        before = threading.active_count()
        for _ in range(30):
            connect(box.port).close()
        with connect(box.port) as idle:
            assert is_closed(idle)
        wait_until(lambda: box.receiver.connections == 0)
        wait_until(lambda: threading.active_count() <= before)
        assert send(box.port, make_files(1)) == [0]


def test_more_connections_than_there_are_places_for_are_closed_at_once(tmp_path: Path) -> None:
    """Each costs two threads; associations go on."""
    with open_box(tmp_path / "queue", most_senders=2) as box, ExitStack() as opened, associate(box.port) as working:
        for _ in range(2 + bounded.SPARE_CONNECTIONS - 1):
            opened.enter_context(connect(box.port))
        wait_until(lambda: box.receiver.connections == 2 + bounded.SPARE_CONNECTIONS)
        assert is_closed(opened.enter_context(connect(box.port)))
        assert working.send_c_echo().Status == 0


def test_a_pdu_of_any_announced_length_is_not_read(box: Box) -> None:
    """Four gigabytes, says its header."""
    with connect(box.port) as hostile:
        hostile.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + b"x" * 1000)
        assert is_closed(hostile)
    assert send(box.port, make_files(1)) == [0]


def test_half_a_pdu_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender may stop in the middle of a word, or say a byte a minute."""
    monkeypatch.setattr(receiver, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(receiver, "ASSOCIATION_SECONDS", 0.3)
    with open_box(tmp_path / "queue") as box, connect(box.port) as hostile:
        hostile.sendall(struct.pack(">BBL", 1, 0, 1000) + b"x")
        assert is_closed(hostile)
        wait_until(lambda: box.receiver.connections == 0)


def test_association_on_which_nothing_is_said_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place is for those who send."""
    monkeypatch.setattr(receiver, "IDLE_SECONDS", 0.3)
    with open_box(tmp_path / "queue") as box, associate(box.port) as idle:
        assert idle.is_established
        wait_until(lambda: box.receiver.connections == 0)
        wait_until(lambda: not idle.is_established)


def test_instance_that_is_too_long_ends_its_association(tmp_path: Path) -> None:
    """And takes no more memory than is allowed."""
    with open_box(tmp_path / "queue", most_instance_bytes=300_000) as box:
        assert send(box.port, [make_dicom(np.zeros((512, 512), np.int16))]) == [-1]
        assert box.list_files() == []
        wait_until(lambda: box.receiver.connections == 0)


def test_sender_that_does_not_wait_for_answers_is_stopped(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that nobody has answered would be kept in memory."""
    blocked = threading.Event()
    monkeypatch.setattr(box.arrivals, "put", lambda *_: blocked.wait(20))
    with associate(box.port) as hostile:
        context = hostile.accepted_contexts[1].context_id
        for number in range(8):
            hostile.dimse.send_msg(make_request(number), context)
        wait_until(lambda: not hostile.is_established)
        blocked.set()
    wait_until(lambda: box.receiver.connections == 0)


def make_request(number: int) -> C_STORE:
    """A request to store an instance, with the instance."""
    dataset = pydicom.dcmread(io.BytesIO(make_slice(number)))
    request = C_STORE()
    request.MessageID, request.Priority = number + 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    request.DataSet = io.BytesIO(encode(dataset, False, True))
    return request


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_files(tmp_path: Path, authority: trustme.CA) -> dict[str, Path]:
    """Settings of a receiver that wants to know who sends."""
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "client_ca")}
    certificate.cert_chain_pems[0].write_to_path(files["certificate"])
    certificate.private_key_pem.write_to_path(files["key"])
    authority.cert_pem.write_to_path(files["client_ca"])
    return files


def make_client_context(authority: trustme.CA, *, has_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if has_certificate:
        authority.issue_cert("ct1.example").configure_cert(context)
    return context


def test_senders_prove_who_they_are(tmp_path: Path, tls_files: dict[str, Path], authority: trustme.CA) -> None:
    """With TLS and an authority for senders; without a certificate, or without TLS, there is no association."""
    with open_box(tmp_path / "queue", **tls_files) as box:
        known = make_client_context(authority, has_certificate=True)
        assert send(box.port, make_files(2), tls_args=(known, "localhost")) == [0, 0]
        unknown = make_client_context(authority, has_certificate=False)
        with associate(box.port, tls_args=(unknown, "localhost")) as association:
            assert not association.is_established
        with associate(box.port) as association:
            assert not association.is_established


def test_handshake_that_does_not_end_keeps_nobody_out(
    tmp_path: Path, tls_files: dict[str, Path], authority: trustme.CA
) -> None:
    """Others connect meanwhile."""
    known = make_client_context(authority, has_certificate=True)
    with open_box(tmp_path / "queue", **tls_files) as box, connect(box.port) as silent:
        silent.sendall(b"\x16\x03\x01")
        assert send(box.port, make_files(1), tls_args=(known, "localhost")) == [0]


def test_messages_are_not_logged_by_the_library(box: Box) -> None:
    """Its own lines have titles and UIDs."""
    assert _config.LOG_HANDLER_LEVEL == "none"
