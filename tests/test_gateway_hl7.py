"""The HL7 message: valid, with the site's priority, and values that cannot be taken for its structure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message

from client import Reason
from gateway.results.settings import ResultSettings
from tests.results_of_studies import NEGATIVE, NOT_ANALYSED, make
from tests.test_gateway_headers import JAPANESE, JAPANESE_SET


def read_message(folder: Path, tags: dict[str, Any] | None = None, **fields: Any) -> dict[str, list[list[str]]]:
    """Fields of the segments by name, from 0, as in the bytes; hl7apy has found no fault in them."""
    own = {name: fields.pop(name) for name in list(fields) if name in ("priority_field", "priorities", "hl7_receiver")}
    settings = ResultSettings(results=("hl7",), **own)
    text = make(folder, settings, tags, **fields).texts["oru.hl7"].decode()
    if not settings.priority_field.startswith("Z"):
        assert parse_message(text, VALIDATION_LEVEL.STRICT).validate()
    found: dict[str, list[list[str]]] = {}
    for line in text.removesuffix("\r").split("\r"):
        assert line.isprintable()
        name, *values = line.split("|")
        found.setdefault(name, []).append([name, *values])
    return found


def list_values(message: dict[str, list[list[str]]]) -> dict[str, str]:
    """Values of the observations by their names; of several the last."""
    return {line[3].split("^")[1]: line[5] for line in message["OBX"]}


def test_positive_study_is_a_result_with_its_figures(tmp_path: Path) -> None:
    message = read_message(tmp_path)
    values = list_values(message)

    assert message["MSH"][0][8] == "ORU^R01^ORU_R01"
    assert message["MSH"][0][17] == "UNICODE UTF-8"
    assert message["OBR"][0][3] == "ACC1"
    assert message["OBR"][0][7] == "20261129101500"
    assert values["Status of the analysis"] == "ANALYSED^analysed^99STROKESERVE"
    assert values["Classification of the whole study"] == "stroke^stroke^99STROKESERVE"
    assert (values["Probability"], values["Threshold Value"]) == ("0.831234", "0.5")
    assert [line[1] for line in message["OBX"]] == [str(number) for number in range(1, len(message["OBX"]) + 1)]
    assert {line[11] for line in message["OBX"]} == {"P"}
    assert message["OBX"][1][8] == "A"


def test_study_without_an_answer_has_none(tmp_path: Path) -> None:
    """The classification cannot be obtained, and a comment says why."""
    message = read_message(tmp_path, **NOT_ANALYSED)

    assert (message["OBX"][1][5], message["OBX"][1][11]) == ("", "X")
    comments = [line[5] for line in message["OBX"] if "^Comment^" in line[3]]
    assert "Not analysed [INSUFFICIENT_QUALITY]: there are too few slices" in comments
    assert "Probability" not in list_values(message)


@pytest.mark.parametrize(
    ("place", "segment", "field", "written"),
    [
        ("OBR-27.6", "OBR", 27, "^^^^^S"),
        ("OBR-5", "OBR", 5, "S"),
        ("TQ1-9", "TQ1", 9, "S"),
        ("ZAI-1", "ZAI", 1, "S"),
    ],
)
def test_priority_is_where_the_site_wants_it(
    tmp_path: Path, place: str, segment: str, field: int, written: str
) -> None:
    assert read_message(tmp_path, priority_field=place)[segment][0][field] == written


@pytest.mark.parametrize(("fields", "code"), [({}, "1&now"), (NOT_ANALYSED, "2"), (NEGATIVE, None)])
def test_priority_is_the_code_of_the_site(tmp_path: Path, fields: dict[str, Any], code: str | None) -> None:
    """What has no code has no segment."""
    codes = ("rest=", "positive=1&now", "not-analysed=2")
    message = read_message(tmp_path, priority_field="ZPR-2", priorities=codes, **fields)

    found = message["ZPR"][0][2] if "ZPR" in message else None
    assert found == (code.replace("&", "\\T\\") if code else None)


def test_values_cannot_be_taken_for_structure(tmp_path: Path) -> None:
    """Separators are escaped, ends of lines are spaces, wherever a value comes from."""
    evil = "a|b^c~d&e\\f\rOBX|9|\ng\x0b"
    reasons = (Reason("BAD", evil),)
    tags = {"PatientID": "1|2~3^4", "AccessionNumber": "A|B"}
    message = read_message(tmp_path, tags, **NOT_ANALYSED | {"reasons": reasons, "model": evil})

    escaped = r"a\F\b\S\c\R\d\T\e\E\f OBX\F\9\F\ g"
    assert f"Not analysed [BAD]: {escaped}" in [line[5] for line in message["OBX"]]
    assert message["PID"][0][3] == r"1\F\2\R\3\S\4^^^^MR"
    assert message["OBR"][0][18] == r"A\F\B"
    assert list(message) == ["MSH", "PID", "OBR", "OBX"]


def test_names_have_their_groups_and_the_order_of_hl7(tmp_path: Path) -> None:
    """HL7 has the suffix before the prefix; groups are repetitions, each with its kind."""
    message = read_message(tmp_path, {"PatientName": "Doe^Jane^Q^Dr^III"})
    assert message["PID"][0][5] == "Doe^Jane^Q^III^Dr^^L^A"

    message = read_message(tmp_path, {"PatientName": JAPANESE, "SpecificCharacterSet": JAPANESE_SET})
    assert message["PID"][0][5].split("~") == [
        "Yamada^Tarou^^^^^L^A",
        "山田^太郎^^^^^L^I",
        "やまだ^たろう^^^^^L^P",
    ]


def test_values_that_are_no_dates_are_left_out(tmp_path: Path) -> None:
    message = read_message(tmp_path, {"PatientBirthDate": "00000000", "StudyDate": "20261399", "PatientSex": None})

    assert (message["PID"][0][7], message["PID"][0][8], message["OBR"][0][7]) == ("", "U", "")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"priority_field": "PID-3"}, "--priority-field must be a field of OBR, TQ1 or a Z segment"),
        ({"priority_field": "OBR-25"}, "--priority-field must be a field that says nothing else yet"),
        ({"priorities": ("positive=S",)}, "--priorities must have each of positive, not-analysed, rest once"),
        ({"priorities": ("positive", "rest=1", "not-analysed=2")}, "--priorities must have each of"),
        ({"hl7_receiver": ("a", "b", "c")}, "--hl7-receiver must be an application"),
        ({"results": ("pdf",)}, "--results must be one of sr, sc, fhir, hl7"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        ResultSettings(**wrong)
