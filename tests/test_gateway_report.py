"""The structured report: valid, of the archive's own study, about what was judged, and the same when made again."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from highdicom import sr
from pydicom import dcmread
from pydicom.dataset import Dataset

from client import InvalidRequestError
from gateway.results.answer import NOTICE, make_unjudged
from gateway.results.headers import read_headers
from gateway.results.make import make_results
from tests.dicom_files import make_enhanced, make_hu
from tests.results_of_studies import (
    ALL,
    DIGEST,
    NEGATIVE,
    NOT_ANALYSED,
    NOW,
    find_errors,
    find_window,
    judge,
    make,
    read_object,
)
from tests.studies import SERIES, STUDY

POSITIVE: dict[str, object] = {}
KINDS = pytest.mark.parametrize("fields", [POSITIVE, NEGATIVE, NOT_ANALYSED], ids=["positive", "negative", "none"])


def read_groups(report: Dataset) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """The groups of a report, as highdicom reads them."""
    return sr.ComprehensiveSR.from_dataset(report).content.get_image_measurement_groups()


def list_texts(group: sr.MeasurementsAndQualitativeEvaluations) -> list[str]:
    return [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]


@KINDS
def test_checkers_find_nothing_wrong(tmp_path: Path, fields: dict[str, object]) -> None:
    """dciodvfy of dicom3tools, and dsrdump of DCMTK, which reads the tree by the rules of its document type."""
    (file,) = (one.data for one in make(tmp_path, **fields).objects if one.name == "sr.dcm")

    assert find_errors(file, "dciodvfy", "-new") == []
    assert find_errors(file, "dsrdump") == []


def test_study_is_classified_as_a_whole(tmp_path: Path) -> None:
    """Class, probability, threshold and status, by the model's name, version and file; its sources what was judged."""
    report = read_object(make(tmp_path), "sr.dcm")
    whole, _ = read_groups(report)

    evaluations = {item.name.meaning: item.value.value for item in whole.get_qualitative_evaluations()}
    assert evaluations == {"Status of the analysis": "ANALYSED", "Classification of the whole study": "stroke"}
    values = {item.name.meaning: item.value for item in whole.get_measurements()}
    assert values == {"Probability": 0.831234, "Threshold Value": 0.5}
    assert [one.referenced_sop_instance_uid for one in whole.source_images] == [f"{SERIES}.{n}" for n in range(1, 7)]
    texts = list_texts(whole)
    assert texts[1:4] == ["stroke-cnn", "3", "StrokeServe"]
    assert f"SHA-256 of the model file: {DIGEST}" in texts
    assert "score of the study: mean of the 3 highest probabilities of 6 slices" in texts
    assert NOTICE in texts
    assert "Left out: a series of 12 images [BONE_KERNEL]: the kernel is for bones" in texts


def test_slice_to_look_at_first_is_referred_to(tmp_path: Path) -> None:
    """By a group of its own, and by the numbers that viewers show."""
    _, first = read_groups(read_object(make(tmp_path), "sr.dcm"))

    assert [one.referenced_sop_instance_uid for one in first.source_images] == [f"{SERIES}.6"]
    assert [item.value for item in first.get_measurements()] == [0.5]
    assert list_texts(first)[-1] == (
        "Look first at series 2, image 6 (slice 6 of 6 from the feet). Nothing is localised in it."
    )


def test_study_without_an_answer_says_why(tmp_path: Path) -> None:
    """No class, no probability and no slice, but a reason."""
    (whole,) = read_groups(read_object(make(tmp_path, **NOT_ANALYSED), "sr.dcm"))

    evaluations = {item.name.meaning: item.value for item in whole.get_qualitative_evaluations()}
    assert evaluations["Status of the analysis"].value == "NOT_ANALYSED"
    assert evaluations["Reason why it was not analysed"].value == "INSUFFICIENT_QUALITY"
    assert evaluations["Reason why it was not analysed"].meaning == "there are too few slices"
    assert "Classification of the whole study" not in evaluations
    assert whole.get_measurements() == []


def test_study_that_could_not_be_judged_has_a_report_too(tmp_path: Path) -> None:
    """It is about all instances that were sent, and no model has seen it."""
    make(tmp_path)
    headers = read_headers(sorted(tmp_path.iterdir()))
    unjudged = make_unjudged(InvalidRequestError("the study has more slices than this server takes", "STUDY_TOO_LARGE"))
    results = make_results(unjudged, headers, ALL, NOW, find_window)
    (file,) = (one.data for one in results.objects if one.name == "sr.dcm")

    (whole,) = read_groups(dcmread(io.BytesIO(file)))
    assert len(whole.source_images) == 6
    assert whole.get_qualitative_evaluations()[1].value.value == "STUDY_TOO_LARGE"
    assert find_errors(file, "dciodvfy", "-new") == []


def test_report_is_of_the_study_and_of_no_series_of_it(tmp_path: Path) -> None:
    """Patient and study as the archive has them; complete, verified by nobody, preliminary."""
    results = make(tmp_path)
    report, page = read_object(results, "sr.dcm"), read_object(results, "sc.dcm")
    source = dcmread(tmp_path / "0.dcm")

    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "AccessionNumber",
    ):
        assert report[keyword] == source[keyword]
    assert len({report.SeriesInstanceUID, page.SeriesInstanceUID, SERIES}) == 3
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.StudyInstanceUID == STUDY
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 6
    flags = (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


def test_results_are_the_same_objects_when_made_again(tmp_path: Path) -> None:
    """The same bytes at the same time, the same UIDs at another; others for another model, and for more slices."""
    make(tmp_path)
    headers = read_headers(sorted(tmp_path.iterdir()))
    answer = judge(headers)
    once, again = (make_results(answer, headers, ALL, NOW, find_window) for _ in range(2))
    later = make_results(answer, headers, ALL, NOW + timedelta(hours=1), find_window)
    other = make_results(replace(answer, digest="cd" * 32), headers, ALL, NOW, find_window)
    fewer = make_results(replace(answer, slices=answer.slices[1:]), headers, ALL, NOW, find_window)

    assert once == again
    uids = [[one.sop_instance_uid for one in results.objects] for results in (once, later, other, fewer)]
    assert uids[0] == uids[1]
    assert len({*uids[0], *uids[2], *uids[3]}) == 6
    assert [one.data for one in once.objects] != [one.data for one in later.objects]


def test_ohif_can_open_it(tmp_path: Path) -> None:
    """What its parser takes for granted: an image library with a group, and something below every number."""
    for fields in (POSITIVE, NOT_ANALYSED):
        report = read_object(make(tmp_path, **fields), "sr.dcm")
        names = {item.ConceptNameCodeSequence[0].CodeValue: item for item in report.ContentSequence}
        (group,) = names["111028"].ContentSequence
        assert group.ConceptNameCodeSequence[0].CodeValue == "126200"
        for measured in names["126010"].ContentSequence:
            items = measured.ContentSequence
            assert all("ConceptNameCodeSequence" in item for item in items)
            assert "112040" in {item.ConceptNameCodeSequence[0].CodeValue for item in items}
            assert all(item.get("ContentSequence") for item in items if item.ValueType == "NUM")


def test_frames_of_one_file_are_named(tmp_path: Path) -> None:
    """Those that were judged, of an Enhanced CT image."""
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(make_enhanced(make_hu()[None].repeat(4, axis=0), InstanceNumber=1))
    headers = read_headers([path])
    results = make_results(judge(headers, frames=(1, 2, 4)), headers, ALL, NOW, find_window)
    whole, first = read_groups(read_object(results, "sr.dcm"))

    assert [one.referenced_frame_numbers for one in whole.source_images] == [[1, 2, 4]]
    assert [one.referenced_frame_numbers for one in first.source_images] == [[4]]
    assert list_texts(first)[-1].startswith("Look first at image 1, frame 4 (slice 3 of 3 from the feet)")
    for one in results.objects:
        assert find_errors(one.data, "dciodvfy", "-new") == []


def test_words_of_a_model_fit_every_character_set(tmp_path: Path) -> None:
    """Its name and labels are in no set that the archive's study has; long ones are cut."""
    words = {"label": "Hämorrhagie 出血", "model": "模型é" * 40, "positive_labels": ("Hämorrhagie",)}
    results = make(tmp_path, tags={"SpecificCharacterSet": "ISO_IR 6", "PatientName": "Doe^Jane"}, **words)
    (file,) = (one.data for one in results.objects if one.name == "sr.dcm")
    whole, _ = read_groups(dcmread(io.BytesIO(file)))

    assert whole.get_qualitative_evaluations()[1].value.value == "Hamorrhagie ??"
    assert find_errors(file, "dciodvfy", "-new") == []
