"""What callers of HTTP can do to a server, on purpose or not, does not stop it for others: real processes."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from server.config import ServerConfig
from server.core.capacity import find_most_message_memory
from tests.certificates import CA, chain, issue_server, key
from tests.fakes import ServerProcess, encode, read_resident_bytes, run_server, wait_until, write_model
from tests.scraping import find_free_port
from tests.studies import STUDY_SPEC
from tests.test_server_attacks import IMAGE, PATIENCE, TIMEOUT, Witness

pytestmark = pytest.mark.timed

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
STUDY = (
    b"POST /study HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n4\r\n--x\r\r\n1\r\n\n\r\n"
)
EMPTY_FILE = b'Content-Disposition: form-data; name="file"\r\n\r\n\r\n--x\r\n'
MOST_CONNECTIONS = 128
CHANGING = 3 * 16 + 6
"""Connections that come and go in the same moment, and those of the witnesses."""

MOST_MEMORY = 60e6
"""What connections may add that nobody has asked anything of: 0.33 MB each, and some for what goes on beside."""


@dataclass
class Target:
    """A server process, and its port of HTTP."""

    server: ServerProcess
    port: int

    @property
    def memory(self) -> int:
        return read_resident_bytes(self.server.process.pid)

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def count_connections(self) -> int:
        """Descriptors of the process that are sockets."""
        folder = Path(f"/proc/{self.server.process.pid}/fd")
        found = 0
        for name in os.listdir(folder):
            with suppress(OSError):
                found += os.readlink(folder / name).startswith("socket:")
        return found


class WebWitness(Witness):
    """One who sends images by HTTP, too, each on a connection of its own."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.server)
        self.seconds["web"] = []
        self.faults: list[str] = []
        self._port = target.port
        self._threads.append(threading.Thread(target=self._send))

    def _send(self) -> None:
        while not self._stopped.wait(0.02):
            started = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
            try:
                connection.request("POST", "/predict", IMAGE, {"content-type": "image/png"})
                status = connection.getresponse().status
                if status != 200:
                    self.faults.append(str(status))
            except OSError as error:
                self.faults.append(repr(error))
            finally:
                connection.close()
            self.seconds["web"].append(time.monotonic() - started)

    def check(self, patience: float = PATIENCE) -> None:
        super().check(patience)
        assert not self.faults
        assert max(self.seconds["web"]) < patience


def figures(witness: WebWitness, before: int) -> None:
    """Prints what docs/limits.md states."""
    longest = {name: f"{max(seconds):.2f} s" for name, seconds in witness.seconds.items()}
    print(f"FIGURES +{(witness.most_memory - before) / 1e6:.0f} MB, longest {longest}")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that judges studies, too."""
    models, port = tmp_path_factory.mktemp("models"), find_free_port()
    write_model(models, STUDY_SPEC)
    with run_server(models, "--http", f"127.0.0.1:{port}") as server:
        yield Target(server, port)
        assert not [line for line in server.log if "Traceback" in line or " ERROR " in line or "asyncio" in line]
        assert server.stop() == 0


@contextmanager
def crowd(target: Target, number: int, first: bytes, drip: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections which begin with the same bytes and go on with a byte now and then."""
    over = threading.Event()
    with ExitStack() as stack:
        connections = []
        for _ in range(number):
            with suppress(OSError):
                connection = stack.enter_context(target.dial())
                connections.append(connection)
                if first:
                    connection.sendall(first)

        def go_on() -> None:
            while not over.wait(0.3):
                for connection in connections:
                    with suppress(OSError):
                        connection.sendall(drip)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield connections
        finally:
            over.set()
            thread.join()


CROWDS = {
    "nothing": (b"", b""),
    "slow heads": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
    "slow bodies": (POST + b"Content-Length: 8000000\r\n\r\n" + bytes(1000), bytes(10)),
    "slow studies": (STUDY, b"1\r\nx\r\n"),
    "studies of empty files": (STUDY, b"%x\r\n%b\r\n" % (len(EMPTY_FILE), EMPTY_FILE)),
    "chunks without end": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "bodies that are held back": (POST + b"Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n", b""),
    "bodies of what has none": (b"GET /models HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n", bytes(10)),
    "requests behind one another": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 500, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
}


@pytest.mark.parametrize("case", CROWDS)
def test_crowds_that_keep_connections(target: Target, case: str) -> None:
    """200 connections, of which the server keeps as many as it states; others are served beside them at once."""
    first, drip = CROWDS[case]
    before, sockets = target.memory, target.count_connections()
    with WebWitness(target) as witness, crowd(target, 200, first, drip):
        time.sleep(1.5)
        assert target.count_connections() - sockets <= MOST_CONNECTIONS + CHANGING
        wait_until(lambda: len(witness.seconds["web"]) > 10)
    figures(witness, before)
    witness.check()
    assert witness.most_memory - before < MOST_MEMORY


def test_more_bytes_than_there_is_room_for(target: Target) -> None:
    """100 bodies of 8 MB that come as fast as they can, again and again: some are refused, and memory has a bound."""
    body = POST + b"Content-Length: 8000000\r\n\r\n" + bytes(8_000_000)
    over = threading.Event()
    statuses: Counter[bytes] = Counter()

    def send() -> None:
        while not over.is_set():
            with suppress(OSError), target.dial() as connection:
                connection.sendall(body)
                statuses[connection.recv(12)] += 1

    before = target.memory
    threads = [threading.Thread(target=send) for _ in range(100)]
    with WebWitness(target) as witness:
        for thread in threads:
            thread.start()
        time.sleep(4)
        over.set()
        for thread in threads:
            thread.join()
    figures(witness, before)
    assert witness.most_memory - before < find_most_message_memory(ServerConfig(http="127.0.0.1:8000"), workers=2)
    assert set(statuses) <= {b"HTTP/1.1 415", b"HTTP/1.1 503", b""}


def test_bodies_of_one_byte_a_chunk(target: Target) -> None:
    """16 connections that send nothing else: they are refused, and come again."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            with suppress(OSError), target.dial() as connection:
                connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
                while not over.is_set():
                    connection.sendall(b"1\r\nx\r\n" * 20_000)

    before = target.memory
    threads = [threading.Thread(target=send) for _ in range(16)]
    with WebWitness(target) as witness:
        for thread in threads:
            thread.start()
        time.sleep(1)
        over.set()
        for thread in threads:
            thread.join()
    figures(witness, before)
    witness.check()


def test_answers_that_nobody_takes(target: Target) -> None:
    """The page, again and again on each of 128 connections."""
    before = target.memory
    requests = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2000
    with WebWitness(target) as witness, ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            connection = stack.enter_context(target.dial())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.send(requests)
        time.sleep(2)
    figures(witness, before)
    witness.check()
    assert witness.most_memory - before < MOST_MEMORY


def test_log_does_not_grow_with_what_is_no_call(target: Target) -> None:
    """Unknown paths, faulty heads, damaged forms: no line but those of calls, and of these so many a second."""

    def count_lines() -> int:
        """Without those of answers: of the test before, some may still be on their way here."""
        return sum("code=OK" not in line for line in target.server.log)

    lines = count_lines()
    for request in (
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET / HTTP/3.3\r\nHost: x\r\n\r\n",
    ):
        for _ in range(100):
            with target.dial() as connection:
                connection.sendall(request + b"\n")
                connection.recv(100)
    time.sleep(0.2)
    assert count_lines() == lines

    body = POST.replace(b"image/png", b"multipart/form-data; boundary=x") + b"Content-Length: 4\r\n\r\n--y\n"
    for _ in range(300):
        with target.dial() as connection:
            connection.sendall(body)
            assert connection.recv(12) == b"HTTP/1.1 400"
    assert count_lines() - lines < 150


def test_nothing_of_an_upload_is_written_anywhere(tiny_models: Path, tmp_path: Path) -> None:
    """No file is made, in the folder for what is temporary or another one, and none is open for writing but the log."""
    port = find_free_port()
    flags = ["--http", f"127.0.0.1:{port}", "--cache", "off", "--admin", "off"]
    with run_server(tiny_models, *flags, TMPDIR=str(tmp_path)) as server:
        target = Target(server, port)
        large = encode(np.random.RandomState(0).randint(0, 255, (1500, 1500)).astype(np.uint8))
        opened: set[str] = set()
        for _ in range(5):
            with target.dial() as connection:
                connection.sendall(POST + f"Content-Length: {len(large)}\r\n\r\n".encode() + large[:-1])
                opened |= list_written(server.process.pid)
                connection.sendall(large[-1:])
                assert connection.recv(12) == b"HTTP/1.1 200"
        written = Path(f"/proc/{server.process.pid}/io").read_text()
    assert opened == set()
    assert list(tmp_path.iterdir()) == []
    assert int(re.findall(r"^write_bytes: (\d+)", written, re.MULTILINE)[0]) < len(large)


def list_written(pid: int) -> set[str]:
    """Files of a process that are open for writing."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            name = os.readlink(f"/proc/{pid}/fd/{number}")
            flags = re.findall(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{number}").read_text())
            if name.startswith("/") and not name.startswith("/dev/") and int(flags[0], 8) & (os.O_WRONLY | os.O_RDWR):
                found.add(name)
    return found


def test_who_does_not_shake_hands_keeps_no_place(tiny_models: Path, tmp_path: Path) -> None:
    """With TLS: 400 connections that say nothing are counted before they are anything; others are served meanwhile."""
    pair = issue_server()
    for name, content in (("server.pem", chain(pair)), ("server.key", key(pair))):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    port = find_free_port()
    flags = (
        "--tls-cert",
        f"{tmp_path}/server.pem",
        "--tls-key",
        f"{tmp_path}/server.key",
        "--http",
        f"127.0.0.1:{port}",
    )
    context = ssl.create_default_context(cadata=CA.decode())
    with run_server(tiny_models, *flags) as server:
        target = Target(server, port)
        before, sockets = target.memory, target.count_connections()
        with crowd(target, 400, b"\x16"):
            assert target.count_connections() - sockets <= MOST_CONNECTIONS + CHANGING
            for _ in range(5):
                connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
                connection.request("POST", "/predict", IMAGE, {"content-type": "image/png"})
                assert connection.getresponse().status == 200
                connection.close()
            print(f"FIGURES +{(target.memory - before) / 1e6:.0f} MB")
            assert target.memory - before < MOST_MEMORY
        assert not [line for line in server.log if " WARNING " in line or " ERROR " in line]
        assert server.stop() == 0
