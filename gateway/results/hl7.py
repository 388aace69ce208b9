"""The answer as a message ORU^R01 of HL7 2.5.1, in UTF-8, with its priority where the site wants it."""

from __future__ import annotations

from datetime import date, datetime

from pydicom.sr.coding import Code
from pydicom.valuerep import PersonName

from gateway.results import codes as terms
from gateway.results.answer import NOTICE, SOFTWARE, Answer
from gateway.results.identity import to_local
from gateway.results.moments import read_date, read_study_moment
from gateway.results.settings import ResultSettings
from gateway.results.uids import make_uid, make_uuid
from gateway.results.urgency import Urgency

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_STUDY_UID = Code("110180", "DCM", "Study Instance UID")
_MODEL = Code("111001", "DCM", "Algorithm Name")


def make_message(answer: Answer, settings: ResultSettings, now: datetime) -> bytes:
    """Makes the message: segments that end with a carriage return. ``now`` has a time zone."""
    order, extra = _make_order(answer, now), list[Segment]()
    if priority := settings.find_priority(answer.urgency):
        place = settings.priority_place
        holder = order if place.segment == "OBR" else Segment(place.segment)
        holder.put(place.field, *[""] * (place.component - 1), priority)
        extra = [] if holder is order else [holder]
    observations = [one.number(index) for index, one in enumerate(_list_observations(answer), 1)]
    is_own = settings.priority_place.segment.startswith("Z")  # those of a site come last
    body = [*observations, *extra] if is_own else [*extra, *observations]
    segments = [_make_head(answer, settings, now), _make_patient(answer), order, *body]
    return "".join(f"{one.encode()}\r" for one in segments).encode("utf-8", "replace")


class Segment:
    """A line of a message, filled field by field."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fields: dict[int, str] = {}

    def put(self, field: int, *components: str) -> Segment:
        """Sets a field of components, which may hold anything. Returns the segment."""
        self._fields[field] = "^".join(map(escape, components)).rstrip("^")
        return self

    def repeat(self, field: int, *components: str) -> Segment:
        """Adds a repetition to a field."""
        before = self._fields.get(field)
        self.put(field, *components)
        if before:
            self._fields[field] = f"{before}~{self._fields[field]}"
        return self

    def number(self, index: int) -> Segment:
        """Sets the number of the segment among those of its kind."""
        return self.put(1, str(index))

    def encode(self) -> str:
        """The line, without its end."""
        fields = [self._fields.get(index, "") for index in range(1, max(self._fields, default=0) + 1)]
        if self.name == "MSH":  # whose first field is the separator
            fields[:2] = ["^~\\&"]
        return "|".join([self.name, *fields])


def escape(text: str) -> str:
    """Text in which no separator is left, in one line."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return "".join(_ESCAPES.get(one, one) for one in line)


def _make_head(answer: Answer, settings: ResultSettings, now: datetime) -> Segment:
    sender, receiver = (*settings.hl7_sender, "", ""), (*settings.hl7_receiver, "", "")
    head = Segment("MSH").put(2, "").put(3, sender[0]).put(4, sender[1]).put(5, receiver[0]).put(6, receiver[1])
    head.put(7, _format(to_local(answer.headers, now))).put(9, "ORU", "R01", "ORU_R01")
    head.put(10, make_uuid(answer, "HL7").hex[:20]).put(11, "P").put(12, "2.5.1").put(18, "UNICODE UTF-8")
    return head


def _make_patient(answer: Answer) -> Segment:
    headers = answer.headers
    patient = Segment("PID").put(3, headers.read("PatientID"), "", "", headers.read("IssuerOfPatientID"), "MR")
    name = PersonName(headers.read("PatientName"))
    for group, representation in ((name.alphabetic, "A"), (name.ideographic, "I"), (name.phonetic, "P")):
        if group.strip("^ "):
            family, given, middle, prefix, suffix = (*group.split("^"), *[""] * 5)[:5]
            patient.repeat(5, family, given, middle, suffix, prefix, "", "L", representation)
    birth, sex = read_date(headers, "PatientBirthDate"), headers.read("PatientSex")
    return patient.put(7, _format(birth)).put(8, sex if sex in ("M", "F", "O") else "U")


def _make_order(answer: Answer, now: datetime) -> Segment:
    accession = answer.headers.read("AccessionNumber")
    order = Segment("OBR").number(1).put(3, accession or make_uid(answer, "report"), "" if accession else SOFTWARE)
    order.put(4, *_code(terms.CT_HEAD)).put(7, _format(read_study_moment(answer.headers))).put(18, accession)
    return order.put(22, _format(to_local(answer.headers, now))).put(24, "RAD").put(25, "P")


def _list_observations(answer: Answer) -> list[Segment]:
    study, first = answer.prediction, answer.first_look
    label = terms.own(study.label) if study.is_analysed else None
    found = [
        _observe("CWE", terms.STATUS, str(study.status), str(study.status).replace("_", " ").lower(), terms.SCHEME),
        _observe("CWE", terms.CLASSIFICATION, *(_code(label) if label else ())),
    ]
    if label is None:
        found[1].put(11, "X")  # cannot be obtained
    else:
        found[1].put(8, "A" if answer.urgency == Urgency.POSITIVE else "")
        found.append(_observe("NM", terms.PROBABILITY, _number(study.score)))
        found.append(_observe("NM", terms.THRESHOLD, _number(study.threshold)))
    if first is not None:
        uid = first.reference.instance.sop_instance_uid
        found.append(_observe("TX", terms.FIRST_LOOK, f"{first.describe()}, SOP instance {uid}"))
    found.append(_observe("ST", _STUDY_UID, answer.headers.study_instance_uid))
    if study.model:
        found.append(_observe("TX", _MODEL, f"{study.model} {study.version}, SHA-256 {study.digest}"))
    comments = [_observe("TX", terms.COMMENT, text) for text in (NOTICE, *answer.list_notes())]
    return [*found, *(one.put(4, str(index)) for index, one in enumerate(comments, 1))]


def _observe(kind: str, name: Code, *value: str) -> Segment:
    return Segment("OBX").put(2, kind).put(3, *_code(name)).put(5, *value).put(11, "P")


def _code(code: Code) -> tuple[str, str, str]:
    return code.value, code.meaning, code.scheme_designator


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _format(moment: datetime | date | None) -> str:
    if moment is None:
        return ""
    return moment.strftime("%Y%m%d%H%M%S%z" if isinstance(moment, datetime) else "%Y%m%d")
