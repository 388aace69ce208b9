"""predict_study of both clients: what is sent for which files, and what the answer becomes."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import grpc
import pytest

import client
from client import AnalysisStatus, StudyPrediction
from client.files.order import natural_key
from proto import stroke_pb2
from tests.client_fakes import FakeServer, RefusalError, make_study_response
from tests.client_kinds import ClientKind


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with slices of two series and of another kind, whose names sort otherwise as text."""
    for name, data in {
        "a^doe/slice1.png": b"normal 1",
        "a^doe/slice10.png": b"normal 10",
        "a^doe/slice2.png": b"stroke 2",
        "b/scout.dcm": b"scout",
        "b/notes.txt": b"...",
    }.items():
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / name).write_bytes(data)
    return tmp_path / "study"


def test_folder_is_one_study(server: FakeServer, either: ClientKind, study: Path) -> None:
    """One answer, with slices by their paths, what was left out, and what the folder holds beside slices."""
    answer = either.call("predict_study", study)

    assert isinstance(answer, StudyPrediction)
    assert (answer.label, round(answer.score, 3), answer.threshold, answer.top_k) == ("stroke", 0.5, 0.35, 2)
    assert (answer.positive_label, answer.status, answer.reasons) == ("stroke", AnalysisStatus.ANALYSED, ())
    names = [Path(one.source).relative_to(study).as_posix() for one in answer.slices]
    assert names == ["a^doe/slice1.png", "a^doe/slice2.png", "a^doe/slice10.png"]
    assert answer.first_look is not None
    assert (answer.first_look.source, answer.first_look.frame) == (str(study / "a^doe" / "slice2.png"), 0)
    assert answer.first_look is answer.slices[1]
    assert answer.series == client.StudySeries("", 3, spacing_mm=5.0)
    assert answer.left_out == (client.StudySeries("1.2.9", 1, "LOCALIZER", "A scout."),)
    assert answer.failures == ()
    assert [warning.reason for warning in answer.warnings] == ["FILES_LEFT_OUT"]
    assert "1 .txt file" in answer.warnings[0].message
    assert (answer.model, answer.version, answer.source, answer.study_instance_uid) == (
        "stroke-cnn",
        "1",
        study,
        "1.2.3",
    )
    assert str(answer).startswith(
        "stroke  score 0.500 for stroke  (stroke-cnn 1, threshold 0.35, mean of 2 of 3 slices)"
    )


def test_no_name_travels(server: FakeServer, either: ClientKind, study: Path) -> None:
    """Folders and files are called by patients' names; slices go by numbers that sort as their names do."""
    either.call("predict_study", study, request_id="case-7", model="m", version="3")

    slices = server.servicer.slices
    assert [one.id for one in slices] == ["000001", "000002", "000003", "000004"]
    assert [one.image for one in slices] == [b"normal 1", b"stroke 2", b"normal 10", b"scout"]
    assert [(one.study_id, one.model_name, one.model_version) for one in slices] == [("case-7", "m", "3")] + 3 * [
        ("",) * 3
    ]
    assert [one.image_sha256 for one in slices] == [hashlib.sha256(one.image).hexdigest() for one in slices]
    assert not re.search(rb"doe|slice|png", b"".join(one.SerializeToString() for one in slices))


def test_paths_are_sent_in_natural_order_and_other_images_as_they_come(
    server: FakeServer, either: ClientKind, study: Path
) -> None:
    """Whatever order a glob has; ``index`` tells which one it was among those that were given."""
    paths = sorted(study.glob("a*/*.png"))

    answer = either.call("predict_study", [*paths, b"normal last", io.BytesIO(b"normal file")])

    assert [one.index for one in answer.slices] == [0, 2, 1, 3, 4]
    assert [str(one.source) for one in answer.slices[3:]] == ["<bytes>", "<stream>"]
    assert [one.image for one in server.servicer.slices][3:] == [b"normal last", b"normal file"]


def test_ids_of_ones_own_are_sent_as_they_are(server: FakeServer, either: ClientKind) -> None:
    """For callers whose slices have numbers already, which name nobody."""
    answer = either.call("predict_study", {"s-2": b"stroke", "s-1": b"normal"})

    assert [(one.id, one.index) for one in answer.slices] == [("s-1", 1), ("s-2", 0)]
    for bad in ("", "é", "x" * 129, "a\nb"):
        with pytest.raises(client.InvalidRequestError) as caught:
            either.call("predict_study", {bad: b"stroke"})
        assert caught.value.reason == "REQUEST_REFUSED"


def test_single_file_is_a_study(server: FakeServer, either: ClientKind, study: Path) -> None:
    """As one with many frames is, be it a path, bytes or an open file."""
    for image in (study / "a^doe/slice2.png", b"stroke 2", io.BytesIO(b"stroke 2")):
        assert either.call("predict_study", image).label == "stroke"


def test_file_that_cannot_be_read_is_a_failure_of_its_study(
    server: FakeServer, either: ClientKind, study: Path
) -> None:
    """Like one that the server cannot judge; the others are judged."""
    paths = [*study.glob("a*/*.png"), study / "missing.dcm"]

    answer = either.call("predict_study", [*paths, b"", b"broken"])

    assert answer.label == "stroke"
    assert [(str(one.source).rpartition("/")[2], one.error.reason) for one in answer.failures] == [
        ("missing.dcm", "IMAGE_UNREADABLE"),
        ("<bytes>", "IMAGE_EMPTY"),
        ("<bytes>", "IMAGE_DAMAGED"),
    ]
    assert isinstance(answer.failures[2].error, client.InvalidImageError)
    assert not any(one.is_analysed for one in answer.failures)


def test_study_without_a_file_is_refused_here(server: FakeServer, either: ClientKind, tmp_path: Path) -> None:
    """Nothing is sent; what the folder holds instead is said, and why no file could be read."""
    (tmp_path / "a.tif").write_bytes(b"")
    for images in (tmp_path, [], iter(())):
        with pytest.raises(client.InvalidRequestError) as caught:
            either.call("predict_study", images)
        assert caught.value.reason == "STUDY_EMPTY"
        assert images is not tmp_path or "1 TIFF file" in str(caught.value)
    with pytest.raises(client.ImageReadError, match=r"none of the 2 files of the study can be read; nowhere/1\.dcm: "):
        either.call("predict_study", ["nowhere/2.dcm", "nowhere/1.dcm"])
    with pytest.raises(client.ImageReadError, match=r"the only file of the study cannot be read; nowhere/1\.dcm: "):
        either.call("predict_study", "nowhere/1.dcm")
    with pytest.raises(TypeError):
        either.call("predict_study", 7)
    with pytest.raises(TypeError):
        either.call("predict_study", [7])

    assert server.servicer.slices == []


def test_study_that_was_not_analysed_has_no_label(server: FakeServer, either: ClientKind) -> None:
    """It is an answer, with the reasons of the server."""
    answer = either.call("predict_study", [b"scout", b"scout"])

    assert (answer.label, answer.is_analysed, answer.first_look, answer.series) == ("", False, None, None)
    assert [reason.reason for reason in answer.reasons] == ["NO_SERIES"]
    assert str(answer) == "not analysed [NO_SERIES] No series could be judged.  (stroke-cnn 1)"


def test_slice_whose_pixels_failed_is_none_that_counts(server: FakeServer, either: ClientKind) -> None:
    """The server leaves it in its place, with its error: it is among what failed all the same."""

    def judge(requests):
        response = make_study_response(requests)
        response.slices[0].ClearField("status")
        response.slices[0].error.CopyFrom(stroke_pb2.PredictError(code=3, reason="DICOM_TRUNCATED", message="Half."))
        return response

    server.servicer.judge_study = judge
    answer = either.call("predict_study", [b"normal", b"stroke"])

    assert [one.is_analysed for one in answer.slices] == [False, True]
    assert answer.slices[0].status == AnalysisStatus.NOT_ANALYSED
    assert answer.failed == (answer.slices[0],)
    assert answer.analysed_slices == 1


def test_frames_of_a_file_are_slices(server: FakeServer, either: ClientKind) -> None:
    """All with the file's source, and the frame of the one to look at first."""

    def judge(requests):
        response = make_study_response(requests)
        response.slices[0].frame = 1
        response.slices.add(id="000001", frame=2, positive_probability=0.95)
        response.first_look_frame = 2
        return response

    server.servicer.judge_study = judge
    answer = either.call("predict_study", b"stroke")

    assert [one.frame for one in answer.slices] == [1, 2]
    assert answer.first_look is not None
    assert (answer.first_look.frame, answer.first_look.name) == (2, "<bytes> frame 2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answer: answer.ClearField("id"), "ANSWER_MISPLACED"),
        (lambda answer: answer.slices.add(id="000009"), "ANSWER_MISPLACED"),
        (lambda answer: setattr(answer.slices[0], "image_sha256", "00" * 32), "IMAGE_ALTERED"),
        (lambda answer: setattr(answer, "score", float("nan")), "ANSWER_INVALID"),
        (lambda answer: setattr(answer, "score", 1.1), "ANSWER_INVALID"),
        (lambda answer: setattr(answer.slices[0], "positive_probability", -0.1), "ANSWER_INVALID"),
        (lambda answer: setattr(answer.slices[0], "position_mm", float("inf")), "ANSWER_INVALID"),
        (lambda answer: setattr(answer.series, "tilt_degrees", float("nan")), "ANSWER_INVALID"),
        (lambda answer: answer.left_out.add(spacing_mm=float("inf")), "ANSWER_INVALID"),
        (lambda answer: answer.ClearField("label"), "ANSWER_INVALID"),
        (lambda answer: setattr(answer, "status", 2), "ANSWER_INVALID"),
        (lambda answer: setattr(answer, "first_look_id", "000002"), "ANSWER_INVALID"),
        (lambda answer: answer.failures.add(id="000001"), "ANSWER_INVALID"),
    ],
)
def test_answer_that_is_not_sound_is_none(server: FakeServer, either: ClientKind, change, reason: str) -> None:
    """Of another study, of other bytes, or with figures that are none."""

    def judge(requests):
        response = make_study_response(requests)
        change(response)
        return response

    server.servicer.judge_study = judge

    with pytest.raises(client.StrokeClientError) as caught:
        either.call("predict_study", [b"stroke"])
    assert caught.value.reason == reason


def test_refusal_of_a_study_names_its_limit_and_is_not_repeated(server: FakeServer, either: ClientKind) -> None:
    """In the middle of it; what the server said is what is raised, and sending again would not help."""

    def refuse(request):
        if request.id == "000003":
            raise RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "STUDY_TOO_LARGE", "At most 2 slices.")

    server.servicer.take_slice = refuse

    with pytest.raises(client.ImageTooLargeError, match=r"At most 2 slices\.") as caught:
        either.call("predict_study", [b"normal"] * 500)
    assert (caught.value.reason, caught.value.retry_after) == ("STUDY_TOO_LARGE", None)
    assert len([one for one in server.servicer.slices if one.id == "000001"]) == 1


def test_progress_is_told(server: FakeServer, either: ClientKind) -> None:
    """Files that cannot be read are through, too."""
    counts: list[int] = []

    either.call("predict_study", [b"stroke", b"", b"normal"], on_file=counts.append)

    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    "names",
    [
        ["slice2.png", "slice10.png"],
        ["IM-0001-2.dcm", "IM-0001-10.dcm", "IM-0002-1.dcm"],
        ["9", "10", "a9", "a10"],
        ["a/2/1", "a/10/1", "b/1/1"],
        ["1.2.840.9", "1.2.840.10"],
        ["A1", "a2", "B3"],
        ["x007", "x8"],
    ],
)
def test_numbers_in_names_count(names: list[str]) -> None:
    """As people count, at any depth and of any length."""
    shuffled = names[::-1]

    assert sorted(shuffled, key=natural_key) == names
    assert natural_key("1" * 100_000) < natural_key("2" * 100_000)


def test_answer_survives_json(server: FakeServer, either: ClientKind) -> None:
    """Results are plain data."""
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(either.call("predict_study", [b"stroke"]))))["label"] == "stroke"
