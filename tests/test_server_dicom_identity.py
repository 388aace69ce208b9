"""Whose a DICOM file is: hashes that keep people apart and tell nobody who they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from server.errors import ImageError
from server.images.dicom import identity
from server.images.dicom.identity import HEAD_BYTES, read_identities
from tests.dicom_files import ROOT, make_dicom, make_hu, make_item

HU = make_hu(32)


def write_files(folder: Path, *ids: tuple[str, str], **tags: object) -> list[Path]:
    """One file for each patient and study."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, (patient, study) in enumerate(ids):
        path = folder / f"{number}.dcm"
        instance = f"{ROOT}9.{number}"
        path.write_bytes(make_dicom(HU, PatientID=patient, StudyInstanceUID=study, SOPInstanceUID=instance, **tags))
        paths.append(path)
    return paths


def test_slices_of_a_person_and_of_a_study_have_one_hash(tmp_path: Path) -> None:
    """Two studies of one person, and one of another; padding of an id is no part of it."""
    paths = write_files(tmp_path, ("MRN1", "1.1"), ("MRN1 ", "1.1"), ("MRN1", "1.2"), ("MRN2", "1.3"))
    found = [read_identities(paths)[path] for path in paths]
    assert [one.patient == found[0].patient for one in found] == [True, True, True, False]
    assert [one.study == found[0].study for one in found] == [True, True, False, False]
    assert all(one.person == one.patient for one in found)


def test_hashes_name_nobody(tmp_path: Path) -> None:
    """They are no plain hashes of what they stand for, which whoever knows an id could look up."""
    (path,) = write_files(tmp_path, ("4711", "1.2.3"))
    found = read_identities([path])[path]
    for text in (b"4711", b"1.2.3"):
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, text).hexdigest()
            assert str(found.patient) not in digest
            assert str(found.study) not in digest
    assert found.patient != found.study
    assert "4711" not in repr(found)


def test_hashes_belong_to_a_data_set(tmp_path: Path) -> None:
    """The same files give the same hashes wherever they lie; with one file more they are others."""
    first = write_files(tmp_path / "a", ("MRN1", "1.1"), ("MRN2", "1.2"))
    again = write_files(tmp_path / "b", ("MRN1", "1.1"), ("MRN2", "1.2"))
    assert list(read_identities(first).values()) == list(read_identities(reversed(again)).values())[::-1]
    assert read_identities(first)[first[0]] != read_identities(first[:1])[first[0]]


def test_where_nobody_is_named_a_study_is_a_person(tmp_path: Path) -> None:
    """Files without an id, as some archives write them."""
    paths = write_files(tmp_path, ("", "1.1"), ("", "1.2"), ("", ""))
    named, other, nobody = read_identities(paths).values()
    assert named.patient is None
    assert named.person == named.study != other.person
    assert nobody.person is None


def test_other_files_are_nobodys(tmp_path: Path) -> None:
    """A PNG is not read further than where it begins; damaged, empty and missing files are of nobody who is known."""
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    (tmp_path / "b.dcm").write_bytes(make_dicom(HU)[:300])
    (tmp_path / "c.dcm").write_bytes(b"")
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "gone.dcm"]
    found = read_identities(paths)
    assert {path.name: one.person for path, one in found.items()} == {"b.dcm": None}


def test_headless_files_and_long_headers_are_read(tmp_path: Path) -> None:
    """A file without a preamble; and one whose study stands behind more than is read at first."""
    (tmp_path / "headless").write_bytes(make_dicom(HU, headless=True, PatientID="MRN1"))
    long = [make_item(DerivationDescription="x" * 1000) for _ in range(2 * HEAD_BYTES // 1000)]
    (tmp_path / "long").write_bytes(make_dicom(HU, PatientID="MRN1", SourceImageSequence=long))
    found = read_identities([tmp_path / "headless", tmp_path / "long"])
    assert len({one.patient for one in found.values()}) == 1
    assert None not in {one.patient for one in found.values()}


def test_ids_that_differ_in_what_is_no_utf8_differ(tmp_path: Path) -> None:
    """Bytes are hashed, not what a wrong character set makes of them."""
    paths = write_files(tmp_path, ("MÜLLER", "1.1"), ("MÖLLER", "1.1"), SpecificCharacterSet="ISO_IR 100")
    assert len({one.patient for one in read_identities(paths).values()}) == 2


def test_without_pydicom_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a DICOM file; a folder of PNGs needs none."""

    def refuse() -> None:
        raise ImageError("DICOM_NOT_SUPPORTED", "none")

    monkeypatch.setattr(identity, "load_reader", refuse)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert not read_identities([tmp_path / "a.png"])
    with pytest.raises(ImageError):
        read_identities(write_files(tmp_path / "ct", ("MRN1", "1.1")))


def test_pixels_are_not_looked_at(tmp_path: Path) -> None:
    """The same person with other pixels."""
    first, second = (make_dicom(hu, PatientID="MRN1") for hu in (HU, np.full_like(HU, 40)))
    (tmp_path / "1").write_bytes(first)
    (tmp_path / "2").write_bytes(second)
    assert len(set(read_identities(sorted(tmp_path.iterdir())).values())) == 1
