"""A DICOMweb service for tests: the strict worklist, and an archive of instances, over HTTP."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

from tests.dicom_files import make_item
from tests.studies import SERIES, STUDY
from tests.ups_worklist import RefusalError, StrictWorklist, Task

BASE = "/dicom-web"
JSON = "application/dicom+json"
TASK = "2.25.100"
CODE = {"CodeValue": "110004", "CodingSchemeDesignator": "DCM", "CodeMeaning": "Computer Aided Detection"}


@dataclass
class Service:
    """What the handlers share."""

    url: str = ""
    worklist: StrictWorklist = field(default_factory=StrictWorklist)
    instances: dict[str, bytes] = field(default_factory=dict)
    """Files that WADO-RS gives, by SOPInstanceUID."""

    stored: list[str] = field(default_factory=list)
    """UIDs of what came by STOW-RS, in the order in which it came."""

    requests: list[str] = field(default_factory=list)
    """Method and path, with its query."""

    tokens: set[str] = field(default_factory=set)
    hooks: list[Callable[[Handler], bool]] = field(default_factory=list)
    """Look at each request first; one that returns True has answered it."""

    def count(self, pattern: str) -> int:
        """Requests that match."""
        return sum(re.search(pattern, one) is not None for one in self.requests)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    service: Service

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        self.service.requests.append(f"{self.command} {self.path}")
        self.service.tokens.add(self.headers.get("Authorization", ""))
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if any(hook(self) for hook in self.service.hooks):
            return
        parts = urlsplit(self.path)
        names = unquote(parts.path.removeprefix(BASE)).strip("/").split("/")
        try:
            with self.service.worklist.lock:
                handle = self.answer_workitems if names[0] == "workitems" else self.answer_studies
                handle(names[1:], {key: values[0] for key, values in parse_qs(parts.query).items()})
        except RefusalError as why:
            self.answer(why.status, warning=f"299 {self.service.url}: {why.warning}")

    do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

    def answer_workitems(self, names: list[str], query: dict[str, str]) -> None:
        worklist = self.service.worklist
        if self.command in ("GET", "PUT") and JSON not in self.headers.get("Accept", ""):
            raise RefusalError(406, "")
        if self.command in ("POST", "PUT") and self.body and self.headers.get("Content-Type") != JSON:
            raise RefusalError(415, "")
        match (self.command, *names):
            case ("GET",):
                found = worklist.search(query)
                self.answer(200 if found else 204, json.dumps(found).encode() if found else b"")
            case ("GET", uid):
                self.answer(200, json.dumps([worklist.find(uid).dataset]).encode())
            case ("POST", uid):
                worklist.update(uid, query.get("transaction-uid", ""), json.loads(self.body))
                self.answer(200)
            case ("PUT", uid, "state"):
                is_new = worklist.change_state(uid, json.loads(self.body))
                self.answer(200, warning="" if is_new else "299 : The UPS is already in the requested state")
            case ("POST", uid, "cancelrequest"):
                worklist.request_cancel(uid, json.loads(self.body or b"{}"))
                self.answer(202)
            case ("POST", "1.2.840.10008.5.1.4.34.5", "subscribers", title):
                worklist.subscribers.setdefault(title, None)
                self.answer(201)
            case ("DELETE", "1.2.840.10008.5.1.4.34.5", "subscribers", title):
                del worklist.subscribers[title]
                self.answer(200)
            case _:
                raise RefusalError(404, "")

    def answer_studies(self, names: list[str], query: dict[str, str]) -> None:
        if self.command == "POST" and not names:
            self.take_instances()
            return
        wanted = dict(zip(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"), names[::2], strict=False))
        found = [file for file in self.service.instances.values() if is_part(file, wanted)]
        if not found:
            raise RefusalError(404, "")
        parts = [b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in found]
        self.answer(
            200, b"".join(parts) + b"--cut--\r\n", kind='multipart/related; type="application/dicom"; boundary=cut'
        )

    def take_instances(self) -> None:
        boundary = re.search("boundary=([0-9a-f]+)", self.headers["Content-Type"])
        assert boundary is not None
        for part in self.body.split(f"--{boundary[1]}".encode())[1:-1]:
            file = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            uid = str(pydicom.dcmread(DicomBytesIO(file)).SOPInstanceUID)
            self.service.stored.append(uid)
            self.service.instances[uid] = file
        self.answer(200, b"{}")

    def answer(self, status: int, body: bytes = b"", *, kind: str = JSON, warning: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if body:
            self.send_header("Content-Type", kind)
        if warning:
            self.send_header("Warning", warning)
        self.end_headers()
        self.wfile.write(body)


def is_part(file: bytes, wanted: dict[str, str]) -> bool:
    """Whether a file is of a study, series or instance."""
    header = pydicom.dcmread(DicomBytesIO(file), stop_before_pixels=True)
    return all(str(header[keyword].value) == uid for keyword, uid in wanted.items())


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that go before they have read all."""

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def run_service(files: list[bytes] | None = None, **options: Any) -> Iterator[Service]:
    """A service on a free port of this machine."""
    service = Service()
    for file in files or []:
        service.instances[str(pydicom.dcmread(DicomBytesIO(file)).SOPInstanceUID)] = file
    handler = type("Bound", (Handler,), {"service": service})
    server = QuietServer(("127.0.0.1", 0), handler)
    scheme = "http"
    if context := options.get("tls"):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    server.daemon_threads = True
    service.url = f"{scheme}://127.0.0.1:{server.server_address[1]}{BASE}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_task(uid: str = TASK, *, study: str = STUDY, series: str = SERIES, url: str = "", **tags: Any) -> Dataset:
    """A task about a series; by ``tags`` with other elements, or without those that are None."""
    source: dict[str, Any] = {"TypeOfInstances": "DICOM", "StudyInstanceUID": study, "SeriesInstanceUID": series}
    if url:
        source["WADORSRetrievalSequence"] = [make_item(RetrieveURL=url)]
    usual: dict[str, Any] = {
        "SOPClassUID": "1.2.840.10008.5.1.4.34.6.1",
        "SOPInstanceUID": uid,
        "PatientName": "Doe^Jane",
        "PatientID": "4711",
        "ProcedureStepState": "SCHEDULED",
        "InputReadinessState": "READY",
        "ScheduledProcedureStepPriority": "MEDIUM",
        "ScheduledProcedureStepStartDateTime": "20200101120000",
        "WorklistLabel": "STROKE",
        "ScheduledWorkitemCodeSequence": [make_item(**CODE)],
        "InputInformationSequence": [make_item(**source)],
    }
    return make_item(**{name: value for name, value in (usual | tags).items() if value is not None})


def add_task(service: Service, uid: str = TASK, **tags: Any) -> Task:
    """Puts a task on the worklist."""
    return service.worklist.add(make_task(uid, **tags))
