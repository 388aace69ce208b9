"""``python -m server audit``: what people see of a log, and what scripts do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.audit.command import main
from server.audit.family import beside
from tests.audit_logs import DIGEST, alter, judged, open_log, write_log
from tests.fakes import run_module, sha256_hex

OTHER = b"another image"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Forty images of one digest in several files, and one of another."""
    path = tmp_path / "audit.jsonl"
    write_log(path, 40, most_bytes=4096)
    with open_log(path) as log:
        log.note(judged('an "id"', image_sha256=sha256_hex(OTHER)))
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output, standard error."""
    code = main([str(argument) for argument in arguments])
    captured = capfd.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_verify_says_that_a_log_is_what_was_written(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With what it has counted."""
    code, lines, _ = run(capfd, "verify", log)

    assert (code, len(lines)) == (0, 1)
    assert lines[0].startswith("OK: lines 1 to 45 in ")
    assert lines[0].endswith(" files, 41 of images")


def test_verify_says_where_a_log_was_altered(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """File, line, what; for scripts as one object."""
    alter(log, lambda lines: lines.pop(-2))

    code, lines, _ = run(capfd, "verify", log)
    assert code == 1
    assert lines[0].startswith("NOT OK: ")
    assert lines[1].startswith("audit.jsonl:")
    assert lines[1].endswith("line 44 is missing before line 45")

    code, lines, _ = run(capfd, "verify", log, "--json")
    report = json.loads(lines[0])
    assert (code, report["ok"], report["faults"][0]["file"]) == (1, False, "audit.jsonl")


def test_verify_says_what_is_not_tampering(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A killed server, its successor, and lines that were lost."""
    path = tmp_path / "audit"
    with open_log(path) as log:
        log.lost = 3
    alter(path, lambda lines: lines.__setitem__(2, b'{"seq":3'))
    first = json.loads(path.read_bytes().splitlines()[0])
    beside(path, "head").write_text(json.dumps({"seq": 1, "hash": first["hash"], "time": ""}))

    code, lines, _ = run(capfd, "verify", path)
    assert code == 0
    assert lines[1:] == [
        "Images without a line, as the log says: 3 (too many waited, or the disk was full).",
        "The last server did not stop in order (killed, power cut): what it noted in its last moment (0.1 s) is not "
        "there; 8 bytes are there of a line that it was writing; the last 1 lines were not secured yet.",
    ]

    with open_log(path):
        code, lines, _ = run(capfd, "verify", path)
    assert code == 0
    assert lines[1] == "Servers that did not stop in order: 1; the log went on after them."
    assert lines[-1] == "A server writes it now."


def test_head_is_what_verify_takes(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Kept elsewhere, it shows what was rewritten since."""
    code, (line,), _ = run(capfd, "head", log)
    head = line.split()[0]

    assert code == 0
    assert run(capfd, "verify", log, "--head", head)[0] == 0
    assert run(capfd, "verify", log, "--head", f"44:{head.partition(':')[2]}")[0] == 1


@pytest.mark.parametrize("options", [{"is_salted": True}, {"is_salted": False}])
def test_search_finds_an_image_in_all_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: dict[str, bool]
) -> None:
    """By its hash, or by itself; also where the salt was there only at times."""
    path, image = tmp_path / "audit", tmp_path / "scan.png"
    write_log(path, 20, most_bytes=4096, is_salted=True)
    image.write_bytes(OTHER)
    with open_log(path, **options) as log:
        log.note(judged("b", image_sha256=sha256_hex(OTHER)))

    assert len(run(capfd, "search", path, "--sha256", DIGEST.upper())[1]) == 20
    for arguments in (("--image", image), ("--sha256", sha256_hex(OTHER))):
        code, (line,), _ = run(capfd, "search", path, *arguments)
        assert (code, json.loads(line)["id"]) == (0, "b")


def test_search_finds_the_slices_of_a_study(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By the id of the study."""
    with open_log(log) as written:
        for number in (1, 2):
            written.note(judged(str(number), study_id="s-1"))
        written.note(judged("3", study_id="s-2"))

    lines = [json.loads(line) for line in run(capfd, "search", log, "--id", "s-1")[1]]
    assert [(line["id"], line["study"]) for line in lines] == [("1", "s-1"), ("2", "s-1")]


def test_search_finds_an_id(log: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole of it, whatever is in it."""
    assert [json.loads(line)["id"] for line in run(capfd, "search", log, "--id", 'an "id"')[1]] == ['an "id"']
    assert run(capfd, "search", log, "--id", "an")[:2] == (1, [])
    assert run(capfd, "search", log, "--sha256", "0" * 64)[:2] == (1, [])


def test_log_of_the_environment_is_meant_where_none_is_given(
    log: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server takes it."""
    monkeypatch.setenv("STROKE_AUDIT", str(log))

    assert run(capfd, "verify")[0] == 0
    assert run(capfd, "search", "--id", "audit-3")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), "give verify, search or head"),
        (("verify",), "which audit log? Give FILE, or set STROKE_AUDIT"),
        (("verify", "{log}", "--head", "1:ab"), "--head must be SEQ:HASH"),
        (("search", "{log}"), "--sha256 or --image or --id must be given, one of them"),
        (("search", "{log}", "--id", "a", "--image", "b"), "--sha256 or --image or --id must be given, one of them"),
        (("search", "{log}", "--sha256", "abc"), "--sha256 must be 64 hexadecimal digits"),
        (("search", "{log}", "--image", "/nowhere.png"), "/nowhere.png: No such file or directory"),
        (("verify", "{log}.other"), "audit.jsonl.other: No such file or directory"),
        (("head", "{log}.other"), "audit.jsonl.other: it has no head"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    log: Path, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], error: str
) -> None:
    """With exit code 2, which is none of a finding."""
    try:
        code, _, printed = run(capfd, *(argument.format(log=log) for argument in arguments))
    except SystemExit as end:
        code, printed = int(str(end.code)), capfd.readouterr().err

    assert code == 2
    assert error in printed
    assert printed.count("\n") == 1


def test_command_needs_none_of_what_serves(log: Path) -> None:
    """It runs where nothing but Python is; and it has help."""
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('grpc', 'onnxruntime', 'numpy', 'PIL', 'google')))\n"
        "import server.__main__"
    )
    result = subprocess.run([sys.executable, "-c", code, "audit", "verify", log], capture_output=True, text=True)

    assert (result.returncode, result.stderr) == (0, "")
    assert "verify FILE" in run_module("server", "audit", "--help").stdout
