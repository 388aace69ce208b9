"""Who may ask by HTTP: tokens with roles and limits, health for those who may call, and addresses to listen on."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.config import ServerConfig, read_config
from server.lifecycle.app import serve
from tests.access import token_of, write_tokens
from tests.fakes import ROOT, encode, make_slice
from tests.web_calls import Answer, WebServer, serve_web

IMAGE = encode(make_slice(200))
CLIENTS = {
    "ward": "",
    "reader": "roles=read",
    "over": "expires=2020-01-01",
    "slow": "requests=1",
    "few": "images=2",
    "narrow": "bytes=5000",
}


@pytest.fixture(scope="module")
def guarded(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server that wants tokens, also for health."""
    folder = tmp_path_factory.mktemp("access")
    tokens = write_tokens(folder / "tokens", **CLIENTS)
    with serve_web(tiny_models, folder, tokens=tokens, health="token") as server:
        yield server


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token_of(name)}"}


@pytest.mark.parametrize(
    "path", ["/predict", "/predict/batch", "/models", "/models/tiny", "/health/live", "/health/ready"]
)
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "TOKEN_MISSING"),
        ({"authorization": "Bearer guessed"}, "TOKEN_WRONG"),
        ({"authorization": "Basic dTpw"}, "TOKEN_WRONG"),
        (bearer("over"), "TOKEN_EXPIRED"),
    ],
)
def test_who_is_not_known_learns_how_to_ask(
    guarded: WebServer, path: str, headers: dict[str, str], reason: str
) -> None:
    """401 with a challenge, before anything is said of what was sent."""
    answer = guarded.ask("POST" if "predict" in path else "GET", path, **headers)

    assert answer.outcome == (401, reason)
    assert answer.headers["www-authenticate"] == 'Bearer realm="stroke"'


def test_page_and_document_are_for_everybody(guarded: WebServer) -> None:
    """The page asks for the token; neither says anything of models or images."""
    assert [guarded.ask("GET", path).status for path in ("/", "/openapi.json")] == [200, 200]


def test_who_is_known_may_what_their_role_says(guarded: WebServer) -> None:
    """Those who judge may read; those who read may not judge."""
    ward, reader = bearer("ward"), bearer("reader")

    assert guarded.post_image(IMAGE, **ward).status == 200
    assert [guarded.ask("GET", path, **reader).status for path in ("/models", "/models/tiny", "/health/live")] == [
        200
    ] * 3
    refused = guarded.post_image(IMAGE, **reader)
    assert refused.outcome == (403, "ROLE_MISSING")
    assert "www-authenticate" not in refused.headers


def test_limit_of_requests(guarded: WebServer) -> None:
    """429, and when it may be tried again; the images of a batch count as requests."""
    slow = bearer("slow")
    assert guarded.post_image(IMAGE, **slow).status == 200
    answer = guarded.post_image(IMAGE, **slow)

    assert answer.outcome == (429, "LIMIT_REQUESTS")
    assert answer.headers["retry-after"] == "1"
    assert 0 < answer.json["retry_after_ms"] <= 1000


def test_limit_of_images_in_flight(guarded: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that is alone may have more, for its size is bounded; beside another image it may not."""
    few = bearer("few")
    batch = [("file", IMAGE)] * 3
    assert len(guarded.post_form("/predict/batch", *batch, **few).json["results"]) == 3
    gate = guarded.application._gate
    assert gate is not None
    permit = gate.admit(gate.identify((), token_of("few")), "predict", 1)

    assert guarded.post_form("/predict/batch", *batch, **few).outcome == (429, "LIMIT_IMAGES")
    permit.leave()
    assert guarded.post_form("/predict/batch", *batch, **few).status == 200


def test_limit_of_bytes_in_flight(guarded: WebServer) -> None:
    """One message may be larger than the limit when it is alone."""
    narrow = bearer("narrow")
    gate = guarded.application._gate
    assert gate is not None
    permit = gate.admit(gate.identify((), token_of("narrow")), "predict")
    share = permit.take(4000)

    assert guarded.post_image(IMAGE, **narrow).outcome == (429, "LIMIT_BYTES")
    share.release()
    permit.leave()
    assert guarded.post_image(IMAGE, **narrow).status == 200


@pytest.mark.parametrize(
    ("http", "sentence"),
    [
        ("0.0.0.0:0", "without TLS, anybody on the way can read and change images"),
        ("no-such-host.invalid:0", "cannot listen on no-such-host.invalid"),
        ("192.0.2.1:0", "cannot listen on 192.0.2.1"),
    ],
)
def test_address_that_cannot_be_had_ends_the_start(
    http: str, sentence: str, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line and exit code 1; gRPC does not serve alone."""
    config = ServerConfig(models=tiny_models, host=f"unix:{tmp_path}/s", http=http)

    assert serve(config) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.splitlines()) == 1
    assert "--http 127.0.0.1" in said or "0.0.0.0" not in http


def test_taken_port(tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other server keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert serve(ServerConfig(models=tiny_models, host=f"unix:{tmp_path}/s", http=address)) == 1

    assert f"cannot listen on {address}: the port is taken; choose another with --http" in capsys.readouterr().err


@pytest.mark.parametrize(
    "http", ["8000", "127.0.0.1", "127.0.0.1:", ":8000", "127.0.0.1:http", "127.0.0.1:99999", "x:-1"]
)
def test_what_is_no_address_is_a_fault_of_usage(http: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that shows how it is written."""
    with pytest.raises(SystemExit) as ended:
        read_config(["--http", http], {})

    assert ended.value.code == 2
    assert "127.0.0.1:8000" in capsys.readouterr().err


def test_insecure_listens_on_all_addresses(tiny_models: Path, tmp_path: Path) -> None:
    """Where somebody says so."""
    with serve_web(tiny_models, tmp_path, host="0.0.0.0", insecure=True) as web:
        assert web.application._web_address == f"http://0.0.0.0:{web.port}/"
        assert web.post_image(IMAGE).status == 200


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from server import cli
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("name", ["starlette", "uvicorn", "python_multipart"])
def test_missing_extra_is_said_in_a_sentence(name: str, tiny_models: Path, tmp_path: Path) -> None:
    """What is missing, and how to get it."""
    flags = ["--models", str(tiny_models), "--host", f"unix:{tmp_path}/s", "--http", "127.0.0.1:0"]
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT, name, *flags], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert result.returncode == 1
    assert f"--http needs {name}, which is not installed: " in result.stderr
    assert "requirements/extras/web.lock" in result.stderr
    assert "make install-web" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_answers_to_many_clients_are_theirs(guarded: WebServer) -> None:
    """Ids and images do not mix on connections that are used in turn."""
    answers: list[Answer] = [guarded.post_image(IMAGE, f"?id={number}", **bearer("ward")) for number in range(20)]

    assert [answer.json["id"] for answer in answers] == [str(number) for number in range(20)]
