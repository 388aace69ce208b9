"""Clients that others wrote, unmodified, each in an environment of its own: make install-neighbours."""

from __future__ import annotations

import base64
import ctypes.util
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proto import __version__, inference_pb2
from tests.access import token_of, write_tokens
from tests.certificates import CA, chain, issue_server, key
from tests.fakes import ROOT, encode, make_slice, run_server
from tests.oip_calls import ask, calling, make_raw, require_program
from tests.scraping import find_free_port

SCRIPTS = ROOT / "tests" / "neighbours"
IMAGES = (encode(make_slice(60)), encode(make_slice(200), "JPEG"))
LABELS = ["normal", "stroke"]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of images."""
    folder = tmp_path_factory.mktemp("scans")
    for number, image in enumerate(IMAGES):
        (folder / str(number)).write_bytes(image)
    return [str(folder / str(number)) for number in range(len(IMAGES))]


@pytest.fixture(scope="module")
def addresses(tiny_models: Path) -> Iterator[tuple[str, str]]:
    """Of a server's gRPC and HTTP."""
    port = find_free_port()
    with run_server(tiny_models, "--http", f"127.0.0.1:{port}") as server:
        yield server.address, f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def expected(addresses: tuple[str, str]) -> list[list[float]]:
    """Probabilities of the images."""
    with calling(addresses[0]) as caller:
        raw = caller.infer(ask(*IMAGES, outputs=["probabilities"])).raw_output_contents[0]
    found: list[list[float]] = np.frombuffer(raw, "<f4").reshape(2, 2).tolist()
    return found


def run(neighbour: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints in a neighbour's environment."""
    python = require_program(neighbour)
    # Nothing of this checkout may be imported in its place.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(python), str(SCRIPTS / script), *arguments],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return told


def check_common(told: dict[str, Any], expected: list[list[float]]) -> None:
    """What tritonclient is told over both transports."""
    assert (told["live"], told["ready"], told["model_ready"], told["other_ready"]) == (True, True, True, False)
    assert told["server"]["name"] == "strokeserve"
    assert told["server"]["version"] == __version__
    assert told["model"]["inputs"][0]["name"] == "image"
    answer = told["answer"]
    assert (answer["id"], answer["version"], answer["threshold"]) == ("x-1", "1", 0.05)
    assert np.allclose(answer["probabilities"], expected)
    assert answer["label"] == LABELS
    assert answer["status"] == ["ANALYSED", "ANALYSED"]
    assert answer["image_sha256"] == [hashlib.sha256(image).hexdigest() for image in IMAGES]
    assert [text.split(":", 1)[1] for text in told["classes"]] == ["0:normal", "1:stroke"]
    assert set(told["pixels"]) == {"stroke"}


def test_tritonclient_over_grpc(addresses: tuple[str, str], scans: list[str], expected: list[list[float]]) -> None:
    """Health, metadata, configuration, several images, classes, pixels, compression, errors, and a stream."""
    told = run("tritonclient", "tritonclient_grpc.py", addresses[0], "", "", *scans)

    check_common(told, expected)
    assert told["config"]["config"]["max_batch_size"] == 32
    assert told["index"]["models"] == [{"name": "tiny", "version": "1", "state": "READY"}]
    status, message = told["error"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message.startswith("Element 1 of input 'image' (of 2): The file is in no known image format.")
    assert [one.partition(":")[0] for one in told["stream"]] == ["0", "1", "2", "IMAGE_UNDECODABLE", "4", "5"]
    check_fields(told["fields"])


def check_fields(theirs: dict[str, list[Any]]) -> None:
    """All of our messages are theirs: the same names, numbers and types."""
    ours: dict[str, list[Any]] = {}
    todo = list(inference_pb2.DESCRIPTOR.message_types_by_name.values())
    while todo:
        message = todo.pop()
        todo += message.nested_types
        ours |= {field.full_name: [field.number, field.type] for field in message.fields}
    for enum in inference_pb2.DESCRIPTOR.enum_types_by_name.values():
        ours |= {f"{enum.full_name}.{value.name}": [value.number, 0] for value in enum.values}
    for method in inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        kinds = (method.input_type.full_name, method.output_type.full_name)
        ours[method.full_name] = [*kinds, method.client_streaming]

    assert len(ours) > 80
    assert {name: number for name, number in ours.items() if theirs.get(name) != number} == {}


def test_tritonclient_over_http(addresses: tuple[str, str], scans: list[str], expected: list[list[float]]) -> None:
    """The same; tensors are bytes behind the JSON, or JSON; errors are what it reads."""
    told = run("tritonclient", "tritonclient_http.py", addresses[1], "", "", *scans)

    check_common(told, expected)
    assert "binary_tensor_data" in told["server"]["extensions"]
    assert told["config"]["max_batch_size"] == 32
    assert told["index"] == [{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]
    assert told["json_label"] == LABELS
    undecodable, unknown, unsupported = told["errors"]
    assert undecodable[0] == "415"
    assert undecodable[1].startswith("Element 1 of input 'image' (of 2): The file is in no known image format.")
    assert unknown == ["404", "No model 'other' is served here; served: tiny 1."]
    assert unsupported[0] == "404"


def test_kserve_sdk(addresses: tuple[str, str], scans: list[str], expected: list[list[float]]) -> None:
    """Both of its clients: contents and raw contents over gRPC, bytes behind JSON over HTTP."""
    told = run("kserve", "kserve_clients.py", addresses[0], f"http://{addresses[1]}", *scans)

    assert told["grpc_health"] == told["http_health"] == [True, True, True, False]
    for form in ("contents", "raw", "http", "http_binary"):
        assert told[form]["label"] == LABELS, form
        assert np.allclose(np.reshape(told[form]["probabilities"], (2, 2)), expected), form
    assert told["pixels"] == ["stroke"]


def test_tritonclient_by_tls_with_a_token(tiny_models: Path, scans: list[str], tmp_path: Path) -> None:
    """Over both transports, by its own options."""
    own = issue_server()
    (tmp_path / "ca.pem").write_bytes(CA)
    (tmp_path / "server.pem").write_bytes(chain(own))
    (tmp_path / "server.key").write_bytes(key(own))
    (tmp_path / "server.key").chmod(0o600)
    tokens = write_tokens(tmp_path / "tokens", ward="")
    port = find_free_port()
    flags = ["--tokens", str(tokens), "--tls-cert", str(tmp_path / "server.pem")]
    flags += ["--tls-key", str(tmp_path / "server.key"), "--http", f"127.0.0.1:{port}"]
    with run_server(tiny_models, *flags) as server:
        for script, address in (("tritonclient_grpc.py", server.address), ("tritonclient_http.py", port)):
            number = str(address).rpartition(":")[2]
            given = (f"localhost:{number}", str(tmp_path / "ca.pem"), token_of("ward"))
            told = run("tritonclient", script, *given, *scans)
            assert told["answer"]["label"] == LABELS


def test_perf_analyzer_runs(addresses: tuple[str, str], tmp_path: Path) -> None:
    """NVIDIA's load generator, with several images in a request, with a stream, and over HTTP."""
    program = require_program("perf_analyzer", "perf_analyzer")
    if ctypes.util.find_library("b64") is None:
        pytest.skip("libb64 is not here (Debian: libb64-0d), which perf_analyzer needs: it was not run")
    image = base64.b64encode(make_raw(IMAGES[:1])).decode()
    (tmp_path / "input.json").write_text(json.dumps({"data": [{"image": {"b64": image}}]}))
    common = ["--input-data", str(tmp_path / "input.json"), "--request-count", "10", "--concurrency-range", "2"]
    library = next(program.parent.parent.rglob("libcudart.so*")).parent

    for transport, address, more in (
        ("grpc", addresses[0], ["-b", "4"]),
        ("grpc", addresses[0], ["--streaming", "-a"]),
        ("http", addresses[1], []),
    ):
        result = subprocess.run(
            [str(program), "-m", "tiny", "-i", transport, "-u", address, *more, *common],
            env={**os.environ, "LD_LIBRARY_PATH": str(library)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        assert "Request count: 10" in result.stdout, result.stdout
