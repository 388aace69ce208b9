"""python -m client: arguments, output, exit status, and how it behaves on terminals and pipes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from client._cli import build_parser, main
from client._connection import read_connection
from client._report import Progress, escape
from tests.client_fakes import FakeServer, RefusalError, make_response, serve, wait_for

ROOT = Path(__file__).parent.parent
POSITIVE = b"stroke image"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    with serve() as running:
        monkeypatch.setenv("STROKE_SERVER", running.target)
        yield running


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, others, hidden ones, and a folder below; it is the working directory's child."""
    folder = tmp_path / "scans"
    for name in ("b.png", "a.JPG", "c.jpeg", "notes.txt", ".hidden.png", "B.PNG", "sub/d.png", ".git/e.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(POSITIVE + name.encode())
    monkeypatch.chdir(tmp_path)
    return folder


def run_client(*arguments: str | bytes, **options) -> subprocess.CompletedProcess[bytes]:
    options.setdefault("env", {**os.environ, "PYTHONPATH": str(ROOT)})
    return subprocess.run([sys.executable, "-m", "client", *arguments], capture_output=True, timeout=20, **options)


def test_one_image_is_one_line(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name, label, probability, and the model and threshold it was judged by; nothing on stderr; exit 0."""
    assert main(["scans/b.png"]) == 0

    out, err = capsys.readouterr()
    assert out == "scans/b.png: stroke 0.973  (stroke-cnn 1, threshold 0.05)\n"
    assert err == ""


def test_json_has_the_documented_shape(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object per line with everything that the server said; probabilities have six decimals."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_BLANK", message="The image is blank.")
        return response

    server.servicer.judge = judge
    assert main(["scans/b.png", "--json", "--model", "resnet", "--model-version", "3"]) == 0

    (line,) = capsys.readouterr().out.splitlines()
    request = server.servicer.requests[0]
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
    }


def test_folder_is_walked_in_sorted_order(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """PNG and JPEG files in any case, no hidden ones, names as the user wrote them; below only on request."""
    assert main(["scans/"]) == 0
    flat = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert main(["--recursive", "scans"]) == 0
    deep = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]

    assert flat == ["scans/B.PNG", "scans/a.JPG", "scans/b.png", "scans/c.jpeg"]
    assert deep == [*flat, "scans/sub/d.png"]


def test_bad_file_in_the_middle(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1, one line on stderr for the bad one, the others answered, and a summary."""
    assert main(["scans/b.png", "no.png", "scans/c.jpeg"]) == 1

    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == ["scans/b.png", "scans/c.jpeg"]
    failure, summary = err.splitlines()
    assert failure == "no.png: error: the image cannot be read: No such file or directory"
    assert summary.startswith("3 images: 2 answered (stroke 2), 1 failed; ")
    assert summary.endswith(" images/s")


def test_failures_in_json_are_objects_and_lines(
    server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failure is an object on stdout, in its place, and a line on stderr."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")

    server.servicer.judge = judge
    assert main(["--json", "scans/b.png"]) == 1

    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "file": "scans/b.png",
        "error": "The file is text.",
        "reason": "IMAGE_UNDECODABLE",
        "request_id": server.servicer.requests[0].id,
    }
    assert err == "scans/b.png: error: The file is text.\n"


def test_folder_without_images_is_a_failure(
    server: FakeServer, tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, in its place, while the others are answered."""
    (tmp_path / "empty").mkdir()

    assert main(["--json", "scans/b.png", "empty", "scans/c.jpeg"]) == 1

    out, err = capsys.readouterr()
    first, second, third = map(json.loads, out.splitlines())
    assert [first["file"], second["file"], third["file"]] == ["scans/b.png", "empty", "scans/c.jpeg"]
    assert second["reason"] == "IMAGE_UNREADABLE"
    assert "empty: error: no PNG or JPEG file in this folder (--recursive looks into the folders below)" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_a_failure(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not open to the user is not taken for an empty one."""
    (scans / "sub").chmod(0)
    try:
        assert main(["--recursive", "scans"]) == 1
    finally:
        (scans / "sub").chmod(0o755)

    assert "scans/sub: error: the folder cannot be read: Permission denied" in capsys.readouterr().err


def test_pipes_in_folders_are_left_alone(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A named pipe would block for ever; a dangling link is named."""
    os.mkfifo(scans / "pipe.png")
    (scans / "link.png").symlink_to("nowhere")

    assert main(["scans"]) == 1

    out, err = capsys.readouterr()
    assert "pipe.png" not in out + err
    assert "scans/link.png: error: the image cannot be read" in err


def test_dash_reads_standard_input(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` is one image from stdin, named `-`."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POSITIVE)))

    assert main(["-"]) == 0

    assert capsys.readouterr().out.startswith("-: stroke 0.973")
    assert server.servicer.images == [POSITIVE]


def test_warnings_of_the_server_go_to_stderr(
    server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each; the result itself stays as it is."""

    def judge(request):
        response = make_response(request)
        response.warnings.add(reason="IMAGE_BLANK", message="The image is blank.\nReally.")
        return response

    server.servicer.judge = judge

    assert main(["scans/b.png"]) == 0

    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == "scans/b.png: warning: The image is blank.\\nReally.\n"


def test_unreachable_server_is_one_line(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not one line per file; exit 1."""
    assert main(["--server", "127.0.0.1:1", "scans"]) == 1

    out, err = capsys.readouterr()
    assert out == ""
    summary, error = err.splitlines()
    assert summary.startswith("4 images: 0 answered, 0 failed, 4 without an answer; ")
    assert error == "error: no server answers at 127.0.0.1:1: is it running (python -m server)?"


def test_timeout_holds_for_each_image(server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--timeout reaches the run: a hanging server fails the image."""
    server.servicer.judge = server.servicer.hang

    assert main(["--timeout", "0.2", "scans/b.png"]) == 1

    assert "within 0.2 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["--no-such-flag", "x.png"], ["--timeout", "0", "x"], ["--timeout", "x", "x"], ["--server", "box:0", "x"]],
)
def test_wrong_usage_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is named, and no server is asked."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_server_of_the_environment() -> None:
    """--server wins over STROKE_SERVER, which wins over the default; a wrong one is wrong usage."""
    parser = build_parser()

    def read_server(*arguments: str, **environment: str) -> str:
        return read_connection(parser, parser.parse_args(["x", *arguments]), environment).server

    assert read_server() == "127.0.0.1:50051"
    assert read_server(STROKE_SERVER="box") == "box:50051"
    assert read_server("--server", "other:1", STROKE_SERVER="box") == "other:1"
    with pytest.raises(SystemExit):
        read_server(STROKE_SERVER="box:0")


def test_names_and_messages_stay_on_their_line(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters in file names are escaped in text; JSON keeps the name as it is."""
    monkeypatch.chdir(tmp_path)
    name = "a\nb\x1b[31m: é.png"
    Path(name).write_bytes(POSITIVE)

    assert main([name]) == 0
    assert capsys.readouterr().out.startswith("a\\nb\\x1b[31m: é.png: stroke 0.973")
    assert main(["--json", name]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == name


def test_escape_keeps_what_is_printable() -> None:
    """Letters of all scripts pass; line separators, direction marks and undecodable bytes do not."""
    assert escape("Größe 頭 x.png") == "Größe 頭 x.png"
    assert escape("a\u2028b\u202ec\udcff\td") == "a\\u2028b\\u202ec\\udcff\\td"


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_file_name_that_is_no_text(server: FakeServer, tmp_path: Path, as_json: bool, encoding: str) -> None:
    """A name in another encoding, or one that the terminal cannot show, is judged and printed."""
    name = b"scan-\xff-\xc3\xa9.png"
    (Path(os.fsdecode(tmp_path)) / os.fsdecode(name)).write_bytes(POSITIVE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}

    done = run_client(*(["--json"] if as_json else []), name, cwd=tmp_path, env=environment)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b'{"file": "scan-\\udcff-\\u00e9.png"' if as_json else b"scan-\\udcff-")


def test_reader_that_leaves_early_is_no_crash(server: FakeServer, tmp_path: Path) -> None:
    """`| head` ends the client without a traceback."""
    for index in range(50):
        (tmp_path / f"{index}.png").write_bytes(POSITIVE)
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-m", "client", str(tmp_path)], stdout=write_end, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        os.close(write_end)
        os.close(read_end)
        errors = process.communicate(timeout=20)[1]

    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_line(server: FakeServer, tmp_path: Path) -> None:
    """Results that cannot be written are a failure that is named."""
    (tmp_path / "a.png").write_bytes(POSITIVE)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "client", str(tmp_path)], stdout=full, stderr=subprocess.PIPE, cwd=ROOT, timeout=20
        )

    assert done.returncode == 1
    assert done.stderr == b"error: the results cannot be written: No space left on device\n"


def test_interrupt_exits_with_130(server: FakeServer, tmp_path: Path) -> None:
    """Ctrl-C during a run leaves no traceback."""
    server.servicer.judge = server.servicer.hang
    (tmp_path / "a.png").write_bytes(POSITIVE)
    # A shell that runs the tests in the background has its children ignore Ctrl-C; a terminal does not.
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('client', run_name='__main__', alter_sys=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        wait_for(lambda: server.servicer.requests, 10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, err) == (130, b"", b"")


def test_progress_on_a_terminal_leaves_the_results_whole(server: FakeServer, tmp_path: Path) -> None:
    """With stdout and stderr on one terminal, what stays on the screen are the results and the summary."""
    for index in range(20):
        (tmp_path / f"{index:02}.png").write_bytes(POSITIVE)
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "client", "."],
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    ) as process:
        os.close(slave)
        screen = b""
        try:
            while chunk := os.read(master, 65536):
                screen += chunk
        except OSError:  # how Linux reports the end of a pseudo-terminal
            pass
        assert process.wait(20) == 0
    os.close(master)

    assert b"/20  " in screen
    kept = [line.rsplit(b"\x1b[K", 1)[-1] for line in screen.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")]
    assert kept[:20] == [b"./%02d.png: stroke 0.973  (stroke-cnn 1, threshold 0.05)" % i for i in range(20)]
    assert kept[20].startswith(b"20 images: 20 answered (stroke 20), 0 failed; ")
    assert len(kept) == 21


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_count_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how far it is, how fast and how long; erasing removes it."""
    monkeypatch.setenv("TERM", "xterm")
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    terminal = Terminal()
    progress = Progress(40, terminal)
    clock[0] += 2

    progress.draw(10)
    progress.draw(10)
    progress.erase()
    progress.erase()

    assert terminal.getvalue() == "\r\x1b[K[#####...............] 10/40  5.0/s  6 s left\r\x1b[K"


@pytest.mark.parametrize(
    ("total", "stream", "term"), [(1, Terminal(), "xterm"), (9, io.StringIO(), "xterm"), (9, Terminal(), "dumb")]
)
def test_no_progress_where_nobody_needs_it(
    total: int, stream: io.StringIO, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image, a file or a dumb terminal get no progress bar."""
    monkeypatch.setenv("TERM", term)
    Progress(total, stream).draw(1)

    assert stream.getvalue() == ""


def test_help_fits_a_screen_and_teaches() -> None:
    """--help has three examples and the statement of use, within 80 columns and 40 lines."""
    done = run_client("--help", env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"})
    text = done.stdout.decode()

    assert done.returncode == 0
    assert "not a medical device" in text
    assert text.split("examples:")[1].count("python -m client") == 3
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 80
    for action in build_parser()._actions:
        assert action.help
