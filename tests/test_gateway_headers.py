"""Headers of a study: handed back byte for byte, read as text, and never believed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from gateway.results.headers import read_headers
from gateway.results.make import make_results
from tests.dicom_files import make_dicom, make_hu
from tests.results_of_studies import ALL, ARCHIVE, NOW, find_errors, find_window, judge, make, read_object, write_study
from tests.studies import STUDY

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
JAPANESE_SET = ["", "ISO 2022 IR 87"]


@pytest.mark.parametrize(
    ("characters", "name"),
    [
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 192", JAPANESE),
        (JAPANESE_SET, JAPANESE),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_names_are_what_the_archive_has(tmp_path: Path, characters: Any, name: str) -> None:
    """In its character set, the ideographic and the phonetic group too: the same bytes in the file."""
    results = make(tmp_path, tags={"SpecificCharacterSet": characters, "PatientName": name})
    source = dcmread(tmp_path / "0.dcm").get_item("PatientName").value

    for one in ("sr.dcm", "sc.dcm"):
        found = read_object(results, one)
        assert found.get_item("PatientName").value == source
        assert str(found.PatientName) == name


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_encoding_of_the_source_does_not_matter(tmp_path: Path, syntax: str) -> None:
    """Results are explicit VR little endian, whatever the files are."""
    path = tmp_path / "a.dcm"
    path.write_bytes(make_dicom(make_hu(), syntax=syntax, **ARCHIVE))
    headers = read_headers([path])

    assert headers.read("PatientName") == "Doe^Jané"
    assert headers.read("AccessionNumber") == "ACC1"


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # which pydicom says of a character set, and of no value
def test_values_that_break_rules_come_back_as_they_were(tmp_path: Path) -> None:
    """A character set that nobody knows, a date that is none, a sex that nobody defined: results are made of it."""
    path = write_study(tmp_path, 1)[0]
    file = path.read_bytes()
    for old, new in ((b"ISO_IR 100", b"NO SUCH   "), (b"19500101", b"1.1.1950"), (b"CS\x02\x00F ", b"CS\x02\x00??")):
        assert old in file
        file = file.replace(old, new)
    path.write_bytes(file)
    headers = read_headers([path])
    results = make_results(judge(headers), headers, ALL, NOW, find_window)

    for one in ("sr.dcm", "sc.dcm"):
        found = read_object(results, one)
        assert found.get_item("PatientBirthDate").value == b"1.1.1950"
        assert found.get_item("PatientSex").value == b"??"
        assert found.SpecificCharacterSet == "NO SUCH"
        assert found.get_item("PatientName").value == b"Doe^Jan\xe9"
    assert b"|U\r" in results.texts["oru.hl7"]


def test_study_without_type_2_elements_gets_them_empty(tmp_path: Path) -> None:
    """What the file lacks is there and says nothing, as the standard has it; there is no invented value."""
    missing = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime", "SpecificCharacterSet")
    results = make(tmp_path, tags=dict.fromkeys(missing) | {"PatientName": "Doe"})

    for one in results.objects:
        found = dcmread(io.BytesIO(one.data))
        assert [found[keyword].value or "" for keyword in missing[:-1]] == [""] * 5
        assert "SpecificCharacterSet" not in found
        assert find_errors(one.data, "dciodvfy", "-new") == []


def test_files_of_other_studies_and_kinds_are_passed_over(tmp_path: Path) -> None:
    """The first file says which study it is."""
    paths = write_study(tmp_path)
    (tmp_path / "notes.txt").write_text("no DICOM file")
    paths[3].write_bytes(make_dicom(make_hu(), StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.4"))
    paths[4].write_bytes(b"")

    headers = read_headers([*paths, tmp_path / "notes.txt"])
    assert headers.study_instance_uid == STUDY
    assert len(headers.instances) == 4
    with pytest.raises(ValueError, match="no DICOM file"):
        read_headers([tmp_path / "notes.txt"])


@pytest.mark.parametrize("new", [b"1.2.840.10008.5.1.4.1.1.99", b"1.2.840\x1b10008.5.1.4.1.1.2\x00"])
def test_files_that_no_result_could_refer_to_are_passed_over(tmp_path: Path, new: bytes) -> None:
    """Of a class that nobody knows, or with a UID that is none."""
    paths = write_study(tmp_path, 2)
    file = paths[0].read_bytes()
    paths[0].write_bytes(file.replace(b"1.2.840.10008.5.1.4.1.1.2\x00", new))

    assert [one.number for one in read_headers(paths).instances.values()] == ["2"]


@pytest.mark.parametrize("new", [b"I\x00\x02\x002 ", b"IS\x02\x00x ", b"IS\x04\x001\\2 "])
def test_number_that_is_none_is_left_out(tmp_path: Path, new: bytes) -> None:
    """Its file is not: it has been judged; of several numbers the first counts."""
    (path,) = write_study(tmp_path, 1)
    file = path.read_bytes()
    path.write_bytes(file.replace(b"\x20\x00\x11\x00IS\x02\x002 ", b"\x20\x00\x11\x00" + new))

    (one,) = read_headers([path]).instances.values()
    assert (one.series_number, one.number) == ("1" if b"\\" in new else "", "1")


def test_element_of_no_kind_is_left_out(tmp_path: Path) -> None:
    """What else is in the file is read."""
    (path,) = write_study(tmp_path, 1)
    file = path.read_bytes()
    path.write_bytes(file.replace(b"\x08\x00\x90\x00PN", b"\x08\x00\x90\x00P\x1b"))

    assert read_headers([path]).read("ReferringPhysicianName") == ""


def test_dates_of_results_are_in_the_time_zone_of_the_study(tmp_path: Path) -> None:
    """Where it says one; it is 04:05:06 UTC."""
    for zone, hour in (("+0900", "130506"), ("-0330", "003506"), ("nonsense", "040506")):
        found = read_object(make(tmp_path, tags={"TimezoneOffsetFromUTC": zone}), "sr.dcm")
        assert (found.ContentDate, found.ContentTime) == ("20261130", hour)
