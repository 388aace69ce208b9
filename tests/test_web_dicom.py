"""DICOM files over HTTP: told by their bytes, judged and shown in the window of the model, or refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from client import StrokeClient
from server.images.dicom.window import BRAIN, apply_windows
from tests.dicom_files import PATIENT, make_dicom, make_enhanced, make_hu
from tests.fakes import SIDE, SPEC, encode, write_model
from tests.web_calls import WebServer, serve_web

HU = make_hu(side=SIDE)
SCAN = make_dicom(HU)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of a model with a window, and of one without."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, replace(SPEC, windows=(BRAIN,)))
    write_model(root, replace(SPEC, name="blind"))
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny,blind") as server:
        yield server


@pytest.mark.parametrize("kind", ["application/dicom", "application/octet-stream", "image/png", "form", "batch"])
@pytest.mark.parametrize("headless", [False, True])
def test_dicom_is_told_by_its_bytes(web: WebServer, kind: str, headless: bool) -> None:
    """However it comes; the answer is gRPC's."""
    scan = make_dicom(HU, headless=headless)
    with StrokeClient(web.socket) as client:
        expected = client.predict(scan)
    if kind == "batch":
        (found,) = web.post_form("/predict/batch", ("file", scan)).json["results"]
    elif kind == "form":
        found = web.post_form("/predict", ("file", scan)).json
    else:
        found = web.post_image(scan, content_type=kind).json

    assert found["class"] == expected.label
    assert found["positive_probability"] == pytest.approx(expected.positive_probability, abs=1e-7)


def test_dicom_is_seen_in_the_models_window(web: WebServer) -> None:
    """As is the PNG of that window: the same answer, and the same picture."""
    levels = apply_windows(HU.astype(np.float32), [BRAIN])[:, :, 0]
    by_dicom, by_png = web.post_image(SCAN).json, web.post_image(encode(levels)).json
    shown = web.ask("POST", "/render", SCAN, content_type="application/dicom")

    assert by_dicom["positive_probability"] == pytest.approx(by_png["positive_probability"], abs=1e-6)
    with Image.open(io.BytesIO(shown.body)) as picture:
        assert np.array_equal(np.asarray(picture)[:, :, 0], levels)


def test_frame_is_chosen(web: WebServer) -> None:
    """In the query or the form; without it a file with several is refused."""
    scan = make_enhanced(np.stack([np.full((SIDE, SIDE), level, np.int16) for level in (5, 75)]))
    first, second = (web.post_image(scan, f"?frame={frame}").json for frame in (1, 2))

    assert first["positive_probability"] < 0.1 < 0.9 < second["positive_probability"]
    assert web.post_form("/predict", ("file", scan), ("frame", "2")).json["class"] == second["class"]
    found = [web.post_image(scan, query).outcome for query in ("", "?frame=3", "?frame=x", "?frame=0")]
    assert found == [
        (422, "IMAGE_MULTI_FRAME"),
        (422, "IMAGE_FRAME_MISSING"),
        (400, "OPTION_INVALID"),
        (422, "IMAGE_MULTI_FRAME"),
    ]


REFUSED = {
    "MR": (make_dicom(HU, Modality="MR"), 422, "DICOM_MODALITY"),
    "no slope": (make_dicom(HU, RescaleSlope=None), 422, "DICOM_RESCALE_MISSING"),
    "cut short": (SCAN[:-100], 422, None),
    "unknown compression": (SCAN.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"), 415, None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_have_a_status_of_http(web: WebServer, case: str) -> None:
    """422 where the file is at fault, 415 where it is of a kind that is not taken."""
    scan, status, reason = REFUSED[case]
    found = web.post_image(scan)

    assert found.status == status
    assert found.json["reason"] == (reason or found.json["reason"])
    assert found.json["reason"].startswith("DICOM_")


def test_model_without_a_window_takes_none(web: WebServer) -> None:
    """And says so in its description."""
    assert web.post_image(SCAN, "?model=blind").outcome == (422, "DICOM_WINDOW_MISSING")
    windows = {one["name"]: one["windows"] for one in web.ask("GET", "/models").json["models"]}
    assert windows == {"tiny": [{"level": 40, "width": 80}], "blind": []}


def test_nothing_of_a_patient_comes_back(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """In no answer, error or line of the log."""
    caplog.set_level("DEBUG")
    scan = make_dicom(HU, **PATIENT)
    answers = [
        *(
            web.ask("POST", path, file, content_type="application/dicom")
            for path in ("/predict", "/render")
            for file in (scan, make_dicom(HU, Modality="MR", **PATIENT))
        ),
        *(web.post_form(path, ("file", scan)) for path in ("/study", "/predict/batch")),
    ]

    said = caplog.text + "".join(answer.body.decode("latin-1") for answer in answers)
    assert not [word for word in PATIENT.values() if word in said]
