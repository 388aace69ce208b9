"""The table from errors to codes, and what an unexpected error shows."""

from __future__ import annotations

import logging

import pytest

from server import errors
from server.admission.ids import printable_id
from server.admission.status import STATUS_CODES, to_status


def test_every_domain_error_that_a_request_can_raise_has_a_code() -> None:
    """A new error class cannot be forgotten; only model files are never a request's fault."""
    classes = set(errors.StrokeError.__subclasses__()) - {errors.ModelFileError}

    assert classes == set(STATUS_CODES)


@pytest.mark.parametrize("error_class", STATUS_CODES)
def test_domain_error_keeps_reason_and_message(error_class: type[errors.StrokeError]) -> None:
    """What was written for the caller reaches the caller."""
    status = to_status(error_class("SOME_REASON", "A sentence."), "id")

    assert (status.code, status.reason, status.message) == (STATUS_CODES[error_class], "SOME_REASON", "A sentence.")


@pytest.mark.parametrize(
    "error", [RuntimeError("/etc/secret patient=Jane"), errors.ModelFileError("X", "/srv/models/a.onnx")]
)
def test_unexpected_error_shows_an_id_and_nothing_else(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a fixed text; the log has the traceback under the same id."""
    with caplog.at_level(logging.ERROR):
        status = to_status(error, "4711")

    assert status.code == "INTERNAL"
    assert status.message == "Internal error of the server (id 4711)."
    assert "id=4711" in caplog.text
    assert str(error) in caplog.text


def test_short_memory_is_the_servers_fault_and_passes(caplog: pytest.LogCaptureFixture) -> None:
    """The caller may send the same request again; whoever runs the server finds the cause in the log."""
    with caplog.at_level(logging.ERROR):
        status = to_status(MemoryError("/etc/secret"), "4711")

    assert (status.code, status.reason) == ("RESOURCE_EXHAUSTED", "MEMORY_SHORT")
    assert "secret" not in status.message
    assert "id=4711" in caplog.text
    assert "MemoryError" in caplog.text


@pytest.mark.parametrize(("given", "kept"), [("abc-1", "abc-1"), ("a\nb", ""), ("é", ""), ("x" * 129, "")])
def test_id_that_could_forge_a_log_line_is_dropped(given: str, kept: str) -> None:
    """Log lines stay lines."""
    assert printable_id(given) == kept
