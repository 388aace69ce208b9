"""What comes with an image stays with it: nothing of names, tags, tokens and errors is in statuses, logs or metrics.

An id is the caller's own name for a request: it is in its answer and in the log, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from client import StrokeClient
from proto import stroke_pb2 as pb
from tests.fakes import ServerProcess, encode, make_slice, run_server, wait_until
from tests.scraping import Page, find_free_port, scrape

SECRET = "Zx9Secret"
"""Part of everything that is planted, but of ids."""

FAULT = b"fault"
TOKEN = f"{SECRET}-token"
WRONG = (("authorization", f"Bearer {SECRET}-wrong"),)
METADATA = (
    ("authorization", f"Bearer {TOKEN}"),
    ("x-patient", f"{SECRET}-patient"),
    ("x-patient-bin", f"{SECRET}-bytes".encode()),
    ("traceparent", f"00-{SECRET}-b7ad6b7169203331-01"),
)
FAULTY_SERVER = f"""
import sys, threading
import server.core.detector as detector
from server.cli import main

class Dying:
    def __del__(self):
        raise ValueError("{SECRET} in a finalizer")

def fail(image):
    raise ValueError(f"{SECRET} in {{image!r}}")

load_pixels = detector.load_pixels

def load(image, *rest):
    if image.endswith({FAULT!r}):
        threading.Thread(target=fail, args=(image,)).start()
        Dying()
        try:
            fail(image)
        except ValueError as error:
            raise RuntimeError("/scans/{SECRET}.png") from error
    return load_pixels(image, *rest)

detector.load_pixels = load
sys.exit(main(sys.argv[1:]))
"""


def make_images() -> dict[str, bytes]:
    """Images with text about a patient in them: some that are judged, some that are refused, one that is our fault."""
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x9286] = f"{SECRET} description", f"{SECRET} artist", f"{SECRET} comment"
    text = PngInfo()
    text.add_text("Title", f"{SECRET} title")
    text.add_text("Comment", f"{SECRET} comment" * 50, zip=True)
    text.add_itxt("Author", f"{SECRET} author")
    jpeg = encode(make_slice(), "JPEG", exif=exif, comment=f"{SECRET} in a comment".encode())
    png = encode(make_slice(), "PNG", exif=exif, pnginfo=text)
    return {
        "jpeg": jpeg,
        "png": png,
        "cut-jpeg": jpeg[:-200],
        "cut-png": png[:-200],
        "altered-png": png.replace(b"IDAT", SECRET[:4].encode()),
        "text": f"{SECRET} is no image".encode(),
        "dicom": bytes(128) + b"DICM" + f"{SECRET}^Jane".encode(),
        "fault": png + FAULT,
    }


def write_tokens(folder: Path) -> Path:
    """A file with the token of one client."""
    path = folder / "tokens"
    path.write_text(f"ward-3 {hashlib.sha256(TOKEN.encode()).hexdigest()} roles=predict\n")
    path.chmod(0o600)
    return path


def list_words(error: grpc.RpcError) -> str:
    """All that a refused caller is told."""
    status: Any = error
    return repr((status.code(), status.details(), status.initial_metadata(), status.trailing_metadata()))


def send_file(server: ServerProcess, folder: Path) -> None:
    """Sends a file whose name is a patient's."""
    path = folder / f"{SECRET}-Jane.png"
    path.write_bytes(make_images()["png"])
    with StrokeClient(server.address) as client:
        client.predict(path)


def call(server: ServerProcess) -> Iterator[str]:
    """Sends everything in every way; yields what comes back."""
    images = make_images()
    with server.stub() as stub:
        requests = [pb.PredictRequest(image=image, id=f"id-{name}") for name, image in images.items()]
        requests.append(pb.PredictRequest(image=images["png"], id=f"{SECRET} é"))
        requests.append(pb.PredictRequest(image=images["png"], image_sha256=f"{SECRET}-digest"))
        for request in requests:
            try:
                yield str(stub.Predict(request, metadata=METADATA, timeout=30))
            except grpc.RpcError as error:
                yield list_words(error)
        yield from map(str, stub.PredictStream(iter(requests), metadata=METADATA, timeout=30))
        yield from map(str, stub.PredictBatches(iter([pb.PredictBatchesRequest(requests=requests)]), metadata=METADATA))
        with pytest.raises(grpc.RpcError) as refusal:  # the name of the model is answered to whoever sent it
            stub.Predict(pb.PredictRequest(model_name=f"{SECRET}-model"), metadata=METADATA, timeout=30)
        assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
        stub.Predict(pb.PredictRequest(image=images["png"], id="id-last"), metadata=METADATA, timeout=30)


@pytest.mark.parametrize(("log_format", "has_tokens"), [("text", False), ("json", True)])
def test_nothing_that_was_planted_is_found(
    tiny_models: Path, tmp_path: Path, log_format: str, has_tokens: bool
) -> None:
    """In statuses, trailers, answers, log, metrics, audit log, and what is said of errors that nobody caught."""
    port = find_free_port()
    audit = tmp_path / "audit.jsonl"
    flags = ["--metrics-port", str(port), "--log-format", log_format, "--audit", str(audit)]
    if has_tokens:
        flags += ["--tokens", str(write_tokens(tmp_path))]
    with run_server(tiny_models, *flags, program=(sys.executable, "-c", FAULTY_SERVER)) as server:
        if has_tokens:
            with server.stub() as stub, pytest.raises(grpc.RpcError) as refusal:
                stub.Predict(pb.PredictRequest(), metadata=WRONG, timeout=30)
            assert SECRET not in list_words(refusal.value)
        else:
            send_file(server, tmp_path)
        answers = list(call(server))
        wait_until(lambda: any("id-last" in line for line in server.log))
        page: Page = scrape(port)
        assert server.stop() == 0
        log = "".join(server.log)

    lines = audit.read_text()
    for text in (*answers, log, page.text, lines):
        assert SECRET not in text
    assert "id-jpeg" in lines
    assert len(answers) == 21
    assert ("UNAUTHENTICATED" in log) == ("ward-3" in log) == has_tokens
    assert any("Internal error of the server (id id-fault)" in answer for answer in answers)
    assert page.get("stroke_requests_total", code="INTERNAL", reason="INTERNAL") == 1
    assert "id-" not in page.text
    assert "id-jpeg" in log
    assert "internal error id=id-fault" in log  # with where it was raised, and what it is
    assert log.count("builtins.RuntimeError") >= 3
    assert "unhandled error in thread" in log
    assert "in __del__" in log
    if log_format == "json":
        assert all(json.loads(line)["message"] for line in server.log if line.strip())
