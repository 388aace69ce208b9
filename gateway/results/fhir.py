"""The answer as FHIR R4: a bundle of a DiagnosticReport and the Observation that it stands on.

The study, its order and the patient are referred to by their identifiers: who takes the bundle has them already. It is
a transaction whose entries are made only where they are not there yet, so that it can be sent twice.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, TypeAlias

from pydicom.sr.coding import Code

from gateway.results import codes as terms
from gateway.results.answer import NOTICE, SOFTWARE, Answer
from gateway.results.moments import read_study_moment
from gateway.results.settings import ResultSettings
from gateway.results.uids import make_uid, make_uuid
from gateway.results.urgency import Urgency
from proto import __version__

Fields: TypeAlias = dict[str, Any]

_SYSTEMS = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "SCT": "http://snomed.info/sct",
    "UCUM": "http://unitsofmeasure.org",
    terms.SCHEME: "urn:oid:2.25.329800735698586629295641978511506172918",
}
_V2 = "http://terminology.hl7.org/CodeSystem/v2-"
_INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


def make_bundle(answer: Answer, settings: ResultSettings, now: datetime) -> bytes:
    """Makes the bundle, as JSON in UTF-8. ``now`` has a time zone."""
    observation = _make_entry("Observation", answer, _make_observation(answer, settings, now))
    report = _make_report(answer, settings, now) | {"result": [{"reference": observation["fullUrl"]}]}
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "timestamp": now.isoformat(timespec="seconds"),
        "entry": [observation, _make_entry("DiagnosticReport", answer, report)],
    }
    return json.dumps(bundle, ensure_ascii=False, indent=1).encode("utf-8", "replace")


def _make_entry(kind: str, answer: Answer, resource: Fields) -> Fields:
    """An entry that a server makes unless it has one of this identifier."""
    identifier = _identify_uid(make_uid(answer, kind if kind == "Observation" else "report"))
    return {
        "fullUrl": make_uuid(answer, f"FHIR {kind}").urn,
        "resource": {"resourceType": kind, "identifier": [identifier]} | resource,
        "request": {
            "method": "POST",
            "url": kind,
            "ifNoneExist": f"identifier={identifier['system']}|{identifier['value']}",
        },
    }


def _make_observation(answer: Answer, settings: ResultSettings, now: datetime) -> Fields:
    study = answer.prediction
    resource = {
        "contained": [_describe_model(answer)],
        "status": "preliminary",
        "category": [_concept("imaging", "http://terminology.hl7.org/CodeSystem/observation-category")],
        "code": _code(terms.CLASSIFICATION),
        **_refer_to_study(answer, settings),
        "derivedFrom": [_refer_to_images(answer)],
        "issued": now.isoformat(timespec="seconds"),
        "bodySite": _code(terms.BRAIN),
        "device": {"reference": "#model"},
        "note": [{"text": text} for text in (NOTICE, *answer.list_notes())],
        "component": _list_components(answer),
    }
    if study.is_analysed:
        resource["valueCodeableConcept"] = _code(terms.own(study.label))
        if answer.urgency == Urgency.POSITIVE:  # its opposite would say that nothing is there
            resource["interpretation"] = [_concept("POS", _INTERPRETATION)]
    else:
        resource["dataAbsentReason"] = _concept("not-performed", _ABSENT) | {"text": _name_reasons(answer)}
    return {name: value for name, value in resource.items() if value}


def _make_report(answer: Answer, settings: ResultSettings, now: datetime) -> Fields:
    accession = answer.headers.read("AccessionNumber")
    resource = {
        "status": "preliminary",
        "category": [_concept("RAD", f"{_V2}0074")],
        "code": _code(terms.CT_HEAD),
        **_refer_to_study(answer, settings),
        "issued": now.isoformat(timespec="seconds"),
        "imagingStudy": [_refer_to_images(answer)],
        "conclusion": f"{_conclude(answer)} {NOTICE}",
    }
    if accession:
        order: Fields = {"type": _concept("ACSN", f"{_V2}0203"), "value": accession}
        resource["basedOn"] = [{"type": "ServiceRequest", "identifier": order}]
    return resource


def _refer_to_study(answer: Answer, settings: ResultSettings) -> Fields:
    """Whose study it is, and when it was made."""
    fields: Fields = {}
    if patient := answer.headers.read("PatientID"):
        identifier: Fields = {"type": _concept("MR", f"{_V2}0203"), "value": patient}
        if settings.patient_system:
            identifier["system"] = settings.patient_system
        elif issuer := answer.headers.read("IssuerOfPatientID"):
            identifier["assigner"] = {"display": issuer}
        fields["subject"] = {"type": "Patient", "identifier": identifier}
    moment = read_study_moment(answer.headers)
    if isinstance(moment, datetime):  # which R4 takes with a time zone alone
        fields["effectiveDateTime"] = moment.isoformat() if moment.tzinfo else moment.date().isoformat()
    elif moment is not None:
        fields["effectiveDateTime"] = moment.isoformat()
    return fields


def _list_components(answer: Answer) -> list[Fields]:
    study, first = answer.prediction, answer.first_look
    found: list[Fields] = []
    if study.is_analysed:
        found.append({"code": _code(terms.PROBABILITY), "valueQuantity": _quantity(study.score)})
        found.append({"code": _code(terms.THRESHOLD), "valueQuantity": _quantity(study.threshold)})
    if first is not None:
        uid = first.reference.instance.sop_instance_uid
        found.append({"code": _code(terms.FIRST_LOOK), "valueString": f"{first.describe()}, SOP instance {uid}"})
    return found


def _describe_model(answer: Answer) -> Fields:
    study = answer.prediction
    device = {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": SOFTWARE,
        "deviceName": [{"name": study.model or SOFTWARE, "type": "model-name"}],
        "version": [{"value": study.version or __version__}],
    }
    if study.digest:
        device["identifier"] = [{"type": {"text": "SHA-256 of the model file"}, "value": study.digest}]
    return device


def _conclude(answer: Answer) -> str:
    study = answer.prediction
    if not study.is_analysed:
        return f"Not analysed: {_name_reasons(answer)}."
    figures = f"probability of {study.positive_text} {study.score:.3f}, threshold {study.threshold:.3g}"
    first = f" Look first at {answer.first_look.describe()}." if answer.first_look is not None else ""
    return f"{study.label} ({figures}).{first}"


def _name_reasons(answer: Answer) -> str:
    return "; ".join(f"[{one.reason}] {one.message}" for one in answer.prediction.reasons) or "no reason given"


def _refer_to_images(answer: Answer) -> Fields:
    uid = answer.headers.study_instance_uid
    return {"type": "ImagingStudy", "identifier": _identify_uid(uid)}


def _identify_uid(uid: str) -> dict[str, str]:
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}


def _quantity(value: float) -> Fields:
    return {"value": round(value, 6), "system": _SYSTEMS["UCUM"], "code": terms.NO_UNITS.value}


def _concept(code: str, system: str) -> Fields:
    return {"coding": [{"system": system, "code": code}]}


def _code(code: Code) -> Fields:
    coding = {"system": _SYSTEMS[code.scheme_designator], "code": code.value, "display": code.meaning}
    return {"coding": [coding], "text": code.meaning}
