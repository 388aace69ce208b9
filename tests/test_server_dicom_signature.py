"""DICOM files are told by how they begin, and nothing else is taken for one."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from server.images.dicom.signature import EARLY_ELEMENTS, SIGNATURE_BYTES, is_dicom
from tests.dicom_files import make_dicom, make_hu
from tests.dicom_starts import DICOM_STARTS, OTHER_STARTS
from tests.fakes import encode, make_slice


@pytest.mark.parametrize("name", DICOM_STARTS)
def test_dicom_file_is_told_by_its_first_bytes(name: str) -> None:
    """Also where little of it is there, and whatever follows."""
    assert is_dicom(DICOM_STARTS[name])
    assert is_dicom(DICOM_STARTS[name] + bytes(1000))


@pytest.mark.parametrize("name", OTHER_STARTS)
def test_other_file_is_not(name: str) -> None:
    """One that looks nearly like it is not enough."""
    assert not is_dicom(OTHER_STARTS[name])


@pytest.mark.parametrize("headless", [False, True], ids=["with a head", "headless"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_written_files_are_told_by_their_beginning(syntax: str, headless: bool) -> None:
    """As pydicom writes them, from the bytes that are looked at in folders."""
    assert is_dicom(make_dicom(make_hu(), syntax=syntax, headless=headless)[:SIGNATURE_BYTES])


def test_images_are_never_taken_for_dicom() -> None:
    """Not even with the letters at the place where DICOM has them."""
    for image_format in ("PNG", "JPEG"):
        data = encode(make_slice(), image_format)
        assert not is_dicom(data)
        assert not is_dicom(data[:128] + b"DICM" + data[132:])


def test_random_bytes_are_never_taken_for_dicom() -> None:
    """Also where the first element is one that may come first: what follows it must fit as well."""
    generator = random.Random(0)
    starts = [group.to_bytes(2, "little") + element.to_bytes(2, "little") for group in (2, 8) for element in range(30)]

    for start in [b"", *starts] * 300:
        assert not is_dicom(start + generator.randbytes(188))
    assert len(EARLY_ELEMENTS) == 2
    assert not any(is_dicom(np.full(192, value, np.uint8).tobytes()) for value in range(256))
