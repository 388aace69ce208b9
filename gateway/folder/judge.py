"""Judges the studies of a folder one after the other; each has all of its results, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from client import (
    AuthenticationError,
    DeadlineExceededError,
    ImageReadError,
    ModelNotFoundError,
    OverloadedError,
    ServerUnavailableError,
    StrokeClient,
    StrokeClientError,
    StudyPrediction,
    StudySeries,
)
from gateway.folder.output import Output
from gateway.folder.studies import FoundStudies, Study
from gateway.judge.asking import ask
from gateway.judge.judge import Maker
from gateway.queue.folder import make_key, show
from gateway.receive.instance import read_instance
from proto import __version__

Entry: TypeAlias = dict[str, Any]
"""What result.json has of a study."""

STOPPING = (AuthenticationError, DeadlineExceededError, ModelNotFoundError, OverloadedError, ServerUnavailableError)
"""With these no other study would fare better."""

NAMING = ("patient_id", "accession_number", "study_date", "study_time")
"""What the worklist's record has, and result.json has not: whoever reads it may log it."""

NOT_CT = "These objects are no CT images."
KINDS = {"sr.dcm": "sr", "sc.dcm": "sc", "fhir.json": "fhir", "oru.hl7": "hl7"}


@dataclass(frozen=True)
class Layout:
    """How results are laid down."""

    name: Callable[[Study, str, Mapping[str, str]], str]
    """Names a file by its study, what it is called among the results of one, and the UIDs of the object in it."""

    head: Callable[[Sequence[Entry]], dict[str, Any]] = lambda _: {}
    """What result.json has beside these studies."""


@dataclass
class Outcome:
    """What came of a folder."""

    studies: list[Entry] = field(default_factory=list)
    """Those that have results, those of before included."""

    errors: list[dict[str, str]] = field(default_factory=list)
    """Those that have none, with the reason."""


class FolderJudge:
    """Judges studies.

    Args:
        client: asks the server.
        make: makes results.
        kinds: which there are of a study.
        layout: how they are laid down.
        note: takes a line about each study, in which nobody is named.
    """

    def __init__(
        self, client: StrokeClient, make: Maker, kinds: Sequence[str], layout: Layout, note: Callable[[str], None]
    ) -> None:
        self._client, self._make, self._kinds = client, make, frozenset(kinds)
        self._layout, self._note = layout, note

    def judge(self, found: FoundStudies, output: Output, *, again: bool) -> Outcome:
        """Judges every study that has no results yet of the same images; ``again``: every study.

        Raises:
            OSError: files cannot be read, or results not be written.
        """
        outcome = Outcome()
        for number, study in enumerate(found.studies.values(), start=1):
            place = f"{number} of {len(found.studies)}: study {show(make_key(study.uid))}"
            entry = None if again else self._find_entry(study, output)
            if entry is not None:
                outcome.studies.append(entry)
                self._note(f"{place}: has its results (--again judges it again)")
                continue
            try:
                entry, files = self._judge(study)
            except OSError:
                raise
            except Exception as error:  # of a library, too, at what a file says: no other study is held up by it
                told = describe_error(study, error)
                outcome.errors.append(told)
                self._note(f"{place}: not judged [{told['reason']}]: {told['message']}")
                if isinstance(error, STOPPING):
                    break
                continue
            outcome.studies.append(entry)
            head = {"version": __version__, "files_left_out": dict(sorted(found.left_out.items()))}
            output.put(files, entry, head | self._layout.head(outcome.studies))
            self._note(f"{place}: {describe_entry(entry)}")
        return outcome

    def _find_entry(self, study: Study, output: Output) -> Entry | None:
        """The results that there are of the same images."""
        for one in output.studies:
            is_same = (one["study_instance_uid"], one.get("images_sha256")) == (study.uid, study.digest)
            is_whole = {file["kind"] for file in one["files"]} == self._kinds
            if is_same and is_whole and output.has(one):
                return one
        return None

    def _judge(self, study: Study) -> tuple[Entry, dict[str, bytes]]:
        """Raises StrokeClientError where there is no answer."""
        paths = list(study.images.values())
        answer = ask(self._client, paths, is_last_try=False)
        if isinstance(answer, ImageReadError):  # it is this machine that failed, not the study
            raise answer
        left_out = [StudySeries(series, count, "NOT_CT", NOT_CT) for series, count in study.not_kept.items()]
        results = self._make(answer, paths, left_out, datetime.now(UTC))
        files, listed = {}, []
        for name, data in results.files.items():
            uids = read_uids(data) if name.endswith(".dcm") else {}
            path = self._layout.name(study, name, uids)
            files[path] = data
            listed.append({"name": path, "kind": KINDS[name], **uids})
        entry = {name: value for name, value in results.record.items() if name not in NAMING}
        entry |= {"images": len(study.images), "images_sha256": study.digest}
        if isinstance(answer, StudyPrediction):
            entry |= describe_answer(answer, left_out)
        return entry | {"files": listed}, files


def read_uids(data: bytes) -> dict[str, str]:
    """What a DICOM object of results is known by."""
    instance = read_instance(data)
    return {"series_instance_uid": instance.series, "sop_instance_uid": instance.sop}


def describe_answer(prediction: StudyPrediction, left_out: Sequence[StudySeries]) -> Entry:
    """What result.json has of an answer beside the worklist's record."""
    failed = Counter(one.error.reason for one in prediction.failed if one.error is not None)
    return {
        "series_instance_uid": prediction.series.series_instance_uid if prediction.series else None,
        "slices": len(prediction.slices),
        "left_out": [
            {
                "series_instance_uid": one.series_instance_uid,
                "objects": one.slices,
                "reason": one.reason,
                "message": one.message,
            }
            for one in (*prediction.left_out, *left_out)
        ],
        "failures": dict(sorted(failed.items())),
        "warnings": [{"reason": one.reason, "message": one.message} for one in prediction.warnings],
        "request_id": prediction.request_id,
    }


def describe_entry(entry: Entry) -> str:
    """A study in a line, without anything that names a patient."""
    if entry["probability"] is None:
        answer = f"{entry['status']} [{', '.join(one['reason'] for one in entry['reasons'])}]"
    else:
        answer = f"{entry['label']}, probability {entry['probability']:.3f}, threshold {entry['threshold']:.3f}"
    return f"{entry['urgency']}: {answer}; {entry['images']} images, model {entry['model']} {entry['version']}"


def describe_error(study: Study, error: Exception) -> dict[str, str]:
    """Why a study has no results, without the names of files, or what is in them, which may name a patient."""
    if isinstance(error, ImageReadError):
        reason, message = error.reason, "its files cannot be read"
    elif isinstance(error, StrokeClientError):
        reason, message = error.reason, str(error)
    else:
        reason, message = "RESULTS_NOT_MADE", f"its results cannot be made ({type(error).__name__})"
    return {"study_instance_uid": study.uid, "reason": reason, "message": message}
