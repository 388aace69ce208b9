"""The answer as a DICOM structured report: Measurement Report (TID 1500), with the study classified as a whole.

The group of measurements (TID 1501) has no region; the images that it is about are its sources, as the authors of
highdicom settled it. OHIF opens a report only if it has an image library, and every number something below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr.enum import RelationshipTypeValues
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DT

from client import AnalysisStatus
from gateway.results import codes as terms
from gateway.results.answer import NOTICE, SOFTWARE, Answer, FirstLook, Reference
from gateway.results.identity import add_identity, add_moment, to_ascii, to_local
from gateway.results.uids import make_model_uid, make_uid
from proto import __version__

SERIES_NUMBER = 9901
SERIES_DESCRIPTION = "StrokeServe report, research only"


def make_report(answer: Answer, now: datetime) -> Dataset:
    """Makes the report: Comprehensive SR Storage, complete, unverified and preliminary."""
    algorithm = _identify_algorithm(answer)
    groups = [_describe_study(answer, algorithm)]
    if answer.first_look is not None:
        groups.append(_describe_slice(answer, answer.first_look, algorithm))
    content = sr.MeasurementReport(
        observation_context=_describe_observer(answer),
        procedure_reported=terms.CT_HEAD if _is_ct(answer.judged) else terms.IMAGING,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    content[0].ContentSequence.insert(-1, _list_images(answer.judged))
    report = sr.ComprehensiveSR(
        evidence=_list_evidence(answer),
        content=content,
        series_instance_uid=make_uid(answer, "report series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=make_uid(answer, "report"),
        instance_number=1,
        manufacturer=SOFTWARE,
        manufacturer_model_name=to_ascii(answer.prediction.model, 64) or None,
        software_versions=__version__,
        is_complete=True,
        series_description=SERIES_DESCRIPTION,
        coding_schemes=[CodingSchemeIdentificationItem(terms.SCHEME, terms.SCHEME_NAME)],
    )
    add_identity(report, answer.headers)
    add_moment(report, answer.headers, now, "InstanceCreation", "Content", "Series")
    for equipment in report.ContributingEquipmentSequence:  # highdicom, by its own clock
        equipment.ContributionDateTime = DT(to_local(answer.headers, now).strftime("%Y%m%d%H%M%S"))
    return report


def _describe_observer(answer: Answer) -> sr.ObservationContext:
    """Says that a program has observed this."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=make_model_uid(answer.prediction.digest),
        name=SOFTWARE,
        manufacturer_name=SOFTWARE,
        model_name=to_ascii(answer.prediction.model) or None,
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device))


def _identify_algorithm(answer: Answer) -> sr.AlgorithmIdentification:
    """Says which model it was, down to the bytes of its file."""
    study = answer.prediction
    parameters = [f"SHA-256 of the model file: {study.digest}"] if study.digest else []
    if study.is_analysed:
        parameters.append(f"score of the study: {answer.derivation}")
    return sr.AlgorithmIdentification(
        name=to_ascii(study.model) or SOFTWARE,
        version=to_ascii(study.version) or __version__,
        parameters=parameters,
        manufacturer=SOFTWARE,
    )


def _describe_study(answer: Answer, algorithm: sr.AlgorithmIdentification) -> sr.MeasurementsAndQualitativeEvaluations:
    """The group about the whole study."""
    study = answer.prediction
    status = "Analysed" if study.status == AnalysisStatus.ANALYSED else "Not analysed"
    evaluations = [sr.QualitativeEvaluation(terms.STATUS, _code(str(study.status), status))]
    measurements = []
    if study.is_analysed:
        evaluations.append(sr.QualitativeEvaluation(terms.CLASSIFICATION, _code(study.label)))
        measurements = [
            _measure(terms.PROBABILITY, study.score, algorithm, answer.judged, is_mean=study.top_k > 1),
            _measure(terms.THRESHOLD, study.threshold, algorithm),
        ]
    evaluations += [sr.QualitativeEvaluation(terms.REASON, _code(one.reason, one.message)) for one in study.reasons]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(make_uid(answer, "study group"), "Whole study"),
        algorithm_id=algorithm,
        finding_sites=[sr.FindingSite(terms.BRAIN)],
        measurements=measurements,
        qualitative_evaluations=evaluations,
        source_images=[_refer(one) for one in answer.judged],
    )
    what = [f"The probability is that of {study.positive_text}."] if study.is_analysed else []
    for text in (NOTICE, *what, *answer.list_notes()):
        group[0].ContentSequence.append(_comment(text))
    return group


def _describe_slice(
    answer: Answer, first: FirstLook, algorithm: sr.AlgorithmIdentification
) -> sr.MeasurementsAndQualitativeEvaluations:
    """The group about the slice to look at first."""
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(make_uid(answer, "first look"), terms.FIRST_LOOK.meaning),
        algorithm_id=algorithm,
        measurements=[_measure(terms.PROBABILITY, first.probability, algorithm, [first.reference])],
        source_images=[_refer(first.reference)],
    )
    group[0].ContentSequence.append(_comment(f"Look first at {first.describe()}. Nothing is localised in it."))
    return group


def _measure(
    name: Code,
    value: float,
    algorithm: sr.AlgorithmIdentification,
    sources: Sequence[Reference] = (),
    *,
    is_mean: bool = False,
) -> sr.Measurement:
    images = [
        sr.SourceImageForMeasurement(
            one.instance.sop_class_uid, one.instance.sop_instance_uid, list(one.frames) or None
        )
        for one in sources
    ]
    return sr.Measurement(
        name=name,
        value=round(value, 6),
        unit=terms.NO_UNITS,
        derivation=terms.MEAN if is_mean else None,
        algorithm_id=algorithm,
        referenced_images=images if len(images) == 1 else None,  # those of the group are not said twice
    )


def _code(value: str, meaning: str = "") -> sr.CodedConcept:
    code = terms.own(to_ascii(value, 64) or "unknown", to_ascii(meaning, 64))
    return sr.CodedConcept(code.value, code.scheme_designator, code.meaning)


def _comment(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(terms.COMMENT, to_ascii(text), RelationshipTypeValues.CONTAINS)


def _refer(one: Reference) -> sr.SourceImageForMeasurementGroup:
    instance = one.instance
    return sr.SourceImageForMeasurementGroup(
        instance.sop_class_uid, instance.sop_instance_uid, list(one.frames) or None
    )


def _list_images(judged: Sequence[Reference]) -> sr.ContainerContentItem:
    """The image library (TID 1600): which instances the report is about."""
    library = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=RelationshipTypeValues.CONTAINS)
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=RelationshipTypeValues.CONTAINS)
    group.ContentSequence = sr.ContentSequence()
    if _is_ct(judged):
        group.ContentSequence.append(
            sr.CodeContentItem(codes.DCM.Modality, terms.CT, RelationshipTypeValues.HAS_ACQ_CONTEXT)
        )
    for one in judged:
        image = sr.ImageContentItem(
            codes.DCM.SourceImage,
            one.instance.sop_class_uid,
            one.instance.sop_instance_uid,
            list(one.frames) or None,
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        group.ContentSequence.append(image)
    library.ContentSequence = sr.ContentSequence([group])
    return library


def _list_evidence(answer: Answer) -> list[Dataset]:
    """What highdicom reads of the instances that are referred to; patient and study come as the archive wrote them."""
    found = []
    for one in answer.judged:
        evidence = Dataset()
        evidence.SOPClassUID = one.instance.sop_class_uid
        evidence.SOPInstanceUID = one.instance.sop_instance_uid
        evidence.SeriesInstanceUID = one.instance.series_instance_uid
        evidence.StudyInstanceUID = answer.headers.study_instance_uid
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
            setattr(evidence, keyword, "")
        for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
            setattr(evidence, keyword, None)
        found.append(evidence)
    return found


def _is_ct(judged: Sequence[Reference]) -> bool:
    return all(one.instance.modality == "CT" for one in judged)
