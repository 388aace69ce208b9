"""docs/interop.md: its programs and commands are run as they stand, but for addresses."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format

from proto import inference_pb2
from server.oip.metadata import EXTENSIONS, HTTP_EXTENSIONS
from server.oip.outputs import NAMES
from tests.fakes import ROOT, run_server
from tests.oip_calls import calling, require_program, texts
from tests.scraping import find_free_port

PAGE = (ROOT / "docs" / "interop.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+) (\w+)\n(.*?)^```\n(?:\n((?:    [^\n]*\n)+))?", PAGE, re.MULTILINE | re.DOTALL)
"""Language, client, program, and what the page says that it prints."""

Addresses = tuple[str, str]


@pytest.fixture(scope="module")
def addresses() -> Iterator[Addresses]:
    """The server of the page, on free ports: gRPC's address and HTTP's."""
    (command,) = re.findall(r"^\$ python -m server (.+)$", PAGE, re.MULTILINE)
    http = f"127.0.0.1:{find_free_port()}"
    with run_server(ROOT / "models", *command.replace("127.0.0.1:8000", http).split()) as server:
        yield server.address, http


def find_block(language: str, client: str, number: int = 0) -> tuple[str, str]:
    """A program of the page, and what it prints."""
    found = [(text, shown) for kind, name, text, shown in BLOCKS if (kind, name) == (language, client)]
    return found[number]


def put_in(text: str, addresses: Addresses) -> str:
    """A program with the addresses of the server."""
    return text.replace("127.0.0.1:50051", addresses[0]).replace("127.0.0.1:8000", addresses[1])


def run(command: list[str], program: str = "", folder: Path = ROOT) -> str:
    """What a program prints, run from the root."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        command, input=program, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


@pytest.mark.parametrize(("client", "number"), [("tritonclient", 0), ("tritonclient", 1), ("kserve", 0)])
def test_programs_print_what_the_page_says(client: str, number: int, addresses: Addresses) -> None:
    """In the clients' own environments."""
    program, shown = find_block("python", client, number)

    assert run([str(require_program(client)), "-"], put_in(program, addresses)).splitlines()[-1] == shown.strip()


def test_curl_gets_a_label(addresses: Addresses) -> None:
    """With a shell and base64."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not here: its line was not run")
    program, _ = find_block("sh", "curl")

    answer = json.loads(run(["sh", "-c", put_in(program, addresses)]))

    assert [(output["name"], output["data"]) for output in answer["outputs"]] == [("label", ["stroke"])]


def test_input_of_perf_analyzer_is_what_the_server_reads(addresses: Addresses, tmp_path: Path) -> None:
    """The program is run, and its file is sent as perf_analyzer sends it, which other tests run."""
    program, _ = find_block("python", "perf_analyzer")
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    run(["python3", "-"], program, tmp_path)
    element = json.loads((tmp_path / "input.json").read_text())["data"][0]["image"]["b64"]
    request = inference_pb2.ModelInferRequest(
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [1, 1]}],
        raw_input_contents=[base64.b64decode(element)],
        outputs=[{"name": "label"}],
    )
    with calling(addresses[0]) as caller:
        assert caller.infer(request).raw_output_contents[0].endswith(b"stroke")


def test_request_of_grpcurl_is_one(addresses: Addresses) -> None:
    """Its JSON is protobuf's; methods and messages that it asks for are there."""
    program, _ = find_block("sh", "grpcurl")
    (document,) = re.findall(r"-d '(.*?)' \\\n", program, re.DOTALL)
    image = base64.b64encode((ROOT / "samples" / "stroke-1.png").read_bytes()).decode()
    document = re.sub(r"'\"\$\(base64 .*?\)\"'", image, document)
    request = json_format.Parse(document, inference_pb2.ModelInferRequest())

    with calling(addresses[0]) as caller:
        assert texts(caller.infer(request), "status") == [b"ANALYSED"]
    for name in re.findall(r"inference\.(\w+)", program):
        assert name in inference_pb2.DESCRIPTOR.message_types_by_name or name == "GRPCInferenceService"


def test_page_names_what_there_is() -> None:
    """Methods, outputs, extensions, reasons: all of them, and no others."""
    service = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    table = "\n".join(line for line in PAGE.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`([A-Z]\w+)`", table)) == {method.name for method in service.methods}
    for name in (*NAMES, *EXTENSIONS, *HTTP_EXTENSIONS):
        assert f"`{name}`" in PAGE
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "server").rglob("*.py"))
    for reason in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", PAGE):
        assert reason in code or reason == "LD_LIBRARY_PATH", reason
