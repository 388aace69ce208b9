"""PredictStudy against real server processes: one answer for a study, and nothing in it of whose it is."""

from __future__ import annotations

import json
import queue
import random
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from pydicom.datadict import DicomDictionary

from proto import stroke_pb2 as pb
from proto.stroke_pb2_grpc import StrokeServiceStub
from tests.access import token_of, write_tokens
from tests.dicom_files import make_dicom
from tests.fakes import ServerProcess, encode, run_server, wait_until, write_model
from tests.fakes import make_slice as make_pixels
from tests.scraping import find_free_port, scrape
from tests.studies import SERIES, STUDY, STUDY_SPEC, TIMEOUT, make_requests, make_scan, make_series, make_slice

ANALYSED, NOT_ANALYSED = pb.PredictResponse.ANALYSED, pb.PredictResponse.NOT_ANALYSED
SECRET = "ZZWALDEMAR"
"""Stands in every element that holds text; it may turn up nowhere."""

TEXTS = {"AE": 16, "CS": 16, "LO": 64, "LT": 200, "PN": 64, "SH": 16, "ST": 200, "UC": 64, "UR": 64, "UT": 200}
"""Value representations of text, and how long one may be."""

KINDS = ("PhotometricInterpretation", "RescaleType", "SpecificCharacterSet")
"""What pixels and texts are read by."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_model(root, STUDY_SPEC)
    return root


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[ServerProcess]:
    """Takes studies of at most 40 slices."""
    with run_server(models, "--study-slices", "40") as running:
        yield running


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[StrokeServiceStub]:
    with server.stub() as stub:
        yield stub


def ask(stub: StrokeServiceStub, requests: list[pb.PredictStudyRequest]) -> pb.PredictStudyResponse:
    return stub.PredictStudy(iter(requests), timeout=TIMEOUT)


def find_refusal(stub: StrokeServiceStub, requests: list[pb.PredictStudyRequest]) -> tuple[str, str, bool]:
    """Code, reason, and whether it may pass."""
    with pytest.raises(grpc.RpcError) as refusal:
        ask(stub, requests)
    metadata = dict(refusal.value.trailing_metadata())
    return refusal.value.code().name, metadata.get("stroke-reason", ""), "grpc-retry-pushback-ms" in metadata


def test_study_has_one_answer(stub: StrokeServiceStub) -> None:
    """With all that the contract promises; in whatever order slices come."""
    files = make_series(10, (60, 70, 50))
    requests = [pb.PredictStudyRequest(image=file, id=f"s{number}") for number, file in enumerate(files)]
    requests += [pb.PredictStudyRequest(image=make_slice(0, series="1.2.3", ImageType=["LOCALIZER"]), id="scout")]
    random.Random(2).shuffle(requests)
    requests[0].study_id = "study-7"
    answer = ask(stub, requests)

    highest = sorted((one.positive_probability for one in answer.slices), reverse=True)[:3]
    assert (answer.id, answer.status, answer.label) == ("study-7", ANALYSED, "stroke")
    assert answer.score == pytest.approx(sum(highest) / 3)
    assert (answer.threshold, answer.top_k, answer.positive_label) == (0.5, 3, "stroke")
    assert answer.first_look_id == "s1"
    assert [one.id for one in answer.slices] == [f"s{number}" for number in range(10)]
    assert [one.position_mm for one in answer.slices] == [5.0 * number for number in range(10)]
    assert [one.sop_instance_uid for one in answer.slices] == [f"{SERIES}.{number}" for number in range(1, 11)]
    assert all(one.status == ANALYSED and len(one.image_sha256) == 64 for one in answer.slices)
    assert (answer.study_instance_uid, answer.series.series_instance_uid) == (STUDY, SERIES)
    assert (answer.series.slices, answer.series.spacing_mm, answer.series.reason) == (10, 5.0, "")
    assert [(one.series_instance_uid, one.reason) for one in answer.left_out] == [("1.2.3", "LOCALIZER")]
    assert answer.left_out[0].message == "The rule wants slices, no localizer; this has a localizer (LOCALIZER)."
    assert (answer.model_name, answer.model_version, len(answer.model_digest)) == ("tiny", "1", 64)
    assert not answer.warnings
    assert not answer.failures


def test_single_image_has_the_same_probability(stub: StrokeServiceStub) -> None:
    """A study knows no other way through the model."""
    files = make_series(8, (33, 44, 55))
    answer = ask(stub, make_requests(files))
    singles = [stub.Predict(pb.PredictRequest(image=file), timeout=TIMEOUT).positive_probability for file in files]

    assert [one.positive_probability for one in answer.slices] == singles


def test_pictures_are_judged_in_the_order_of_their_ids(stub: StrokeServiceStub) -> None:
    """PNG and JPEG, with a warning."""
    pictures = {f"slice-{number}.png": encode(make_pixels(20 * number)) for number in (2, 10, 1)}
    answer = ask(stub, [pb.PredictStudyRequest(image=image, id=name) for name, image in pictures.items()])

    assert [one.id for one in answer.slices] == ["slice-1.png", "slice-2.png", "slice-10.png"]
    assert [one.reason for one in answer.warnings] == ["UNORDERED"]
    assert answer.first_look_id == "slice-10.png"
    assert answer.study_instance_uid == ""


def test_files_that_cannot_be_judged_are_told(stub: StrokeServiceStub) -> None:
    """Each with its error; the study goes on."""
    answer = ask(stub, make_requests([b"", make_slice(8, RescaleSlope=None), *make_series(8)]))

    assert [(one.id, one.error.reason, one.error.code) for one in answer.failures] == [("1", "IMAGE_EMPTY", 3)]
    failed = [one for one in answer.slices if one.HasField("error")]
    assert [(one.id, one.error.reason, one.status) for one in failed] == [("2", "DICOM_RESCALE_MISSING", 0)]
    assert [one.reason for one in answer.warnings] == ["SLICE_FAILED"]


def test_study_that_is_no_ct_is_not_analysed(stub: StrokeServiceStub) -> None:
    """It is an answer, and no error."""
    answer = ask(stub, make_requests(make_series(3, Modality="MR")))

    assert (answer.status, answer.label, answer.score) == (NOT_ANALYSED, "", 0.0)
    assert [one.reason for one in answer.reasons] == ["WRONG_MODALITY"]
    assert not answer.HasField("series")


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ([], ("INVALID_ARGUMENT", "REQUEST_MALFORMED", False)),
        (make_requests(make_series(41)), ("RESOURCE_EXHAUSTED", "STUDY_TOO_LARGE", False)),
        (make_requests(make_series(1), model_name="x"), ("NOT_FOUND", "MODEL_NOT_FOUND", False)),
        (make_requests(make_series(1), study_id="\n"), ("INVALID_ARGUMENT", "ID_INVALID", False)),
    ],
    ids=["none", "too many", "model", "id"],
)
def test_refusals_have_their_reasons(
    stub: StrokeServiceStub, requests: list[pb.PredictStudyRequest], expected: tuple[str, str, bool]
) -> None:
    assert find_refusal(stub, requests) == expected


def test_model_without_a_rule_judges_no_studies(tiny_server: ServerProcess) -> None:
    """Nobody has chosen a threshold for its studies."""
    with tiny_server.stub() as stub:
        refusal = find_refusal(stub, make_requests([encode(make_pixels())]))

    assert refusal == ("FAILED_PRECONDITION", "MODEL_WITHOUT_STUDIES", False)


def test_rules_of_a_file_are_those_of_the_server(models: Path, tmp_path: Path) -> None:
    """A file that cannot be used is said at the start."""
    rules = tmp_path / "rules.toml"
    rules.write_text("least_slices = 2\nmay_have_contrast = true\n")
    with run_server(models, "--study-rules", str(rules)) as server, server.stub() as stub:
        answer = ask(stub, make_requests(make_series(3, ContrastBolusAgent="APPLIED")))
    rules.write_text("least_slice = 2\n")
    with (
        pytest.raises(AssertionError, match="'least_slice' is no rule"),
        run_server(models, "--study-rules", str(rules)),
    ):
        pass

    assert answer.status == ANALYSED


def make_talkative(number: int, **tags: object) -> bytes:
    """A slice with the secret in every element that may hold text; kinds of the image and its UIDs are as they were."""
    words = {
        keyword: SECRET[: TEXTS[vr]]
        for tag, (vr, _, _, retired, keyword) in DicomDictionary.items()
        if vr in TEXTS and keyword and not retired and tag >> 16 > 4 and keyword not in KINDS
    }
    kept = {"Modality": "CT", "ImageType": ["ORIGINAL", SECRET, "AXIAL"], "BodyPartExamined": "", **tags}
    usual = {
        "SOPInstanceUID": f"{SERIES}.{number}",
        "ImagePositionPatient": [0, 0, 5 * number],
        "ContrastBolusAgent": "",
    }
    return make_dicom(make_scan(), **{**words, **usual, **kept})


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of pydicom, which writes them all the same
def test_nothing_of_a_patient_leaves_the_server_or_stays(models: Path, tmp_path: Path) -> None:
    """Neither in an answer nor in log, audit log, metrics or an error, at the log's highest level; whatever series is
    left out for. Only UIDs that are some."""
    port, audit = find_free_port(), tmp_path / "audit.jsonl"
    names = [*("Modality", "BodyPartExamined", "ContrastBolusAgent", "ConvolutionKernel", "SeriesDescription")]
    files = [make_talkative(number) for number in range(9)]
    for number, name in enumerate([*names, "SeriesInstanceUID", "StudyInstanceUID", "SOPInstanceUID"]):
        uid = {} if name.endswith("UID") else {"SeriesInstanceUID": f"1.2.{number}"}
        files.append(make_talkative(number, **uid, **{name: SECRET}))
    files.append(make_talkative(50, SeriesInstanceUID="1.9", ConvolutionKernel=f"BONE{SECRET}"))
    files.append(make_talkative(51, SeriesInstanceUID="1.8", SeriesDescription=f"CTA {SECRET}"))
    files.append(make_talkative(52, RescaleSlope=None))
    files += [file[: len(file) // 2] for file in files[:2]]
    flags = ("--audit", str(audit), "--metrics-port", str(port), "--log-level", "debug")
    with run_server(models, *flags) as server, server.stub() as stub:
        answer = ask(stub, make_requests(files))
        page = scrape(port).text
        assert server.stop() == 0
        texts = [str(answer), page, "".join(server.log), audit.read_text()]

    assert SECRET.encode() in files[0]
    assert answer.status == ANALYSED
    assert {one.reason for one in answer.left_out} >= {"WRONG_MODALITY", "OTHER_BODY_PART", "CONTRAST", "BONE_KERNEL"}
    for text in texts:
        assert "ZZWAL" not in text.upper()
        assert not re.search("Doe|MRN4711|19500101", text)


def test_study_is_in_log_audit_and_metrics(models: Path, tmp_path: Path) -> None:
    """A line for each slice that was judged or refused, which names the study, and one for the study; no UID."""
    port, audit = find_free_port(), tmp_path / "audit.jsonl"
    files = [*make_series(8, (60, 60, 60)), make_slice(0, series="1.2.3", Modality="MR"), b"garbage"]
    with run_server(models, "--audit", str(audit), "--metrics-port", str(port)) as server, server.stub() as stub:
        answer = ask(stub, make_requests(files, study_id="s-1"))
        ask(stub, make_requests(make_series(2, Modality="MR")))
        page = scrape(port)
        assert server.stop() == 0
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    slices = [line for line in lines if line["event"] == "image"]
    study = next(line for line in lines if line["event"] == "study")

    assert [line["study"] for line in slices] == ["s-1"] * 9
    assert sorted(line["code"] for line in slices) == ["INVALID_ARGUMENT"] + ["OK"] * 8
    assert (study["id"], study["method"], study["label"], study["score"]) == (
        *("s-1", "PredictStudy", "stroke", answer.score),
    )
    assert (study["slices"], study["analysed"], study["left_out"], study["failures"]) == (8, 8, 1, 1)
    assert (study["threshold"], study["top_k"], study["digest"]) == (0.5, 3, answer.model_digest)
    assert SERIES not in audit.read_text()
    assert any(
        "PredictStudy id=s-1 code=OK model=tiny/1 label=stroke slices=8 left_out=1 failures=1" in line
        for line in server.log
    )
    assert page.get("stroke_studies_total", model="tiny", version="1", outcome="positive") == 1
    assert page.get("stroke_studies_total", outcome="WRONG_MODALITY") == 1
    assert page.get("stroke_images_total", method="PredictStudy", code="OK") == 8
    assert page.get("stroke_requests_total", method="PredictStudy", code="OK") == 2


def test_mutated_files_are_slices_like_others(stub: StrokeServiceStub, server: ServerProcess) -> None:
    """Whatever a byte becomes: each study has its answer, and the server lives."""
    source = np.random.RandomState(5)
    good = make_series(8)
    for _ in range(12):
        files = []
        for file in good * 4:
            data = bytearray(file[: source.randint(1, len(file))] if source.rand() < 0.2 else file)
            for position in source.randint(0, min(len(data), 1500), source.randint(1, 6)):
                data[position] = source.randint(256)
            files.append(bytes(data))
        answer = ask(stub, make_requests([*good, *files]))
        told = len(answer.slices) + len(answer.failures) + sum(one.slices for one in answer.left_out)
        assert answer.status in (ANALYSED, NOT_ANALYSED)
        assert told == 40
    assert ask(stub, make_requests(good)).status == ANALYSED
    assert not [line for line in server.log if "internal error" in line]


def test_client_has_its_limits_for_studies_too(models: Path, tmp_path: Path) -> None:
    """A study with more slices than it may have in flight is slowed down, and comes through."""
    tokens = write_tokens(tmp_path / "tokens", ward="images=2", reader="roles=read")
    with run_server(models, "--tokens", str(tokens)) as server, server.stub() as stub:

        def ask_as(name: str) -> pb.PredictStudyResponse:
            metadata = [("authorization", f"Bearer {token_of(name)}")]
            return stub.PredictStudy(iter(make_requests(make_series(20))), timeout=TIMEOUT, metadata=metadata)

        assert len(ask_as("ward").slices) == 20
        with pytest.raises(grpc.RpcError) as refusal:
            ask_as("reader")
    assert dict(refusal.value.trailing_metadata())["stroke-reason"] == "ROLE_MISSING"


def test_study_takes_the_place_of_a_stream(models: Path) -> None:
    """Which is free again at its end, also of a caller that goes."""
    with run_server(models, "--streams", "1") as server, server.stub() as stub:
        outbox: queue.Queue[pb.PredictStudyRequest | None] = queue.Queue()
        first = stub.PredictStudy.future(iter(outbox.get, None), timeout=TIMEOUT)
        outbox.put(make_requests(make_series(1))[0])
        wait_until(lambda: any("PredictStudy image" in line for line in server.log))
        assert find_refusal(stub, make_requests(make_series(1)))[1:] == ("TOO_MANY_STREAMS", True)
        first.cancel()
        outbox.put(None)
        wait_until(lambda: any("PredictStudy id=" in line and "code=CANCELLED" in line for line in server.log))
        assert ask(stub, make_requests(make_series(8))).status == ANALYSED


@pytest.mark.parametrize("ending", ["goes", "deadline"])
def test_half_a_study_is_none(models: Path, tmp_path: Path, ending: str) -> None:
    """gRPC says of a caller that has gone, or whose time is up, that there are no more slices: nothing is answered."""
    audit = tmp_path / "audit.jsonl"
    with run_server(models, "--audit", str(audit)) as server, server.stub() as stub:
        outbox: queue.Queue[pb.PredictStudyRequest | None] = queue.Queue()
        seconds = TIMEOUT if ending == "goes" else 2.0
        call = stub.PredictStudy.future(iter(outbox.get, None), timeout=seconds)
        for request in make_requests(make_series(8)):
            outbox.put(request)
        if ending == "goes":
            wait_until(lambda: sum("PredictStudy image" in line for line in server.log) == 8)
            call.cancel()
        wait_until(lambda: any("PredictStudy id=" in line for line in server.log))
        outbox.put(None)
        assert server.stop() == 0

    assert any("PredictStudy id=" in line and "code=CANCELLED" in line for line in server.log)
    assert '"event":"study"' not in audit.read_text().replace(" ", "")


def test_server_that_stops_says_so(models: Path) -> None:
    """Of a study whose slices have not all come."""
    with run_server(models) as server, server.stub() as stub:
        outbox: queue.Queue[pb.PredictStudyRequest | None] = queue.Queue()
        running = stub.PredictStudy.future(iter(outbox.get, None), timeout=TIMEOUT)
        outbox.put(make_requests(make_series(1))[0])
        wait_until(lambda: any("PredictStudy image" in line for line in server.log))
        code = server.stop()
        outbox.put(None)

    assert code == 0
    assert running.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(running.trailing_metadata())["stroke-reason"] == "SERVER_STOPPING"
