"""The FHIR bundle: valid R4, about the archive's study, and safe to send twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from gateway.results.settings import RESULTS, ResultSettings
from tests.results_of_studies import DIGEST, NEGATIVE, NOT_ANALYSED, make
from tests.studies import STUDY

STUDY_REFERENCE = {
    "type": "ImagingStudy",
    "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"},
}


def read_bundle(folder: Path, settings: ResultSettings | None = None, **fields: Any) -> tuple[Any, Any]:
    """Observation and report of a bundle that the schema of R4 takes."""
    settings = settings or ResultSettings(results=("fhir",))
    text = make(folder, settings, **fields).texts["fhir.json"]
    bundle = json.loads(text)
    assert json.loads(Bundle.model_validate(bundle).model_dump_json())["type"] == "transaction"
    observation, report = (entry["resource"] for entry in bundle["entry"])
    assert report["result"] == [{"reference": bundle["entry"][0]["fullUrl"]}]
    return observation, report


def list_components(observation: Any) -> dict[str, Any]:
    return {
        one["code"]["text"]: one.get("valueString") or one["valueQuantity"]["value"] for one in observation["component"]
    }


def test_positive_study_is_a_classification_with_its_figures(tmp_path: Path) -> None:
    observation, report = read_bundle(tmp_path)

    assert observation["valueCodeableConcept"]["text"] == "stroke"
    assert observation["interpretation"][0]["coding"][0]["code"] == "POS"
    components = list_components(observation)
    assert components["Probability"] == 0.831234
    assert components["Threshold Value"] == 0.5
    assert components["Slice to look at first"].startswith("series 2, image 6 (slice 6 of 6 from the feet), SOP ")
    (device,) = observation["contained"]
    assert device["identifier"][0]["value"] == DIGEST
    assert (device["deviceName"][0]["name"], device["version"][0]["value"]) == ("stroke-cnn", "3")
    assert observation["status"] == report["status"] == "preliminary"
    assert report["conclusion"].endswith("Research software. Not for diagnosis.")


def test_negative_study_is_not_said_to_have_nothing(tmp_path: Path) -> None:
    observation, _ = read_bundle(tmp_path, **NEGATIVE)

    assert observation["valueCodeableConcept"]["text"] == "normal"
    assert "interpretation" not in observation


def test_study_without_an_answer_says_why(tmp_path: Path) -> None:
    observation, report = read_bundle(tmp_path, **NOT_ANALYSED)

    assert "valueCodeableConcept" not in observation
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert observation["dataAbsentReason"]["text"] == "[INSUFFICIENT_QUALITY] there are too few slices"
    assert report["conclusion"].startswith("Not analysed: [INSUFFICIENT_QUALITY] there are too few slices.")


def test_study_patient_and_order_are_referred_to(tmp_path: Path) -> None:
    """By identifiers; the patient's name is nowhere."""
    settings = ResultSettings(results=RESULTS, patient_system="urn:site:patients")
    observation, report = read_bundle(tmp_path, settings)

    assert report["imagingStudy"] == observation["derivedFrom"] == [STUDY_REFERENCE]
    assert report["subject"]["identifier"]["system"] == "urn:site:patients"
    assert report["subject"]["identifier"]["value"] == "MRN4711"
    assert report["basedOn"][0]["identifier"]["value"] == "ACC1"
    assert "Doe" not in json.dumps([observation, report])


@pytest.mark.parametrize(
    ("tags", "moment"),
    [
        ({}, "2026-11-29"),
        ({"TimezoneOffsetFromUTC": "+0100"}, "2026-11-29T10:15:00+01:00"),
        ({"StudyTime": "1015"}, "2026-11-29"),
        ({"StudyDate": None}, None),
    ],
)
def test_moment_of_the_study_has_a_time_where_the_zone_is_known(
    tmp_path: Path, tags: dict[str, Any], moment: str | None
) -> None:
    """R4 has no time of day without a zone."""
    observation, report = read_bundle(tmp_path, tags=tags)

    assert observation.get("effectiveDateTime") == report.get("effectiveDateTime") == moment


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    """By the identifiers, which are those of the report and of the study's answer."""
    results = make(tmp_path)
    entries = json.loads(results.texts["fhir.json"])["entry"]

    assert [entry["request"]["ifNoneExist"].partition("=")[2] for entry in entries] == [
        "|".join(entry["resource"]["identifier"][0].values()) for entry in entries
    ]
    assert entries[1]["resource"]["identifier"][0]["value"] == f"urn:oid:{results.objects[0].sop_instance_uid}"
