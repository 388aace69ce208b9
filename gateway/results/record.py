"""What the worklist keeps of an answer: what finds the study again, how urgent it is, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.results.answer import Answer
from gateway.results.uids import make_uid


def make_record(answer: Answer, now: datetime) -> dict[str, Any]:
    """Makes the record, as JSON has it. It has the patient's identifier and no name."""
    study, first, headers = answer.prediction, answer.first_look, answer.headers
    return {
        "urgency": str(answer.urgency),
        "status": str(study.status),
        "label": study.label or None,
        "probability": round(study.score, 6) if study.is_analysed else None,
        "threshold": round(study.threshold, 6) if study.is_analysed else None,
        "positive_labels": list(study.positive_labels),
        "reasons": [{"reason": one.reason, "message": one.message} for one in study.reasons],
        "accession_number": headers.read("AccessionNumber"),
        "patient_id": headers.read("PatientID"),
        "study_date": headers.read("StudyDate"),
        "study_time": headers.read("StudyTime"),
        "study_instance_uid": headers.study_instance_uid,
        "first_look": None
        if first is None
        else {
            "text": first.describe(),
            "series_instance_uid": first.reference.instance.series_instance_uid,
            "sop_instance_uid": first.reference.instance.sop_instance_uid,
            "frame": first.reference.frames[0] if first.reference.frames else None,
            "probability": round(first.probability, 6),
        },
        "model": study.model,
        "version": study.version,
        "digest": study.digest,
        "report_uid": make_uid(answer, "report"),
        "judged_at": now.isoformat(timespec="seconds"),
    }
