"""Server and client as real processes, as a user runs them, with the bundled model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model
from tests.fakes import BUNDLED, ROOT, ServerProcess, run_module, run_server, wait_until

MODELS = ROOT / "models"
SAMPLES = sorted((ROOT / "samples").iterdir())


def ask(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m client`` against a server."""
    return run_module("client", *arguments, "--server", server.address)


@pytest.fixture(scope="module")
def bundled() -> object:
    """A server with the bundled model."""
    with run_server(MODELS) as server:
        yield server


def test_one_scan_is_one_line(bundled: ServerProcess) -> None:
    """``python -m client scan.png`` prints label, probability, model and threshold, and exits 0."""
    result = ask(bundled, str(SAMPLES[0]))

    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{SAMPLES[0]}: ")
    label, confidence = line.removeprefix(f"{SAMPLES[0]}: ").split()[:2]
    assert label in ("normal", "stroke")
    assert 0 <= float(confidence) <= 1
    assert f"stroke-cnn {BUNDLED.name}" in line
    assert f"threshold {load_model(BUNDLED).spec.threshold:.3g}" in line


def test_directory_as_json_has_the_promised_fields(bundled: ServerProcess) -> None:
    """One object a line, in sorted order; the digest is that of the bundled file that suits this processor."""
    result = ask(bundled, str(ROOT / "samples"), "--json")

    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["file"]) for answer in answers] == SAMPLES
    model = load_model(BUNDLED, EngineOptions(precision="auto"))
    for answer in answers:
        assert answer["confidence"] == answer["scores"][answer["label"]]
        assert set(answer["scores"]) == {"normal", "stroke"}
        assert (answer["label"] == "stroke") == (answer["scores"]["stroke"] > answer["threshold"])
        assert answer["threshold"] == model.spec.threshold
        assert (answer["model"], answer["version"], answer["digest"]) == ("stroke-cnn", BUNDLED.name, model.digest)
        assert set(answer["timings_ms"]) == {"decode", "queue", "inference"}
        assert answer["request_id"]


def test_bundled_model_tells_its_samples_apart(bundled: ServerProcess) -> None:
    """Near-constant probabilities are what dividing by 255 twice looks like (0.562 to 0.567 for every scan)."""
    answers = [json.loads(line) for line in ask(bundled, str(ROOT / "samples"), "--json").stdout.splitlines()]

    scores = [answer["scores"]["stroke"] for answer in answers]
    assert max(scores) - min(scores) > 0.2


def test_bad_files_fail_and_the_rest_is_answered(bundled: ServerProcess, tmp_path: Path) -> None:
    """Exit code 1, one line on standard error for each failure, an answer for everything else."""
    shutil.copy(SAMPLES[0], tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"garbage")
    (tmp_path / "c.png").write_bytes(SAMPLES[0].read_bytes()[:5000])
    shutil.copy(SAMPLES[1], tmp_path / "d.png")

    result = ask(bundled, str(tmp_path), str(tmp_path / "missing.png"), "--json")

    assert result.returncode == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    reasons = {Path(line["file"]).name: line.get("reason") for line in lines}
    assert reasons["a.png"] is reasons["d.png"] is None
    assert reasons["b.png"] == "IMAGE_UNDECODABLE"
    assert reasons["c.png"] == "IMAGE_TRUNCATED"
    assert reasons["missing.png"]
    for name in ("b.png", "c.png", "missing.png"):
        assert sum(name in line for line in result.stderr.splitlines()) == 1


def test_command_line_ends_its_stream_in_order(bundled: ServerProcess) -> None:
    """In the server's log a finished run is OK, not cancelled."""
    seen = len(bundled.log)
    assert ask(bundled, str(SAMPLES[0]), str(SAMPLES[1])).returncode == 0

    wait_until(lambda: any("PredictBatches id=" in line for line in bundled.log[seen:]))
    assert all("code=OK" in line for line in bundled.log[seen:])


def test_standard_input_is_an_image(bundled: ServerProcess) -> None:
    """``-`` reads the bytes of one image."""
    command = [sys.executable, "-m", "client", "-", "--server", bundled.address]

    result = subprocess.run(command, cwd=ROOT, input=SAMPLES[0].read_bytes(), capture_output=True, timeout=60)

    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"-: ")


def test_no_server_is_one_clear_line() -> None:
    """Exit code 1 and what to do."""
    result = run_module("client", str(SAMPLES[0]), "--server", "127.0.0.1:1", "--timeout", "1")

    assert result.returncode == 1
    assert result.stdout == ""
    assert "python -m server" in result.stderr
    assert "Traceback" not in result.stderr


def test_client_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    """A directory that is being classified loses no image when the server is stopped and started again."""
    from client import Prediction, StrokeClient

    with run_server(MODELS) as first:
        port = first.address.rpartition(":")[2]
        with StrokeClient(first.address, timeout=60) as client:
            results = client.predict_many([SAMPLES[i % len(SAMPLES)] for i in range(60)])
            answered = [next(results) for _ in range(5)]
            assert first.stop(signal.SIGTERM) == 0
            command = [sys.executable, "-m", "server", "--port", port, "--log-level", "error"]
            with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as second:
                try:
                    answered += results
                finally:
                    second.terminate()

    assert len(answered) == 60
    assert all(isinstance(answer, Prediction) for answer in answered)


def test_every_real_slice_is_answered(bundled: ServerProcess, rsna: Path) -> None:
    """All 1,005 slices of the real subset get an answer, blank ones included."""
    files = sorted((rsna / "images").glob("*.png"))

    result = ask(bundled, str(rsna / "images"), "--json")

    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["file"]).name for answer in answers] == [file.name for file in files]
    assert all("label" in answer for answer in answers)
