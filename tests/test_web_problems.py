"""Every error that the server can raise has a status of HTTP that fits it, and docs/http.md says which."""

from __future__ import annotations

import ast
import asyncio
import re
from functools import cache
from typing import Any

import pytest
from starlette.requests import Request

from server import errors
from server.admission.status import STATUS_CODES, Status, to_status
from server.errors import StrokeError
from server.web.face import fail
from server.web.problems import describe_problem, find_http_status, make_problem
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "http.md").read_text("utf-8")
ELSEWHERE = {
    "TOO_MANY_CHECKS": "of gRPC's health",
    "TOKEN_REVOKED": "of streams: who is not known any more is TOKEN_WRONG",
    "CALLER_GONE": "nobody is there to read it",
    "CONNECTION_OLD": "of streams: over HTTP the last answer says Connection: close",
}
"""Reasons that no caller of HTTP sees."""

CHANGES = "FAILED_PRECONDITION"
"""Of changes of models, which are not made over HTTP; and of these, of what a model cannot do:"""

INCAPABLE = ("MODEL_WITHOUT_STUDIES", "MODEL_CANNOT_EXPLAIN")
OF_DICOM, AT_FAULT = "DICOM_", 422
"""Reasons that begin so are listed by docs/dicom.md, but for those with another status."""


@cache
def list_raised() -> dict[str, set[str]]:
    """Each reason that is written in the server, with the codes under which it is."""
    codes = {kind.__name__: code for kind, code in STATUS_CODES.items()}
    found: dict[str, set[str]] = {}
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                texts = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
                if name in codes and texts and isinstance(texts[0], str):
                    found.setdefault(texts[0], set()).add(codes[name])
                elif name == "Status" and len(texts) == 2:
                    found.setdefault(texts[1], set()).add(texts[0])
    return found


@cache
def list_documented() -> dict[str, int]:
    """Each reason of the page's table, with its status."""
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGE, re.MULTILINE)
    return {reason: int(number) for number, reasons in rows for reason in re.findall(r"`([A-Z_0-9]+)`", reasons)}


def test_page_has_every_reason_with_its_status() -> None:
    """And none that there is not."""
    stated = {
        reason: {find_http_status(Status(code, reason, "")) for code in codes}
        for reason, codes in list_raised().items()
        if reason not in ELSEWHERE and (codes != {CHANGES} or reason in INCAPABLE)
    }
    stated = {
        reason: found for reason, found in stated.items() if not reason.startswith(OF_DICOM) or found != {AT_FAULT}
    }

    assert {reason: {number} for reason, number in list_documented().items()} == stated
    assert set(ELSEWHERE) <= list_raised().keys()


def test_every_kind_of_error_has_a_status() -> None:
    """Also with a reason that nobody has thought of yet."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StrokeError)]
    found: dict[str, int] = {}
    for kind in kinds:
        if kind not in (StrokeError, errors.ModelFileError):
            found[kind.__name__] = find_http_status(to_status(kind("NEW_REASON", "A sentence."), "id"))

    assert found == {
        "ImageError": 400,
        "RequestError": 400,
        "IntegrityError": 422,
        "ModelNotFoundError": 404,
        "OverloadedError": 503,
        "BudgetExceededError": 504,
        "UnavailableError": 503,
        "UnauthenticatedError": 401,
        "ForbiddenError": 403,
        "ChangeRefusedError": 409,
        "DisabledError": 501,
        "IncapableModelError": 409,
    }


@pytest.mark.parametrize("error", [RuntimeError("secret"), MemoryError(), errors.ModelFileError("X", "/a/path")])
def test_fault_of_the_server_says_nothing_of_it(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """500 with the id under which the log has more; memory that is short is gone in a moment."""
    problem = describe_problem(to_status(error, "f00"), "f00")

    assert (problem["status"], problem["reason"]) == (
        (503, "MEMORY_SHORT") if isinstance(error, MemoryError) else (500, "INTERNAL")
    )
    assert "secret" not in str(problem)
    assert "/a/path" not in str(problem)
    assert "f00" in caplog.text


@pytest.mark.parametrize(
    ("milliseconds", "header"), [(0, None), (1, "1"), (250, "1"), (1000, "1"), (1001, "2"), (30_000, "30")]
)
def test_when_to_come_again(milliseconds: int, header: str | None) -> None:
    """In whole seconds, never fewer than it takes; in milliseconds beside it. Nothing where it would not help."""
    status = Status("RESOURCE_EXHAUSTED", "QUEUE_FULL", "Full.", milliseconds)
    members: dict[str, Any] = describe_problem(status, "id")

    assert make_problem(status, "id").headers.get("retry-after") == header
    assert members.get("retry_after_ms", 0) == milliseconds
    assert members["title"] == "Service Unavailable"


def test_fault_outside_of_every_call(caplog: pytest.LogCaptureFixture) -> None:
    """As one inside: 500, and the traceback is in the log."""
    response = asyncio.run(fail(Request({"type": "http"}), RuntimeError("secret")))

    assert response.status_code == 500
    assert b"secret" not in bytes(response.body)
    assert "secret" in caplog.text
