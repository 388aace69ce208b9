"""A study in the server, without a network: what comes of its slices, and which model judges them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.admission.slice_work import SliceToJudge
from server.core.study.answer import StudyAnswer
from server.errors import IncapableModelError
from server.images.checks import Reason
from server.models.activation import Activator
from server.models.engines.engine import DEFAULT_OPTIONS
from tests.dicom_files import make_enhanced, make_hu
from tests.fakes import SPEC, encode, with_version, write_model
from tests.fakes import make_slice as make_pixels
from tests.studies import STUDY_SPEC, make_series, make_slice
from tests.study_box import Box, wrap


@pytest.fixture
def box(tmp_path: Path) -> Box:
    write_model(tmp_path, STUDY_SPEC)
    return Box(tmp_path)


def test_answer_is_of_all_slices(box: Box) -> None:
    """Each slice that was judged is told, with the study that it is of; so is the study, to the call."""
    answer = box.judge_all(wrap(make_series(8, (60, 50)), study_id="s-1"))

    assert (answer.id, answer.label, len(answer.slices)) == ("s-1", "stroke", 8)
    assert [one.study_id for one in box.outcomes] == ["s-1"] * 8
    assert sorted(one.request_id for one in box.outcomes) == [str(number) for number in range(1, 9)]
    assert box.call.study is answer
    assert box.places.open == 0


def test_what_the_header_excludes_is_not_judged(box: Box) -> None:
    """It costs no run of the model, and is no image that was judged or refused."""
    scouts = make_series(4, series="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    answer = box.judge_all(wrap([*scouts, *make_series(8)]))

    assert [(one.uid, one.reason) for one in answer.left_out] == [("1.2.3", "LOCALIZER")]
    assert len(box.outcomes) == 8


def test_slice_that_cannot_be_judged_does_not_end_the_study(box: Box) -> None:
    """Its error is the one that it would have alone. One with a header is of its series, another of none."""
    no_rescale = make_slice(8, RescaleSlope=None)
    files = [*make_series(8), no_rescale, b"", b"garbage", no_rescale[:300]]
    answer = box.judge_all(wrap(files))

    assert [one.refusal.reason for one in answer.failures if one.refusal] == [
        *("IMAGE_EMPTY", "IMAGE_UNDECODABLE", "DICOM_NO_PIXELS"),
    ]
    assert [one.slice.refusal.reason for one in answer.slices if one.slice.refusal] == ["DICOM_RESCALE_MISSING"]
    assert sorted(one.code for one in box.outcomes) == ["INVALID_ARGUMENT"] * 4 + ["OK"] * 8


def test_altered_slice_is_of_no_series(box: Box) -> None:
    """Whether the rules would have it judged or not: its header may be altered, too."""
    good, scout = make_slice(0), make_slice(1, ImageType=["LOCALIZER"])
    slices = [SliceToJudge(file, id=name, image_sha256="0" * 64) for name, file in (("a", good), ("b", scout))]
    right = SliceToJudge(scout, id="c", image_sha256=hashlib.sha256(scout).hexdigest().upper())
    answer = box.judge_all([*slices, right, *wrap(make_series(9)[1:])])

    assert [(one.id, one.refusal.reason) for one in answer.failures if one.refusal] == [
        ("a", "IMAGE_ALTERED"),
        ("b", "IMAGE_ALTERED"),
    ]
    assert [one.slices for one in answer.left_out] == [1]


def test_every_frame_of_a_file_is_a_slice(box: Box) -> None:
    """They have its id, and their numbers."""
    frames = np.stack([make_hu(64, seed=number) for number in range(9)])
    file = make_enhanced(frames, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    answer = box.judge_all([SliceToJudge(file, id="whole")])

    assert [(one.slice.id, one.slice.frame) for one in answer.slices] == [("whole", number) for number in range(1, 10)]
    assert [one.position for one in answer.slices] == [5.0 * number for number in range(9)]
    assert len({one.slice.probability for one in answer.slices}) > 1
    assert answer.warnings == ()


def test_study_without_slices_is_no_study(box: Box) -> None:
    assert box.refuse([]).reason == "REQUEST_MALFORMED"


def test_model_must_have_a_rule_for_studies(tmp_path: Path) -> None:
    """It is said before anything is judged."""
    write_model(tmp_path)
    box = Box(tmp_path)
    refusal = box.refuse(wrap([encode(make_pixels())]))

    assert isinstance(refusal, IncapableModelError)
    assert refusal.reason == "MODEL_WITHOUT_STUDIES"
    assert box.outcomes == []


def test_model_and_id_must_be_usable(box: Box) -> None:
    image = encode(make_pixels())

    assert box.refuse([SliceToJudge(image, model_name="other")]).reason == "MODEL_NOT_FOUND"
    assert box.refuse([SliceToJudge(image, study_id="x" * 129)]).reason == "ID_INVALID"


def test_slice_with_an_unusable_id_has_its_number(box: Box) -> None:
    """And its error."""
    answer = box.judge_all([*wrap([encode(make_pixels())]), SliceToJudge(encode(make_pixels()), id="\n")])

    assert [(one.id, one.refusal.reason) for one in answer.failures if one.refusal] == [("2", "ID_INVALID")]


def test_model_is_the_one_of_the_first_slice(box: Box) -> None:
    """Though another one is activated, and the first one unloaded, before the rest has come."""
    write_model(box.root, with_version("2", STUDY_SPEC))
    activator = Activator(box.registry, box.root, DEFAULT_OPTIONS)
    files = iter(make_series(8))
    count = 0

    async def take() -> SliceToJudge | None:
        nonlocal count
        count += 1
        if count == 5:
            await asyncio.to_thread(lambda: list(activator.activate("tiny", "2") or []))
        image = next(files, None)
        return None if image is None else SliceToJudge(image)

    answer = asyncio.run(box.judge(take))

    assert isinstance(answer, StudyAnswer)
    assert box.registry.default.spec.version == "2"
    assert answer.model.spec.version == "1"
    assert {one.detection.model.spec.version for one in box.outcomes if one.detection} == {"1"}


def test_slice_near_the_threshold_of_images_counts(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no label in a study anyway. Other reasons keep it out."""
    for reason, score in (("INDETERMINATE", True), ("NO_HEAD", False)):
        monkeypatch.setattr("server.core.detector.HEAD_CT", SPEC.checks)
        found = (Reason(reason, "."),)
        monkeypatch.setattr("server.core.detector.find_reasons", lambda pixels, found=found: found)
        answer = box.judge_all(wrap(make_series(8)))
        assert bool(answer.score) is score
        assert bool(answer.reasons) is not score


def test_slices_wait_in_the_line_of_their_caller(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among streams, so that others have their turns between them: frames of one file, too."""
    sources = []
    submit = box.detector.submit

    def note(*arguments: Any, **options: Any) -> Any:
        sources.append(options["source"])
        return submit(*arguments, **options)

    monkeypatch.setattr(box.detector, "submit", note)
    box.judge_all(wrap([*make_series(8), make_enhanced(np.stack([make_hu(64)] * 4))]))

    assert set(sources) == {box.call.source}
    assert len(sources) == 8 + 1 + 4 + 1  # files, frames, and the answer
