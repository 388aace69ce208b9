"""The Open Inference Protocol over HTTP, on a real server, by hand."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.access import token_of, write_tokens
from tests.fakes import encode, make_slice, run_server, wait_until, with_version, write_model
from tests.oip_calls import make_raw
from tests.scraping import find_free_port

IMAGE = encode(make_slice(200))
INFER = "/v2/models/tiny/infer"


class Site:
    """A server's HTTP, one connection for each request."""

    def __init__(self, port: int, log: list[str]) -> None:
        self.port = port
        self.log = log

    def ask(self, verb: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, content, and the headers by lower-case names."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                verb, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            data = response.read()
        finally:
            connection.close()
        length = int(found.get("inference-header-content-length", len(data)))
        return response.status, json.loads(data[:length]), found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with two versions of a model."""
    models = tmp_path_factory.mktemp("models")
    for version in ("1", "2"):
        write_model(models, with_version(version))
    port = find_free_port()
    with run_server(models, "--model", "tiny/1,tiny/2", "--http", f"127.0.0.1:{port}") as server:
        yield Site(port, server.log)


def make_body(*images: bytes, **rest: Any) -> tuple[bytes, str]:
    """Encoded images behind their JSON, and how long that is."""
    raw = make_raw(images)
    tensor = {
        "name": "image",
        "shape": [len(images)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(raw)},
    }
    text = json.dumps({"inputs": [tensor], **rest}).encode()
    return text + raw, str(len(text))


def infer(site: Site, *images: bytes, path: str = INFER, **rest: Any) -> tuple[int, Any, dict[str, str]]:
    body, length = make_body(*images, **rest)
    return site.ask("POST", path, body, inference_header_content_length=length)


def test_images_behind_json(site: Site) -> None:
    """The answer is JSON unless binary outputs are wanted."""
    status, answer, headers = infer(site, IMAGE, IMAGE, id="x-1")

    assert status == 200
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1", "x-1")
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["label"]["data"] == ["stroke", "stroke"]
    assert outputs["probabilities"]["shape"] == [2, 2]

    status, answer, headers = infer(site, IMAGE, parameters={"binary_data_output": True})

    assert status == 200
    assert headers["content-type"] == "application/octet-stream"
    assert answer["outputs"][0]["parameters"] == {"binary_data_size": 8}


def test_image_as_base64_for_those_who_have_but_json(site: Site) -> None:
    """curl and a shell are enough."""
    tensor = {
        "name": "image",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(IMAGE).decode()],
    }

    status, answer, _ = site.ask("POST", INFER, json.dumps({"inputs": [tensor]}).encode())

    assert status == 200
    assert answer["outputs"][1]["data"] == ["stroke"]


def test_version_is_in_the_path(site: Site) -> None:
    """Of every method of a model."""
    assert infer(site, IMAGE, path="/v2/models/tiny/versions/2/infer")[1]["model_version"] == "2"
    for path in ("", "/ready", "/config"):
        assert site.ask("GET", f"/v2/models/tiny/versions/2{path}")[0] == 200
        status, answer, headers = site.ask("GET", f"/v2/models/tiny/versions/3{path}")
        assert (status, headers["stroke-reason"]) == (404, "MODEL_NOT_FOUND")
        assert answer == {"error": "No model 'tiny' version '3' is served here; served: tiny 1, tiny 2."}


def test_server_and_models_describe_themselves(site: Site) -> None:
    """And say that they are alive and ready."""
    assert site.ask("GET", "/v2")[1]["extensions"][-1] == "binary_tensor_data"
    assert site.ask("GET", "/v2/models/tiny")[1]["versions"] == ["1", "2"]
    assert site.ask("GET", "/v2/models/tiny/config")[1]["max_batch_size"] == 32
    assert [one["version"] for one in site.ask("POST", "/v2/repository/index")[1]] == ["1", "2"]
    assert site.ask("POST", "/v2/repository/index", b'{"ready": true}')[0] == 200
    assert site.ask("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert site.ask("GET", "/v2/health/ready")[:2] == (200, {"ready": True})
    assert site.ask("GET", "/v2/models/tiny/ready")[:2] == (200, {"name": "tiny", "ready": True})


@pytest.mark.parametrize(
    ("verb", "path", "expected"),
    [
        ("GET", "/v2/models/tiny/stats", (404, "PATH_UNKNOWN")),
        ("GET", INFER, (405, "METHOD_UNKNOWN")),
        ("POST", "/v2", (405, "METHOD_UNKNOWN")),
        ("POST", INFER, (400, "REQUEST_MALFORMED")),
    ],
)
def test_errors_are_what_clients_of_the_protocol_read(
    verb: str, path: str, expected: tuple[int, str], site: Site
) -> None:
    """One sentence under ``error``; the reason is in the head."""
    status, answer, headers = site.ask(verb, path)

    assert (status, headers["stroke-reason"]) == expected
    assert list(answer) == ["error"]
    assert answer["error"]


def test_image_that_cannot_be_judged_is_named(site: Site) -> None:
    """With the status of HTTP that it has everywhere."""
    status, answer, headers = infer(site, IMAGE, IMAGE[:-30])

    assert (status, headers["stroke-reason"]) == (422, "IMAGE_TRUNCATED")
    assert answer["error"].startswith("Element 1 of input 'image' (of 2): ")
    assert infer(site, *[IMAGE] * 33)[2]["stroke-reason"] == "BATCH_SIZE_INVALID"
    assert infer(site, IMAGE, outputs=[{"name": "x"}])[2]["stroke-reason"] == "TENSOR_INVALID"
    assert infer(site, IMAGE, outputs=[{"name": "label", "parameters": {"binary_data": 1}}])[0] == 400
    assert infer(site, IMAGE, parameters={"timeout": 1})[0] == 504


def test_compressed_body_is_read_within_the_bound(site: Site) -> None:
    """The JSON's length is that without compression; a bomb comes to nothing."""
    body, length = make_body(IMAGE)
    status, answer, _ = site.ask(
        "POST", INFER, gzip.compress(body), inference_header_content_length=length, content_encoding="gzip"
    )
    assert (status, answer["outputs"][1]["data"]) == (200, ["stroke"])

    bomb = gzip.compress(bytes(100 << 20), 1)
    assert site.ask("POST", INFER, bomb, content_encoding="gzip")[2]["stroke-reason"] == "MESSAGE_TOO_LARGE"
    assert site.ask("POST", INFER, body, content_encoding="br")[2]["stroke-reason"] == "CONTENT_TYPE_UNSUPPORTED"


def test_pages_of_other_servers_may_not_call(site: Site) -> None:
    """As everywhere on this port."""
    body, length = make_body(IMAGE)

    _, answer, headers = site.ask(
        "POST", INFER, body, inference_header_content_length=length, sec_fetch_site="cross-site"
    )

    assert headers["stroke-reason"] == "CROSS_SITE"
    assert list(answer) == ["error"]


def test_calls_and_their_images_are_logged(site: Site) -> None:
    """By the path's pattern, so that nobody can make many names."""
    infer(site, IMAGE, id="logged")

    wait_until(lambda: any("POST /v2/models/{name}/infer id=logged code=OK" in line for line in site.log))
    wait_until(lambda: any("id=logged code=OK model=tiny/1" in line for line in site.log))


def test_gate_stands_before_the_protocol_too(tiny_models: Path, tmp_path: Path) -> None:
    """Without a token there is health and nothing else."""
    port = find_free_port()
    tokens = write_tokens(tmp_path / "tokens", ward="", reader="roles=read")
    with run_server(tiny_models, "--tokens", str(tokens), "--http", f"127.0.0.1:{port}") as server:
        site = Site(port, server.log)
        body, length = make_body(IMAGE)

        def ask(name: str) -> tuple[int, str]:
            headers = {"authorization": f"Bearer {token_of(name)}"} if name else {}
            status, _, found = site.ask("POST", INFER, body, inference_header_content_length=length, **headers)
            return status, found.get("stroke-reason", "")

        assert ask("") == (401, "TOKEN_MISSING")
        assert ask("reader") == (403, "ROLE_MISSING")
        assert ask("ward") == (200, "")
        assert site.ask("GET", "/v2/health/ready")[0] == site.ask("GET", "/v2/models/tiny/ready")[0] == 200
        assert site.ask("GET", "/v2/models/tiny")[0] == 401
