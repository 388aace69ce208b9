"""What docs/integrate.md promises to other languages; the JavaScript program is run, where Node.js is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from proto import stroke_pb2
from server.core import decision
from server.core.study import answer
from server.images import checks
from tests.client_fakes import FakeServer, RefusalError, make_response
from tests.fakes import ROOT, ServerProcess, run_server
from tests.node_packages import Run, install_packages

DOCS = ROOT / "docs"
PAGE = (DOCS / "integrate.md").read_text("utf-8")
SAMPLE = "samples/stroke-1.png"
PROGRAMS = ("go/main.go", "csharp/Program.cs", "java/src/main/java/StrokePredict.java", "javascript/predict.js")
RETRY = re.compile(
    r"maxAttempts\W+4\b.*initialBackoff\D+0\.2s?\b.*maxBackoff\D+2s?\b.*backoffMultiplier\D+2\b"
    r".*retryableStatusCodes\W.*\bunavailable\W.*\bcancelled\b",
    re.IGNORECASE | re.DOTALL,
)


@pytest.fixture(scope="module")
def npm() -> Run:
    """Runs a command in docs/javascript, with its packages installed."""
    return install_packages(DOCS / "javascript", "the JavaScript program was not run")


@pytest.fixture(scope="module")
def predict(npm: Run) -> Run:
    """Runs predict.js."""
    return lambda *arguments: npm("node", "docs/javascript/predict.js", *arguments)


@pytest.fixture(scope="module")
def bundled() -> Iterator[ServerProcess]:
    """A real server with the bundled model, as the page's reader has it."""
    with run_server(ROOT / "models") as running:
        yield running


def test_javascript_shows_what_the_page_shows(predict: Run, bundled: ServerProcess) -> None:
    """Health first, then label, confidence, model, threshold and id, and exit code 0."""
    quoted = re.search(r"^    127\.0\.0\.1:\d+: SERVING\n    samples/.*\n", PAGE, re.MULTILINE)
    assert quoted

    result = predict(bundled.address, SAMPLE)

    assert result.returncode == 0, result.stderr
    assert mask(result.stdout) == mask(textwrap.dedent(quoted[0]))


def mask(output: str) -> str:
    """Hides port and id, and the digits of a confidence that depend on the processor."""
    output = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", output)
    return re.sub(r"(0\.\d\d)\d\b", r"\1", re.sub(r"id [0-9a-f-]+", "id ID", output))


def test_javascript_asks_for_health_alone(predict: Run, bundled: ServerProcess) -> None:
    """Without a file, readiness is the question."""
    result = predict(bundled.address)

    assert (result.returncode, result.stdout, result.stderr) == (0, f"{bundled.address}: SERVING\n", "")


def test_javascript_reports_warnings(predict: Run, bundled: ServerProcess) -> None:
    """The golden image is blank and small: the answer says so, and has no label."""
    result = predict(bundled.address, "proto/golden/image.png")

    assert result.returncode == 0, result.stderr
    assert re.search(r"^proto/golden/image\.png: not analysed \(stroke-cnn ", result.stdout, re.MULTILINE)
    assert re.findall(r": (IMAGE_\w+): ", result.stdout) == ["IMAGE_BLANK", "IMAGE_UPSCALED", "IMAGE_BLANK"]


def test_javascript_reports_a_refusal(predict: Run, bundled: ServerProcess, tmp_path: Path) -> None:
    """Code, the reason from the trailing metadata, and the sentence, in one line; exit code 1."""
    (tmp_path / "text.png").write_text("not an image")

    result = predict(bundled.address, str(tmp_path / "text.png"))

    assert result.returncode == 1
    assert result.stdout == f"{bundled.address}: SERVING\n"
    assert result.stderr == (
        f"{tmp_path}/text.png: INVALID_ARGUMENT [IMAGE_UNDECODABLE] "
        "The file is in no known image format. Only PNG, JPEG and DICOM are accepted.\n"
    )


def test_javascript_says_when_nobody_is_there(predict: Run) -> None:
    """A server that is not reachable is UNAVAILABLE without a reason, within the deadline of the health check."""
    result = predict("127.0.0.1:1", SAMPLE)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("127.0.0.1:1: UNAVAILABLE [no reason] ")


def test_javascript_sends_nothing_to_a_server_that_is_not_ready(predict: Run, server: FakeServer) -> None:
    """NOT_SERVING is shown and is exit code 1."""
    server.set_serving(False)

    result = predict(server.target, SAMPLE)

    assert (result.returncode, result.stdout) == (1, f"{server.target}: NOT_SERVING\n")
    assert server.servicer.requests == []


def test_javascript_tries_again_within_one_deadline(predict: Run, server: FakeServer) -> None:
    """UNAVAILABLE and CANCELLED are retried by service config: the same request, and never more than the 10 s."""
    failures = [RefusalError(grpc.StatusCode.UNAVAILABLE), RefusalError(grpc.StatusCode.CANCELLED)]

    def judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
        if failures:
            raise failures.pop(0)
        return make_response(request)

    server.servicer.judge = judge

    result = predict(server.target, SAMPLE)

    assert result.returncode == 0, result.stderr
    first, *others = server.servicer.requests
    assert others == [first, first]
    assert first.image == (ROOT / SAMPLE).read_bytes()
    assert len(first.image_sha256) == 64
    assert first.id
    assert 10 >= server.servicer.time_remaining[0] > server.servicer.time_remaining[2] > 0


def test_javascript_does_not_repeat_what_cannot_succeed(predict: Run, server: FakeServer) -> None:
    """RESOURCE_EXHAUSTED comes back after one attempt: a full queue is not to be hammered."""

    def judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
        raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "Try again later.")

    server.servicer.judge = judge

    result = predict(server.target, SAMPLE)

    assert (result.returncode, result.stderr) == (1, f"{SAMPLE}: RESOURCE_EXHAUSTED [QUEUE_FULL] Try again later.\n")
    assert len(server.servicer.requests) == 1


def test_javascript_does_not_believe_an_answer_about_other_bytes(predict: Run, server: FakeServer) -> None:
    """The SHA-256 of the answer is compared."""

    def judge(request: stroke_pb2.PredictRequest) -> stroke_pb2.PredictResponse:
        response = make_response(request)
        response.image_sha256 = "0" * 64
        return response

    server.servicer.judge = judge

    result = predict(server.target, SAMPLE)

    assert result.returncode == 1
    assert "another image" in result.stderr


def test_javascript_explains_its_usage(predict: Run) -> None:
    """No address is a usage error: exit code 2."""
    result = predict()

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: ")


def test_javascript_tests_itself_without_a_server(npm: Run) -> None:
    """``npm test`` encodes and decodes the golden messages."""
    result = npm("npm", "test", "--prefix", "docs/javascript")

    assert result.returncode == 0, result.stdout
    assert re.search(r"^# pass 10$", result.stdout, re.MULTILINE)


def test_javascript_lock_has_hashes_and_names_no_host() -> None:
    """A fresh machine gets the bytes that were tested, from whatever registry it uses."""
    lock = (DOCS / "javascript" / "package-lock.json").read_text()

    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/') > 10
    assert '"resolved"' not in lock


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_language_makes_the_same_call(program: str) -> None:
    """The same retries, the SHA-256, an id, the reason, health, and where TLS goes; none of them trusts a proxy."""
    text = (DOCS / program).read_text("utf-8")

    assert RETRY.search(text)
    for part in ("sha-?256", r"\bid\b|setid", '"stroke-reason"', '"stroke.v1.StrokeService"', "health", "tls", "proxy"):
        assert re.search(part, text, re.IGNORECASE), part
    assert f"]({program})" in PAGE


def test_page_explains_every_reason_that_the_server_can_send() -> None:
    """The table of reasons is that of the code."""
    sent = {"INTERNAL"}
    for module in (ROOT / "server").rglob("*.py"):
        for kind, reason in re.findall(r'\b([A-Z]\w+Error)\(\s*"([A-Z0-9_]+)"', module.read_text("utf-8")):
            # Shown on the console of the box; sent to administrators, whose page is docs/models.md.
            if kind not in ("ModelFileError", "ChangeRefusedError"):
                sent.add(reason)
    for module in (checks, decision, answer):  # with an answer
        sent |= {value.reason for value in vars(module).values() if isinstance(value, checks.Reason)}

    rows = re.findall(r"^\| (`[A-Z].*?) \|", PAGE, re.MULTILINE)
    explained = {reason for row in rows for reason in re.findall(r"`([A-Z0-9_]+)`", row)}
    assert explained == sent


def test_page_shows_the_golden_bytes() -> None:
    """The bytes that the page takes apart are those of the file."""
    data = (ROOT / "proto" / "golden" / "predict_request.bin").read_bytes()

    rows = re.findall(r"^ {4,6}(\d+)  ((?:[0-9a-f]{2} )+)", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for offset, text in rows:
        assert data[int(offset) :].hex(" ").startswith(text.strip()), offset
    assert f"{len(data)} bytes" in PAGE
