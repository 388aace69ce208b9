"""Which results are made, and what a site wants in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.results.urgency import Urgency
from server.flags import check_settings, require, setting

RESULTS = ("sr", "sc", "fhir", "hl7")
_FIELD = re.compile(r"(OBR|TQ1|Z[A-Z0-9]{2})-([1-9]\d?)(?:\.([1-9]\d?))?")
_TAKEN = {1, 3, 4, 7, 18, 22, 24, 25}
"""Fields of OBR that say what and when."""


@dataclass(frozen=True)
class PriorityField:
    """A place in an HL7 message."""

    segment: str
    field: int
    component: int
    """From 1."""


@dataclass(frozen=True)
class ResultSettings:
    """What becomes of an answer."""

    results: tuple[str, ...] = setting(
        ("sr", "sc"),
        "results to make of a study: a structured report (sr) and a page that any viewer opens (sc), both DICOM, a "
        "bundle of FHIR R4 (fhir), a message ORU^R01 of HL7 2.5.1 (hl7)",
        choices=RESULTS,
        separator=",",
        metavar="KIND,KIND",
    )
    patient_system: str = setting(
        "", "system (URI) of the patients' identifiers, for FHIR; IssuerOfPatientID unless told", metavar="URI"
    )
    priority_field: str = setting(
        "OBR-27.6",
        "where the HL7 message has its priority, since sites differ: a field, or a component of it, of OBR, of TQ1, or "
        "of a segment of the site's own (ZAI-1)",
        metavar="SEGMENT-FIELD",
    )
    priorities: tuple[str, ...] = setting(
        ("positive=S", "not-analysed=A", "rest=R"),
        "what stands there for a positive study, one that was not analysed, and the rest; without a code none",
        separator=",",
        metavar="KIND=CODE,...",
    )
    hl7_sender: tuple[str, ...] = setting(
        ("STROKESERVE",),
        "sending application of HL7 messages, and its facility",
        separator=",",
        metavar="APP,FACILITY",
    )
    hl7_receiver: tuple[str, ...] = setting(
        (), "receiving application of HL7 messages, and its facility", separator=",", metavar="APP,FACILITY"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        require(
            _FIELD.fullmatch(self.priority_field) is not None,
            "priority_field",
            f"must be a field of OBR, TQ1 or a Z segment, such as OBR-5 or OBR-27.6, got {self.priority_field!r}",
        )
        place = self.priority_place
        require(
            place.segment != "OBR" or place.field not in _TAKEN,
            "priority_field",
            f"must be a field that says nothing else yet, got {self.priority_field}",
        )
        kinds = [one.partition("=")[0] for one in self.priorities]
        require(
            sorted(kinds) == sorted(Urgency) and all("=" in one for one in self.priorities),
            "priorities",
            f"must have each of {', '.join(Urgency)} once, such as positive=S,not-analysed=A,rest=R",
        )
        for name in ("hl7_sender", "hl7_receiver"):
            require(len(getattr(self, name)) <= 2, name, "must be an application, or an application and a facility")

    @property
    def priority_place(self) -> PriorityField:
        """Where the priority stands."""
        found = _FIELD.fullmatch(self.priority_field)
        assert found is not None
        return PriorityField(found[1], int(found[2]), int(found[3] or 1))

    def find_priority(self, urgency: Urgency) -> str:
        """The site's code for a study; empty where it has none."""
        return dict(one.split("=", 1) for one in self.priorities)[urgency]
