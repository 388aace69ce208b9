"""DICOM files on their way through what is there for PNG and JPEG: a served model, and the converter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from proto import stroke_pb2 as pb
from server.images.dicom.window import BRAIN, apply_windows
from server.images.preprocess import InputFormat
from tests.dicom_files import PATIENT, make_dicom, make_enhanced, make_hu
from tests.fakes import SPEC, ServerProcess, encode, run_server, write_model

TIMEOUT = 60
HU = make_hu(side=200)
EXPORTED = encode(apply_windows(HU.astype(np.float32), [BRAIN])[:, :, 0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a tiny model that sees CT values in the brain window."""
    models = tmp_path_factory.mktemp("models")
    write_model(models, replace(SPEC, windows=(BRAIN,)))
    with run_server(models) as running:
        yield running


def test_dicom_is_judged_as_its_export_in_the_models_window(server: ServerProcess) -> None:
    """The same probability: 1e-3 would do, and nothing at all is between them."""
    with server.stub() as stub:
        exported, dicom, second = (
            stub.Predict(pb.PredictRequest(image=image, frame=frame), timeout=TIMEOUT).positive_probability
            for image, frame in (
                (EXPORTED, 0),
                (make_dicom(HU), 0),
                (make_enhanced(np.stack([np.zeros_like(HU), HU])), 2),
            )
        )

    assert 0.01 < exported < 0.99
    assert exported == dicom == second


def test_refusal_reaches_the_caller_and_nothing_of_the_patient_the_log(server: ServerProcess) -> None:
    """As of any other image."""
    with server.stub() as stub, pytest.raises(grpc.RpcError) as refusal:
        stub.Predict(pb.PredictRequest(image=make_dicom(HU, Modality="MR")), timeout=TIMEOUT)

    error = refusal.value
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.trailing_metadata())["stroke-reason"] == "DICOM_MODALITY"
    said = f"{error.details()} {server.log}"
    assert not [value for value in PATIENT.values() if value in said]


@pytest.mark.tensorflow
def test_converter_reads_folders_of_dicom_files(tmp_path: Path) -> None:
    """In the window that the model is to have."""
    from converter.verify import load_images

    (tmp_path / "IM0001").write_bytes(make_dicom(HU))
    (tmp_path / "1.dcm").write_bytes(make_dicom(HU, headless=True))
    (tmp_path / "2.png").write_bytes(EXPORTED)

    images = load_images(tmp_path, InputFormat(64, 64, windows=(BRAIN,)))

    assert len(images) == 3
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])
