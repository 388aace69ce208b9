"""A server with HTTP for tests, and requests of it. Each answer is held against what /openapi.json says of it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from server.config import ServerConfig
from server.lifecycle.app import Application
from server.machine.memory import return_freed_memory
from server.machine.processors import count_processors
from tests.fakes import wait_until
from tests.scraping import find_free_port

TIMEOUT = 60
BOUNDARY = "boundary-of-a-form"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
EVERY_ANSWER = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
UNDESCRIBED = ("PATH_UNKNOWN", "METHOD_UNKNOWN")
"""What is no answer of an operation."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""

    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def outcome(self) -> tuple[int, str]:
        """Status and reason of a problem, or status and class of a judgement."""
        return self.status, self.json.get("reason") or self.json.get("class")


@dataclass
class WebServer:
    """A server in this process."""

    port: int
    socket: str
    """Of gRPC."""

    application: Application
    thread: threading.Thread
    context: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        if self.context is not None:
            return http.client.HTTPSConnection("localhost", self.port, timeout=TIMEOUT, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def dial(self) -> socket.socket:
        """A connection on which a test says what it likes."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def ask(self, verb: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Makes a request on a connection of its own. Names of headers have underscores."""
        connection = self.connect()
        try:
            connection.request(verb, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            answer = read_answer(connection)
        finally:
            connection.close()
        if verb != "HEAD":
            self.check(verb, path, answer)
        return answer

    def post_image(self, image: bytes, query: str = "", **headers: str) -> Answer:
        return self.ask("POST", f"/predict{query}", image, **{"content_type": "image/png", **headers})

    def post_form(self, path: str, *parts: tuple[str, bytes | str], **headers: str) -> Answer:
        return self.ask("POST", path, make_form(*parts), content_type=FORM, **headers)

    @cached_property
    def document(self) -> Any:
        connection = self.connect()
        connection.request("GET", "/openapi.json")
        found = read_answer(connection).json
        connection.close()
        return found

    def check(self, verb: str, path: str, answer: Answer) -> None:
        """Holds an answer against the description."""
        kind = answer.headers["content-type"].partition(";")[0]
        assert set(EVERY_ANSWER.items()) <= answer.headers.items()
        assert answer.headers["date"]
        found = [
            name
            for name in self.document["paths"]
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", name), path.partition("?")[0])
        ]
        if kind == "application/problem+json":
            self.validate({"$ref": "#/components/schemas/Problem"}, answer.json)
            assert answer.json["status"] == answer.status
            assert answer.headers["stroke-reason"] == answer.json["reason"]
            if answer.json["reason"] in UNDESCRIBED:
                return
        if found:
            described = self.document["paths"][found[0]][verb.lower()]["responses"][str(answer.status)]
            schema = described["content"][kind]["schema"]
            if kind.endswith("json"):
                self.validate(schema, answer.json)

    def validate(self, schema: Any, content: Any) -> None:
        Draft202012Validator({**schema, "components": self.document["components"]}).validate(content)

    def stop(self) -> None:
        with suppress(RuntimeError):  # it has stopped already
            self.application.stop()
        self.thread.join()


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    headers = {key.lower(): value for key, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def make_form(*parts: tuple[str, bytes | str]) -> bytes:
    """A form of fields by name and content; what is bytes is a file."""
    body = b""
    for name, content in parts:
        file = '; filename="scan.png"\r\nContent-Type: image/png' if isinstance(content, bytes) else ""
        data = content if isinstance(content, bytes) else content.encode()
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def serve_web(
    models: Path, folder: Path, context: ssl.SSLContext | None = None, host: str = "127.0.0.1", **settings: Any
) -> Iterator[WebServer]:
    """Runs a server in this process as long as the block lasts.

    Args:
        models: its models folder.
        folder: where the socket of gRPC may be.
        context: of clients, where it has TLS.
        host: where HTTP is listened.
        settings: others of ``ServerConfig``.
    """
    # As a server's own process does, which tells by small blocks what arrives: large ones of this caller are not such.
    return_freed_memory(count_processors())
    port = find_free_port()
    address = f"unix:{folder / 'socket'}"
    application = Application(ServerConfig(models=models, host=address, http=f"{host}:{port}", **settings))
    thread = threading.Thread(target=application.run)
    thread.start()
    server = WebServer(port, address, application, thread, context)
    try:
        wait_until(lambda: is_ready(application, thread))
        yield server
    finally:
        server.stop()


def is_ready(application: Application, thread: threading.Thread) -> bool:
    assert thread.is_alive(), "the server has ended"
    return hasattr(application, "_health") and application._health.is_serving
