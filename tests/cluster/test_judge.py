"""What an archive is answered is what the server answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.archive.judge import Judge
from cluster.archive.rows import make_schema
from server.images.image_file import DEFAULT_LIMITS
from tests.cluster.archives import drop_measured, judge_alone, make_archive, make_job, make_models
from tests.fakes import encode, make_slice, run_server
from tests.tracing import ROOT


def test_rows_are_what_the_client_prints(tmp_path: Path) -> None:
    """Field by field, but for what was measured and the id; nothing that the client says is missing."""
    archive, models = make_archive(tmp_path), make_models(tmp_path)
    (archive / "empty.jpg").unlink()  # which the client does not send

    with run_server(models) as server:
        command = [sys.executable, "-m", "client", "--json", "--recursive", "--each", str(archive)]
        command += ["--server", server.address]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    answers = {answer["file"]: answer for answer in map(json.loads, printed.splitlines())}
    rows = {row["file"]: row for row in judge_alone(make_job(archive, models, tmp_path / "out")).to_pylist()}

    linked = {str(archive / "link.png")}
    assert rows.keys() == answers.keys() - linked
    for file, row in rows.items():
        answer = answers[file]
        assert answer.keys() <= row.keys()
        for own in ("timings_ms", "request_id"):
            answer.pop(own, None), row.pop(own)
        assert {name: row[name] for name in answer} == answer
        assert all(row[name] in (None, []) for name in row.keys() - answer.keys())


def test_the_same_file_is_answered_the_same_to_the_bit(tmp_path: Path) -> None:
    """However often."""
    job = make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out")

    assert drop_measured(judge_alone(job)).equals(drop_measured(judge_alone(job)))


def test_bad_files_are_rows_with_their_reason(tmp_path: Path) -> None:
    """Those included that have gone since the run began, or that are too large to be read."""
    archive = make_archive(tmp_path)
    (archive / "large.png").write_bytes(bytes(DEFAULT_LIMITS.max_bytes + 10))
    job = make_job(archive, make_models(tmp_path), tmp_path / "out")
    (archive / "p0" / "0000.jpeg").unlink()

    rows = {Path(row["file"]).name: row for row in Judge(job).judge(0)}

    assert {name: row["reason"] for name, row in rows.items() if "error" in row} == {
        "0000.jpeg": "IMAGE_UNREADABLE",
        "cut.png": "IMAGE_TRUNCATED",
        "empty.jpg": "IMAGE_EMPTY",
        "junk.png": "IMAGE_UNDECODABLE",
        "large.png": "IMAGE_TOO_LARGE",
    }
    assert rows["large.png"]["file_bytes"] == DEFAULT_LIMITS.max_bytes + 10


def test_a_file_at_which_the_program_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an id under which the log has the traceback; the files after it are judged."""
    judge = Judge(make_job(make_archive(tmp_path), make_models(tmp_path), tmp_path / "out"))
    first = judge.judge(0)[0]["file"]
    detect = judge._detector.detect_here

    def fail_once(data: bytes, *rest: object) -> object:
        monkeypatch.setattr(judge._detector, "detect_here", detect)
        raise ZeroDivisionError

    monkeypatch.setattr(judge._detector, "detect_here", fail_once)
    rows = judge.judge(0)

    assert (rows[0]["file"], rows[0]["reason"], rows[0]["request_id"]) == (first, "INTERNAL", "000000-000000")
    assert sum("error" in row for row in rows) == 3


def test_names_that_are_no_text_are_shown_escaped(tmp_path: Path) -> None:
    """Linux lets files have any name."""
    archive = tmp_path / "archive"
    archive.mkdir()
    (Path(str(archive)) / b"b\xff.png".decode("utf-8", "surrogateescape")).write_bytes(encode(make_slice()))
    job = make_job(archive, make_models(tmp_path), tmp_path / "out")

    table = judge_alone(job)

    assert table.column("file").to_pylist() == [f"{archive}/b\\udcff.png"]
    assert table.column("error").to_pylist() == [None]


def test_every_class_of_a_model_has_a_column() -> None:
    """As in the client's tables."""
    names = make_schema(("normal", "bleed", "other")).names

    assert [name for name in names if name.startswith("p_")] == ["p_normal", "p_bleed", "p_other"]
