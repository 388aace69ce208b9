"""A plugin of Orthanc, in its Python: has studies judged by StrokeServe, stores the results beside them, and shows what
came of each on a page, /strokeserve/.

Nothing of StrokeServe is imported: the gateway's command runs in its own environment (settings: StrokeServe in
orthanc.json), so that Orthanc's Python need not be of the same version. No patient is named in Orthanc's log.
Research software. Not a medical device, not for diagnosis.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import orthanc

sys.dont_write_bytecode = True  # who runs Orthanc should not be able to write here

import strokeserve_page as page  # noqa: E402
from strokeserve_gateway import Archive, JudgeError, Settings  # noqa: E402
from strokeserve_worker import HOUR, Worker  # noqa: E402

ROOT = "/strokeserve"


class OwnArchive(Archive):
    """The Orthanc that runs this."""

    def get(self, path: str) -> Any:
        try:
            return json.loads(orthanc.RestApiGet(path))
        except orthanc.OrthancException:
            return None

    def read_dicom(self, instance: str) -> bytes | None:
        try:
            data: bytes = orthanc.GetDicomForInstance(instance)
        except orthanc.OrthancException:
            return None
        return data

    def store(self, data: bytes) -> str:
        try:
            return str(json.loads(orthanc.RestApiPost("/instances", data))["ID"])
        except orthanc.OrthancException:
            raise JudgeError("RESULT_NOT_STORED", passes=True) from None

    def write_metadata(self, study: str, name: str, value: str) -> None:
        with suppress(orthanc.OrthancException):
            orthanc.RestApiPut(f"/studies/{study}/metadata/{name}", value.encode())

    def read_property(self, number: int) -> str:
        return str(orthanc.GetGlobalProperty(number, ""))

    def write_property(self, number: int, value: str) -> None:
        orthanc.SetGlobalProperty(number, value)


def read_settings(configuration: dict[str, Any]) -> Settings:
    """Settings by Orthanc's configuration.

    Raises:
        ValueError: one is missing, or none that can be used; the text names it.
    """
    own = configuration.get("StrokeServe", {})
    unknown = own.keys() - {"Python", "Directory", "Scratch", "Arguments", "TimeoutSeconds", "GiveUpHours"}
    if unknown:
        raise ValueError(f"StrokeServe has no setting {sorted(unknown)[0]}")
    for name in ("Python", "Directory", "Scratch"):
        if not isinstance(own.get(name), str) or not Path(own[name]).is_absolute():
            raise ValueError(f"StrokeServe.{name} must be an absolute path")
    arguments = own.get("Arguments", [])
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        raise ValueError("StrokeServe.Arguments must be a list of texts, as they are typed behind judge")
    if not (Path(own["Directory"]) / "gateway").is_dir():
        raise ValueError("StrokeServe.Directory must be where StrokeServe is installed")
    seconds, hours = own.get("TimeoutSeconds", 900), own.get("GiveUpHours", 24)
    for name, value in (("TimeoutSeconds", seconds), ("GiveUpHours", hours)):
        if not isinstance(value, int | float) or not 0 < value < 1e6:
            raise ValueError(f"StrokeServe.{name} must be a number above 0")
    return Settings(
        command=(own["Python"], *arguments),
        directory=Path(own["Directory"]),
        scratch=Path(own["Scratch"]),
        timeout=seconds,
        give_up=hours * HOUR,
        stable_age=configuration.get("StableAge", 60),
    )


def note(line: str) -> None:
    """Writes a line to Orthanc's log."""
    orthanc.LogWarning(f"strokeserve: {line}")


def on_change(kind: Any, level: Any, resource: str) -> None:
    """Tells the worker that there may be something to do; nothing is waited for here."""
    if kind == orthanc.ChangeType.ORTHANC_STARTED:
        WORKER.start()
    elif kind == orthanc.ChangeType.ORTHANC_STOPPED:
        WORKER.stop()
    elif kind == orthanc.ChangeType.STABLE_STUDY:
        WORKER.wake.set()


def on_request(output: Any, uri: str, **request: Any) -> None:
    """Answers a request below /strokeserve."""
    try:
        answer = page.answer(ARCHIVE, WORKER, request["method"], uri[len(ROOT) :].strip("/"), request)
    except Exception as error:  # whose text, with what it was about, Orthanc would log
        note(f"a request failed: {type(error).__name__}")
        answer = page.Answer(b"", status=500)
    for name, value in answer.headers.items():
        output.SetHttpHeader(name, value)
    if answer.status == 200:
        output.AnswerBuffer(answer.body, answer.kind)
    elif answer.status == 405:
        output.SendMethodNotAllowed(answer.headers["Allow"])
    else:
        output.SendHttpStatus(answer.status, answer.body.decode("ascii"), len(answer.body))


ARCHIVE = OwnArchive()
WORKER = Worker(ARCHIVE, read_settings(json.loads(orthanc.GetConfiguration())), note)
orthanc.RegisterOnChangeCallback(on_change)
orthanc.RegisterRestCallback(f"{ROOT}(/.*)?", on_request)
orthanc.SetRootUri(f"{ROOT}/index.html")
