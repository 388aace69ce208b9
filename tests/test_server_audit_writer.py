"""What the audit log says of an image, and how its files are kept."""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from server.audit.family import beside, read_head
from server.audit.writer import AuditLog, AuditOptions
from server.core.outcomes import Caller
from server.images.checks import Reason
from tests.audit_logs import (
    CALLER,
    DAY,
    DIGEST,
    JANUARY,
    ended,
    find_faults,
    judged,
    list_events,
    list_files,
    open_log,
    read_log,
    set_clock,
    tiny_model,
    write_log,
)
from tests.fakes import ROOT, wait_until


def record(path: Path, *outcomes: Any, **options: Any) -> list[dict[str, Any]]:
    """The lines about images that a log makes of outcomes."""
    with open_log(path, **options) as log:
        for outcome in outcomes:
            log.note(outcome)
    assert find_faults(path) == []
    return [line for line in read_log(path) if line["event"] == "image"]


def test_line_says_what_was_judged_by_what_for_whom(tmp_path: Path) -> None:
    """All that is needed to answer for it later."""
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    (line,) = record(tmp_path / "audit", judged("req-1", trace=trace), is_salted=False)

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert all(len(line.pop(name)) == 64 for name in ("prev", "hash"))
    assert 12 < line.pop("ms") < 13
    assert line == {
        "seq": 2,
        "event": "image",
        "id": "req-1",
        "method": "Predict",
        "code": "OK",
        "client": "ward-3",
        "peer": "ipv4:10.0.0.7:40000",
        "trace": trace,
        "image_sha256": DIGEST,
        "status": "ANALYSED",
        "model": "tiny",
        "version": "1",
        "digest": tiny_model().digest,
        "precision": tiny_model().options.precision,
        "label": "stroke",
        "positive_label": "stroke",
        "positive_probability": 0.75,
        "threshold": 0.05,
    }


def test_refused_image_has_reason_and_hash_but_no_label(tmp_path: Path) -> None:
    """One that was not analysed has its reasons; one that was never looked at has no hash."""
    damaged, not_analysed, unseen = record(
        tmp_path / "audit",
        ended("a", "INVALID_ARGUMENT", "IMAGE_DAMAGED"),
        judged("b", reasons=(Reason("IMAGE_BLANK", "It is blank."),)),
        ended("c", "RESOURCE_EXHAUSTED", "QUEUE_FULL", image_sha256=""),
        is_salted=False,
    )

    assert (damaged["code"], damaged["reason"], damaged["image_sha256"]) == (
        "INVALID_ARGUMENT",
        "IMAGE_DAMAGED",
        DIGEST,
    )
    page = (ROOT / "docs" / "audit.md").read_text("utf-8")
    assert [name for name in damaged | not_analysed if f"`{name}`" not in page] == []
    assert not {"label", "status", "model"} & damaged.keys()
    assert (not_analysed["status"], not_analysed["reasons"], not_analysed["label"]) == (
        "NOT_ANALYSED",
        ["IMAGE_BLANK"],
        "",
    )
    assert not_analysed["positive_probability"] == 0.75
    assert "image_sha256" not in unseen


def test_calls_without_an_image_have_no_line(tmp_path: Path) -> None:
    """Lists of models, and the ends of streams whose images were told of one by one."""
    assert record(tmp_path / "audit", ended(is_image=False)) == []


def test_address_of_the_caller_is_left_out_on_demand(tmp_path: Path) -> None:
    """It may be somebody's desk."""
    (line,) = record(tmp_path / "audit", judged(), with_peer=False)

    assert "peer" not in line
    assert line["client"] == "ward-3"
    assert CALLER.peer not in (tmp_path / "audit").read_text()


def test_salted_hash_says_nothing_without_the_salt(tmp_path: Path) -> None:
    """It is an HMAC-SHA256 of the SHA-256; the salt stays the same, and is for nobody else."""
    path = tmp_path / "audit"
    record(path, judged())
    first, second = record(path, judged())
    salt = beside(path, "salt")

    assert DIGEST not in path.read_text()
    assert first["image_hmac_sha256"] == second["image_hmac_sha256"]
    assert first["image_hmac_sha256"] == hmac.digest(bytes.fromhex(salt.read_text()), DIGEST.encode(), "sha256").hex()
    assert stat.S_IMODE(salt.stat().st_mode) == 0o600
    salt.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        AuditLog(AuditOptions(path))
    salt.write_text("no salt\n")
    with pytest.raises(OSError, match="it must hold 64 hexadecimal digits"):
        AuditLog(AuditOptions(path))


@pytest.mark.parametrize("text", ['x","label":"normal', 'x"}\n{"seq":9', "x\u2028y\udc80", "\\", 'hash":"'])
def test_id_cannot_forge_a_field_or_a_line(tmp_path: Path, text: str) -> None:
    """Whatever a caller, or a certificate, has for a name."""
    (line,) = record(tmp_path / "audit", judged(text, caller=Caller(text, text)))

    assert (line["id"], line["client"], line["peer"], line["label"]) == (text, text, text, "stroke")
    assert (tmp_path / "audit").read_bytes().count(b"\n") == 3
    assert (tmp_path / "audit").read_bytes().isascii()


def test_files_are_private(tmp_path: Path) -> None:
    """All of them, whatever they were before, and however many there are."""
    write_log(tmp_path / "audit", 20, most_bytes=4096)
    (tmp_path / "audit").chmod(0o644)
    write_log(tmp_path / "audit", 20, most_bytes=4096)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) >= 8
    assert set(modes.values()) == {0o600}


def test_chain_goes_on_after_a_stop(tmp_path: Path) -> None:
    """The next server ties its lines to those of the one before."""
    write_log(tmp_path / "audit", 1)
    write_log(tmp_path / "audit", 1)

    assert list_events(tmp_path / "audit") == ["begin", "image", "stop", "start", "image", "stop"]
    assert find_faults(tmp_path / "audit") == []


def test_each_day_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By UTC; their names say which day and which line they begin with."""
    path = tmp_path / "audit"
    for day in (0, 0, 1, 3):
        set_clock(monkeypatch, JANUARY + day * DAY)
        write_log(path, 1)

    assert [file.name for file in list_files(path)] == [
        "audit.20260131-000000000001",
        "audit.20260201-000000000007",
        "audit",
    ]
    assert find_faults(path) == []


def test_day_that_ends_within_a_batch_divides_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes back does not."""
    path = tmp_path / "audit"
    set_clock(monkeypatch, JANUARY)
    with open_log(path) as log:
        outcomes = [judged() for _ in range(4)]
        for outcome, hours in zip(outcomes, (0, 11.9, 12.1, 11.8), strict=True):
            object.__setattr__(outcome, "ended", outcome.ended + hours * 3600)
            log.note(outcome)
        wait_until(lambda: log.written == 4)

    assert [len(file.read_bytes().splitlines()) for file in list_files(path)] == [3, 3]


def test_files_are_removed_after_their_time_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify knows then that their lines are missing for a reason, and what the last of them was."""
    path = tmp_path / "audit"
    for day in (0, 1, 29, 31, 60):  # 31 January, 1 February, 1 and 3 March, 1 April
        set_clock(monkeypatch, JANUARY + day * DAY)
        write_log(path, 1, keep_months=1)

    assert [file.name.partition("-")[0] for file in list_files(path)] == ["audit.20260301", "audit.20260303", "audit"]
    assert list_events(path).count("expire") == 2
    assert find_faults(path) == []
    list_files(path)[0].unlink()
    assert "none says that they were removed" in find_faults(path)[0]


def test_clock_that_is_years_ahead_for_once_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may be until a machine has asked for the time."""
    path = tmp_path / "audit"
    for day in (0, 1, 20_000, 2):
        set_clock(monkeypatch, JANUARY + day * DAY)
        write_log(path, 1, keep_months=1)

    assert list_events(path).count("begin") == 1
    assert find_faults(path) == []


def test_files_are_kept_for_ever_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of care are kept for decades."""
    for year in range(3):
        set_clock(monkeypatch, JANUARY + 4000 * year * DAY)
        write_log(tmp_path / "audit", 1)

    assert len(list_files(tmp_path / "audit")) == 3


def test_only_one_server_writes_a_log(tmp_path: Path) -> None:
    """Two would tear the chain."""
    with open_log(tmp_path / "audit"), pytest.raises(OSError, match="another server writes this audit log"):
        AuditLog(AuditOptions(tmp_path / "audit"))
    write_log(tmp_path / "audit")


@pytest.mark.parametrize("kind", ["text", "folder", "pipe", "link"])
def test_what_is_no_audit_log_is_left_alone(tmp_path: Path, kind: str) -> None:
    """A wrong path costs nobody their file."""
    path, other = tmp_path / "audit", tmp_path / "other"
    other.write_text("precious\n")
    if kind == "text":
        path.write_text("precious\n")
        path.chmod(0o644)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)

    with pytest.raises(OSError):  # noqa: PT011
        AuditLog(AuditOptions(path))

    assert other.read_text() == "precious\n"
    if kind == "text":
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("precious\n", 0o644)


def test_reopen_goes_on_in_a_new_file_where_the_old_one_was_moved(tmp_path: Path) -> None:
    """SIGHUP, as log rotation of the system does it."""
    path = tmp_path / "audit"
    with open_log(path) as log:
        log.reopen()
        log.note(judged("before"))
        wait_until(lambda: log.written == 1)
        path.rename(tmp_path / "moved")
        log.reopen()
        log.note(judged("after"))
        wait_until(path.exists)

    assert [line.get("id") for line in read_log(path)] == ["after", None]
    moved = json.loads((tmp_path / "moved").read_text().splitlines()[-1])
    assert read_log(path)[0]["prev"] == moved["hash"]


def test_outcomes_of_many_threads_all_have_a_line(tmp_path: Path) -> None:
    """Workers and the event loop note at once; the head tells of the last line."""
    path = tmp_path / "audit"
    with open_log(path) as log:
        threads = [threading.Thread(target=lambda: [log.note(judged()) for _ in range(300)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    head = read_head(path)

    assert (log.written, log.lost, log.backlog, log.state) == (1200, 0, 0, "ok")
    assert log.last_sync > 0
    assert find_faults(path) == []
    assert head is not None
    assert head.position.hash == read_log(path)[-1]["hash"]
