"""UIDs of results: the same for the same study, series, instances and model: what is sent twice is one object."""

from __future__ import annotations

import uuid

from gateway.results.answer import Answer

_SPACE = uuid.UUID("0f8c3f66-8a34-5c1b-9a55-3a0f3c9d7e21")  # of the names that the UIDs are made of


def make_uuid(answer: Answer, kind: str) -> uuid.UUID:
    """The identity of a thing that is made of an answer, ``kind`` by ``kind``."""
    study = answer.prediction
    judged = sorted(f"{one.instance.sop_instance_uid} {one.frames}" for one in answer.judged)
    series = study.series.series_instance_uid if study.series is not None else ""
    names = (answer.headers.study_instance_uid, series, *judged, study.digest, kind)
    return uuid.uuid5(_SPACE, "\n".join(names))


def make_uid(answer: Answer, kind: str) -> str:
    """A UID without a registered root (PS3.5 B.2)."""
    return f"2.25.{make_uuid(answer, kind).int}"


def make_model_uid(digest: str) -> str:
    """What stands for a model as an observer, whatever study it has seen."""
    return f"2.25.{uuid.uuid5(_SPACE, f'model {digest}').int}"
