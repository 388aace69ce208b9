"""The API's definition and its committed stubs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from proto import stroke_pb2
from server.images.checks import BLANK, INVERTED, NO_HEAD
from tests.fakes import ROOT

PROTO = ROOT / "proto" / "stroke.proto"
WITH_SERVICES = ("stroke", "admin")
STUBS = (
    *(f"{name}_pb2{end}" for name in WITH_SERVICES for end in (".py", ".pyi", "_grpc.py")),
    *("inference_pb2.py", "inference_pb2.pyi"),
)


def run_protoc(file: str, *flags: str) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *flags, f"proto/{file}"]
    subprocess.run(command, cwd=ROOT, check=True)


def test_committed_stubs_are_those_of_the_proto(tmp_path: Path) -> None:
    """``make proto`` would change nothing."""
    for name in WITH_SERVICES:
        flags = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
        run_protoc(f"{name}.proto", *flags)
    run_protoc("inference.proto", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}")

    for name in STUBS:
        assert (tmp_path / "proto" / name).read_text() == (ROOT / "proto" / name).read_text(), "run: make proto"


@pytest.mark.parametrize("name", ["stroke.proto", "admin.proto", "inference.proto"])
def test_everything_has_a_comment(name: str, tmp_path: Path) -> None:
    """Every service, method, message and field is documented where integrators read it."""
    run_protoc(name, "--include_source_info", f"--descriptor_set_out={tmp_path / 'set'}")
    (file,) = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "set").read_bytes()).file
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
    wanted = {}
    for m, message in enumerate(file.message_type):
        wanted[(4, m)] = message.name
        wanted |= {(4, m, 2, f): f"{message.name}.{field.name}" for f, field in enumerate(message.field)}
    for s, service in enumerate(file.service):
        wanted[(6, s)] = service.name
        wanted |= {(6, s, 2, m): method.name for m, method in enumerate(service.method)}

    assert [name for path, name in wanted.items() if path not in commented] == []
    assert len(wanted) > 50


def test_field_numbers_never_change() -> None:
    """Additive change only: what was released keeps its number and type."""
    fields = {
        f"{message.name}.{field.name}": field.number
        for message in stroke_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
    released = {
        "PredictRequest.image": 1,
        "PredictRequest.model_name": 2,
        "PredictRequest.model_version": 3,
        "PredictRequest.image_sha256": 4,
        "PredictRequest.id": 5,
        "PredictResponse.id": 1,
        "PredictResponse.label": 2,
        "PredictResponse.confidence": 3,
        "PredictResponse.scores": 4,
        "PredictResponse.threshold": 5,
        "PredictResponse.model_name": 6,
        "PredictResponse.model_version": 7,
        "PredictResponse.model_digest": 8,
        "PredictResponse.image_sha256": 9,
        "PredictResponse.timings": 10,
        "PredictResponse.warnings": 11,
        "PredictStreamResponse.response": 1,
        "PredictStreamResponse.error": 2,
        "PredictError.code": 2,
        "PredictError.reason": 3,
        "Model.name": 1,
        "Model.version": 2,
        "Model.digest": 3,
        "Model.precision": 15,
        "Model.runtime": 16,
        "Model.runtime_version": 17,
        "Model.threads": 18,
        "Model.busy_threads": 19,
        "Model.workers": 20,
        "Model.profile": 21,
        "Model.model_card": 22,
        "Model.server_version": 23,
        "PredictResponse.positive_label": 12,
        "PredictResponse.positive_probability": 13,
        "PredictResponse.status": 14,
        "PredictResponse.reasons": 15,
        "PredictResponse.channel": 16,
        "Reason.reason": 1,
        "Reason.message": 2,
        "PredictResponse.positive_labels": 18,
        "PredictStudyResponse.positive_labels": 20,
        "Model.positive_labels": 30,
    }

    assert released.items() <= fields.items()


@pytest.mark.parametrize(
    ("sentence", "module"),
    [(r"UPPER_SNAKE: ([A-Z_, ]+)\.", "preprocess.py"), (r"Of DICOM files also ([A-Z_, ]+) \(", "dicom/file.py")],
)
def test_warning_reasons_in_the_comment_are_those_of_the_gate(sentence: str, module: str) -> None:
    """The list that integrators read is the list that the code can produce."""
    stated = re.search(sentence, PROTO.read_text())
    produced = set(re.findall(r'ImageWarning\(\s*"([A-Z_]+)"', (ROOT / "server" / "images" / module).read_text()))

    assert stated is not None
    assert set(stated[1].split(", ")) == produced


def test_reasons_in_the_comment_are_those_of_the_checks() -> None:
    """The same of the reasons for which an image is not analysed."""
    stated = re.search(r"UPPER_SNAKE, one of ([A-Z_, ]+) ", PROTO.read_text())
    assert stated is not None

    assert set(stated[1].split(", ")) == {reason.reason for reason in (BLANK, INVERTED, NO_HEAD)}
