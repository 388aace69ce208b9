"""Dates and times of DICOM for other standards, where they are dates and times."""

from __future__ import annotations

import re
from datetime import date, datetime, time

from gateway.results.headers import StudyHeaders
from gateway.results.identity import find_zone


def read_date(headers: StudyHeaders, keyword: str) -> date | None:
    """A date of patient or study; None where there is none, or what is there is no date."""
    found = re.fullmatch(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", headers.read(keyword))
    try:
        return date(*map(int, found.groups())) if found else None
    except ValueError:
        return None


def read_study_moment(headers: StudyHeaders) -> datetime | date | None:
    """When the study was made: with the time of day where there is one, in its time zone where it says one."""
    day = read_date(headers, "StudyDate")
    found = re.match(r"(\d\d):?(\d\d)(?::?(\d\d))?", headers.read("StudyTime"))
    try:
        hour = time(int(found[1]), int(found[2]), int(found[3] or 0)) if found else None
    except ValueError:
        hour = None
    return day if day is None or hour is None else datetime.combine(day, hour, find_zone(headers))
