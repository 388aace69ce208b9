"""Explain on the wire: what it answers, when it does not, and that it goes the way of Predict."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from proto import stroke_pb2 as pb
from proto import stroke_pb2_grpc
from tests.explaining import CELLS, make_corner, write_explained
from tests.fakes import SPEC, ServerProcess, encode, make_slice, run_server, wait_until, with_version, write_model
from tests.test_server_service import reason_of

CORNER = encode(make_corner())
TIMEOUT = 60


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory, audit: Path) -> Iterator[ServerProcess]:
    """A server with --explain: a model that has a heatmap, one that has none, and one that looks for heads."""
    root = tmp_path_factory.mktemp("models")
    write_explained(root)
    write_model(root, replace(SPEC, name="plain"))
    write_explained(root, replace(SPEC, name="careful", checks="head-ct"))
    flags = ("--explain", "--model", "tiny,plain,careful", "--audit", str(audit))
    with run_server(root, *flags) as server:
        yield server


@pytest.fixture
def stub(explaining: ServerProcess) -> Iterator[stroke_pb2_grpc.StrokeServiceStub]:
    with explaining.stub() as stub:
        yield stub


def test_heatmap_shows_where_the_evidence_is(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """The bright corner, in rows from the top and columns from the left."""
    answer = stub.Explain(pb.PredictRequest(image=CORNER, id="case-1"), timeout=TIMEOUT)

    cells = np.array(answer.heatmap).reshape(answer.heatmap_height, answer.heatmap_width)
    assert cells.shape == (CELLS, CELLS)
    assert cells[0, 0] == pytest.approx((250 - 128) / 100, abs=0.01)
    assert np.count_nonzero(cells) == 1
    edges = (answer.heatmap_left, answer.heatmap_top, answer.heatmap_right, answer.heatmap_bottom)
    assert edges == (0, 0, 512, 512)


def test_overlay_is_a_picture_of_the_slice_with_heat_on_it(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """Colour where the evidence is, grey elsewhere, and the notice along the lower edge."""
    answer = stub.Explain(pb.PredictRequest(image=CORNER), timeout=TIMEOUT)

    picture = Image.open(io.BytesIO(answer.overlay_png))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (512, 512))
    pixels = np.asarray(picture).astype(int)
    red, green, blue = pixels[64, 64]
    assert red > green + 50 > blue + 50
    assert np.ptp(pixels[300, 300]) == 0


def test_prediction_is_that_of_predict(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """To the last bit, but for what took how long."""
    request = pb.PredictRequest(image=CORNER, id="case-2", image_sha256=hashlib.sha256(CORNER).hexdigest())

    explained, predicted = stub.Explain(request, timeout=TIMEOUT).prediction, stub.Predict(request, timeout=TIMEOUT)

    for answer in (explained, predicted):
        answer.ClearField("timings")
    assert explained == predicted


def test_image_that_is_not_analysed_has_no_heatmap(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """What does not count is not shown; why it does not is in the prediction."""
    request = pb.PredictRequest(image=encode(make_slice()), model_name="careful")

    answer = stub.Explain(request, timeout=TIMEOUT)

    assert answer.prediction.status == pb.PredictResponse.NOT_ANALYSED
    assert answer.prediction.reasons
    assert [field.name for field, _ in answer.ListFields()] == ["prediction"]


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"model_name": "plain"}, grpc.StatusCode.FAILED_PRECONDITION, "MODEL_CANNOT_EXPLAIN"),
        ({"model_name": "other"}, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ({"image_sha256": "0" * 64}, grpc.StatusCode.DATA_LOSS, "IMAGE_ALTERED"),
        ({"image": b"GIF89a"}, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE"),
        ({"frame": 2}, grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_FRAME_MISSING"),
        ({"id": "two\nlines"}, grpc.StatusCode.INVALID_ARGUMENT, "ID_INVALID"),
    ],
)
def test_refusals_are_those_of_predict(
    stub: stroke_pb2_grpc.StrokeServiceStub, change: dict[str, object], code: grpc.StatusCode, reason: str
) -> None:
    """The same way, the same reasons; and one of its own."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.Explain(pb.PredictRequest(**({"image": CORNER} | change)), timeout=TIMEOUT)

    assert (refusal.value.code(), reason_of(refusal.value)) == (code, reason)
    assert refusal.value.details().endswith(".")


def test_models_say_whether_they_are_explained(stub: stroke_pb2_grpc.StrokeServiceStub) -> None:
    """So that nobody has to try."""
    models = stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT).models

    assert {model.name: model.explains for model in models} == {"tiny": True, "plain": False, "careful": True}


def test_audit_and_log_call_it_explain(
    stub: stroke_pb2_grpc.StrokeServiceStub, explaining: ServerProcess, audit: Path
) -> None:
    """Whoever looks afterwards sees who was shown a place."""
    stub.Explain(pb.PredictRequest(image=CORNER, id="case-3"), timeout=TIMEOUT)

    def find() -> list[dict[str, object]]:
        entries = map(json.loads, audit.read_text().splitlines())
        return [entry for entry in entries if entry.get("id") == "case-3"]

    wait_until(find)
    assert find()[0]["method"] == "Explain"
    wait_until(lambda: any("Explain id=case-3 code=OK" in line for line in explaining.log))


def test_without_the_setting_nothing_is_explained(tmp_path: Path) -> None:
    """Off unless somebody decides otherwise, whatever the model has; and then it costs nothing."""
    write_explained(tmp_path)
    with run_server(tmp_path) as server, server.stub() as stub:
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Explain(pb.PredictRequest(image=CORNER), timeout=TIMEOUT)

        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert reason_of(refusal.value) == "EXPLAIN_DISABLED"
        assert not stub.GetModel(pb.GetModelRequest(), timeout=TIMEOUT).explains
        assert stub.Predict(pb.PredictRequest(image=CORNER), timeout=TIMEOUT).label


def test_each_version_explains_its_own_answers(tmp_path: Path) -> None:
    """A version that was asked for is explained by its own file, beside one that has none."""
    write_explained(tmp_path)
    write_model(tmp_path, with_version("2"))
    with run_server(tmp_path, "--explain", "--model", "tiny/2,tiny/1") as server, server.stub() as stub:
        old = stub.Explain(pb.PredictRequest(image=CORNER, model_version="1"), timeout=TIMEOUT)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.Explain(pb.PredictRequest(image=CORNER), timeout=TIMEOUT)

    assert old.overlay_png
    assert reason_of(refusal.value) == "MODEL_CANNOT_EXPLAIN"
