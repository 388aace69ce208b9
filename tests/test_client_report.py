"""What the command line prints where there is no terminal: lines, JSON, tables, failures, the summary."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from client.cli.main import main
from tests.client_fakes import FakeServer, RefusalError, make_refusal_to_judge, make_response
from tests.command_lines import POSITIVE, run_client
from tests.fakes import ROOT


def test_one_image_is_one_line(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, label, probability, and the model and threshold it was judged by; nothing on stderr; exit 0."""
    assert main(["scans/b.png"]) == 0

    out, err = capsys.readouterr()
    assert out == "scans/b.png: stroke 0.973  P(stroke) 0.973  (stroke-cnn 1, threshold 0.05)\n"
    assert err == ""


def test_json_has_the_documented_shape(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object per line with everything that the server said; probabilities have six decimals."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_BLANK", message="The image is blank.")
        return response

    cli_server.servicer.judge = judge
    os.utime(scans / "b.png", (1_700_000_000, 1_700_000_000))
    assert main(["scans/b.png", "--json", "--model", "resnet", "--model-version", "3"]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    request = cli_server.servicer.requests[0]
    modified = datetime.fromtimestamp(1_700_000_000, UTC)
    assert json.loads(line) == {
        "file": "scans/b.png",
        "label": "stroke",
        "confidence": 0.973,
        "scores": {"normal": 0.027, "stroke": 0.973},
        "threshold": 0.05,
        "model": "resnet",
        "version": "3",
        "digest": "ab" * 32,
        "image_sha256": hashlib.sha256(request.image).hexdigest(),
        "timings_ms": {"decode": 1.5, "queue": 0.25, "inference": 20.125},
        "warnings": [{"reason": "IMAGE_BLANK", "message": "The image is blank."}],
        "request_id": request.id,
        "file_bytes": len(request.image),
        "file_modified": modified.isoformat(timespec="microseconds"),
        "status": "ANALYSED",
        "reasons": [],
        "positive_label": "stroke",
        "positive_labels": ["stroke"],
        "positive_probability": 0.973,
        "outlier_score": 0.0,
        "frame": None,
        "p_normal": 0.027,
        "p_stroke": 0.973,
    }


def test_not_analysed_is_a_class_of_its_own(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line, a record and a row without a label, a count in the summary, and exit status 0: it is an answer."""
    cli_server.servicer.judge = lambda request: (
        make_refusal_to_judge(request) if request.image.endswith((b"a.JPG", b"c.jpeg")) else make_response(request)
    )

    assert main(["scans"]) == 0
    out, err = capsys.readouterr()
    assert "scans/a.JPG: not analysed [NO_HEAD] There is no head.  (stroke-cnn 1)\n" in out
    assert out.count(": stroke 0.973  P(stroke) 0.973  (stroke-cnn 1, threshold 0.05)\n") == 2
    assert err.startswith("4 images: 2 positive (stroke), 2 not analysed, 0 failed; ")

    assert main(["scans/a.JPG", "scans/b.png", "--json"]) == 0
    none, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert (none["label"], none["confidence"], none["status"]) == (None, None, "NOT_ANALYSED")
    assert none["reasons"] == [{"reason": "NO_HEAD", "message": "There is no head."}]
    assert none["scores"] == good["scores"]
    assert (good["status"], good["p_stroke"]) == ("ANALYSED", 0.973)

    assert main(["scans", "--csv", "results.csv"]) == 0
    with open("results.csv", newline="") as table:
        rows = {row["file"]: row for row in csv.DictReader(table)}
    none, good = rows["scans/a.JPG"], rows["scans/b.png"]
    assert (none["label"], none["confidence"], none["status"], none["reason"]) == ("", "", "NOT_ANALYSED", "NO_HEAD")
    assert (none["error"], none["positive_label"], none["p_stroke"]) == ("", "stroke", "0.973")
    assert (good["status"], good["p_stroke"], good["p_normal"]) == ("ANALYSED", "0.973", "0.027")
    out, err = capsys.readouterr()
    assert err.count("not analysed: There is no head. (others like it: see the results)\n") == 1


@pytest.mark.parametrize("flag", ["--output", "--csv"])
def test_not_analysed_is_not_judged_again(flag: str, cli_server: FakeServer, scans: Path) -> None:
    """--resume, with --retry-failed too, takes it for what it is: an answer."""
    cli_server.servicer.judge = make_refusal_to_judge
    assert main(["scans", flag, "results"]) == 0
    assert main(["scans", flag, "results", "--resume", "--retry-failed"]) == 0

    assert len(cli_server.servicer.requests) == 4


def test_warning_of_the_reason_is_not_said_twice(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A blank image is not analysed, and is warned of as well; the sentence that matters is the first."""

    def judge(request):
        response = make_refusal_to_judge(request)
        response.warnings.add(reason="NO_HEAD", message="No head.")
        response.warnings.add(reason="IMAGE_UPSCALED", message="Small.")
        return response

    cli_server.servicer.judge = judge

    assert main(["scans/b.png"]) == 0

    out, err = capsys.readouterr()
    assert out == "scans/b.png: not analysed [NO_HEAD] There is no head.  (stroke-cnn 1)\n"
    assert err == "scans/b.png: warning: Small.\n"


def test_bad_file_in_the_middle(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, one line on stderr for the bad one, the others answered, and a summary."""
    assert main(["scans/b.png", "no.png", "scans/c.jpeg"]) == 1

    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == ["scans/b.png", "scans/c.jpeg"]
    failure, summary = err.splitlines()
    assert failure == "no.png: error: the image cannot be read: No such file or directory"
    assert re.fullmatch(
        r"3 images: 2 positive \(stroke\), 1 failed; [\d.]+ images/s; "
        r"time in the server p50 21\.9 ms, p99 21\.9 ms; by stroke-cnn 1",
        summary,
    )


def test_failures_in_json_are_objects_and_lines(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure is an object on stdout, in its place, and a line on stderr."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")

    cli_server.servicer.judge = judge
    assert main(["--json", "scans/b.png"]) == 1

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found.pop("file_bytes") == (scans / "b.png").stat().st_size
    assert found.pop("file_modified").endswith("+00:00")
    assert found == {
        "file": "scans/b.png",
        "error": "The file is text.",
        "reason": "IMAGE_UNDECODABLE",
        "request_id": cli_server.servicer.requests[0].id,
    }
    assert err == "scans/b.png: error: The file is text.\n"


def test_warnings_of_the_server_go_to_stderr(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each; the result itself stays as it is."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_BLANK", message="The image is blank.\nReally.")
        return response

    cli_server.servicer.judge = judge

    assert main(["scans/b.png"]) == 0

    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == "scans/b.png: warning: The image is blank.\\nReally.\n"


def test_names_and_messages_stay_on_their_line(
    cli_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in file names are escaped in text; JSON keeps the name as it is."""
    monkeypatch.chdir(tmp_path)
    name = "a\nb\x1b[31m: é.png"
    Path(name).write_bytes(POSITIVE)

    assert main([name]) == 0
    assert capsys.readouterr().out.startswith("a\\nb\\x1b[31m: é.png: stroke 0.973  P(stroke) 0.973")
    assert main(["--json", name]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == name


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_file_name_that_is_no_text(cli_server: FakeServer, tmp_path: Path, as_json: bool, encoding: str) -> None:
    """A name in another encoding, or one that the terminal cannot show, is judged and printed."""
    name = b"scan-\xff-\xc3\xa9.png"
    (Path(os.fsdecode(tmp_path)) / os.fsdecode(name)).write_bytes(POSITIVE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}

    done = run_client(*(["--json"] if as_json else []), name, cwd=tmp_path, env=environment)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b'{"file": "scan-\\udcff-\\u00e9.png"' if as_json else b"scan-\\udcff-")


def test_csv_is_a_table_that_spreadsheets_open(
    cli_server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A header and one row an image, failures too; a name that a spreadsheet would run as a formula stays text."""
    monkeypatch.chdir(tmp_path)
    Path("=1+1, really.png").write_bytes(POSITIVE)

    assert main(["--csv", "-", "=1+1, really.png", "no.png"]) == 1

    good, bad = csv.DictReader(io.StringIO(capsys.readouterr().out))
    request = cli_server.servicer.requests[0]
    modified = good.pop("file_modified")
    assert datetime.fromisoformat(modified).timestamp() == pytest.approx(os.stat("=1+1, really.png").st_mtime, abs=1e-5)
    assert good == {
        "file": "'=1+1, really.png",
        "label": "stroke",
        "confidence": "0.973",
        "scores": "normal=0.027 stroke=0.973",
        "threshold": "0.05",
        "model": "stroke-cnn",
        "version": "1",
        "digest": "ab" * 32,
        "image_sha256": hashlib.sha256(request.image).hexdigest(),
        "server_ms": "21.875",
        "warnings": "",
        "error": "",
        "reason": "",
        "request_id": request.id,
        "file_bytes": str(len(POSITIVE)),
        "status": "ANALYSED",
        "positive_label": "stroke",
        "outlier_score": "0.0",
        "frame": "",
        "positive_probability": "0.973",
        "p_normal": "0.027",
        "p_stroke": "0.973",
    }
    expected = ("no.png", "", "the image cannot be read: No such file or directory", "IMAGE_UNREADABLE")
    assert (bad["file"], bad["label"], bad["error"], bad["reason"]) == expected


def test_results_in_a_file_leave_stdout_empty(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--output takes the place of the lines; it holds what --json prints; the summary stays."""
    assert main(["--json", "scans"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["--output", "results.jsonl", "scans"]) == 0
    written = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("4 images: 4 positive (stroke), 0 failed; ")
    for record in (*printed, *written):
        del record["request_id"]
    assert written == printed


def test_warnings_are_not_repeated_where_results_keep_them(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With JSON or CSV the first warning of a kind is printed; 50,000 small slices are not 50,000 lines."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_SMALL", message="The image is small.")
        return response

    cli_server.servicer.judge = judge
    assert main(["--json", "scans"]) == 0

    out, err = capsys.readouterr()
    assert out.count("IMAGE_SMALL") == 4
    warning, _ = err.splitlines()
    assert warning == "scans/B.PNG: warning: The image is small. (others like it: see the results)"


def test_quiet_leaves_failures_alone(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet: the results, and on stderr what failed; no warnings, no summary."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_SMALL", message="The image is small.")
        return response

    cli_server.servicer.judge = judge
    assert main(["--quiet", "scans/b.png", "no.png"]) == 1

    out, err = capsys.readouterr()
    assert out.startswith("scans/b.png: stroke")
    assert err == "no.png: error: the image cannot be read: No such file or directory\n"


def test_summary_counts_by_label(cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Positives first; where the model cannot be asked, labels are counted without calling one positive."""
    (scans / "b.png").write_bytes(b"healthy")
    assert main(["scans"]) == 0
    assert "4 images: 3 positive (stroke), 1 normal, 0 failed; " in capsys.readouterr().err

    def judge(request):
        response = make_response(request)
        response.model_name = "unknown"
        return response

    cli_server.servicer.judge = judge
    assert main(["scans"]) == 0
    assert "4 images: 1 normal, 3 stroke, 0 failed; " in capsys.readouterr().err
