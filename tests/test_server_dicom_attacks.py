"""DICOM files that were made, or became, to do harm: only refusals, and soon."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from server.errors import ImageError
from server.images.dicom.budget import MOST_READS
from server.images.dicom.file import decode_dicom, read_header
from server.images.dicom.window import BRAIN
from server.images.image_file import DEFAULT_LIMITS
from tests.dicom_files import make_dicom, make_enhanced, make_hu

MUTANTS = 500

HU = make_hu(32)
SEEDS = (
    make_dicom(HU, PixelPaddingValue=0),
    make_dicom(HU, bits=12, signed=True, intercept=0, syntax=ImplicitVRLittleEndian),
    make_dicom(HU, headless=True),
    make_enhanced(np.stack([HU, HU]), intercepts=(-1024.0, 0.0)),
    make_enhanced(np.stack([HU, HU]), syntax=ImplicitVRLittleEndian),
    make_enhanced(np.stack([HU, HU]), intercepts=(-1024.0, 0.0), delimited=True),
)
ODD_NUMBERS = tuple(map(bytes.fromhex, ("ffffffff", "feffffff", "ffffff7f", "00000000", "ffff", "0000")))
ITEM, END_SEQUENCE = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
PER_FRAME, PIXEL_DESCRIPTION = b"\x00\x52\x30\x92", b"\x28\x00\x02\x00"
UNDEFINED = b"\xff\xff\xff\xff"
PRIVATE = b"\x09\x00\x01\x10SQ\x00\x00" + UNDEFINED


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changes some bytes, most of them before the pixels."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        head = max(1, len(changed) - 2000)
        place = generator.randrange(head if generator.random() < 0.9 else len(changed))
        kind = generator.randrange(20)
        if kind < 6:
            changed[place] ^= 1 << generator.randrange(8)
        elif kind < 11:
            changed[place] = generator.randrange(256)
        elif kind < 15:
            number = generator.choice(ODD_NUMBERS)
            changed[place : place + len(number)] = number
        elif kind < 17:
            del changed[place + 1 : place + generator.randrange(2, 40)]
        elif kind < 19:
            start = generator.randrange(head)
            changed[place:place] = changed[start : start + generator.randrange(1, 200)]
        else:
            del changed[max(1, place) :]
    return bytes(changed)


def judge(data: bytes) -> str:
    """Reads a file as far as it goes; returns the reason it was refused for, or ``judged``."""
    try:
        for header in read_header(data, DEFAULT_LIMITS):
            image = decode_dicom(data, (BRAIN,), DEFAULT_LIMITS, header.frame).image
            assert image.size == (header.columns, header.rows)
    except ImageError as error:
        return error.reason
    return "judged"


def test_changed_files_are_read_or_refused() -> None:
    """Nothing else is ever raised, whatever is in them."""
    generator = random.Random(17)

    outcomes = Counter(judge(mutate(SEEDS[index % len(SEEDS)], generator)) for index in range(MUTANTS))

    print(*outcomes.items(), sep="\n")
    assert len(outcomes) > 8
    assert 0 < outcomes["judged"] < MUTANTS


def insert(elements: bytes, before: bytes) -> bytes:
    """A file of two frames with elements before another one."""
    data = make_enhanced(np.stack([HU, HU]))
    place = data.index(before)
    return data[:place] + elements + data[place:]


MANY = MOST_READS + 1
BOMBS = {
    "empty items": (PRIVATE + (ITEM + bytes(4)) * MANY, "DICOM_TOO_LARGE"),
    "empty elements": (b"\x09\x00\x01\x10LO\x00\x00" * MANY, "DICOM_TOO_LARGE"),
    "items without an end": (PRIVATE + (ITEM + UNDEFINED) * MANY, "DICOM_DAMAGED"),
    "sequences in sequences": ((PRIVATE + ITEM + UNDEFINED) * MANY, "DICOM_DAMAGED"),
    "a value of 4 GB": (b"\x09\x00\x01\x10OB\x00\x00\xfe\xff\xff\xff" + bytes(7_000_000), "DICOM_TRUNCATED"),
    "a value without an end": (b"\x09\x00\x01\x10OB\x00\x00" + UNDEFINED + bytes(7_000_000), "DICOM_DAMAGED"),
}
"""Elements that would keep the library busy for most of a minute, had they the 8 MiB of a whole file."""


@pytest.mark.parametrize("name", BOMBS)
def test_reading_ends_soon(name: str) -> None:
    """How often the library reads is limited."""
    elements, reason = BOMBS[name]

    assert judge(insert(elements, PIXEL_DESCRIPTION)) == reason


@pytest.mark.parametrize("tag", [b"\x00\x52\x29\x92", PER_FRAME], ids=["shared", "per frame"])
def test_sequences_that_are_asked_for_are_limited_as_well(tag: bytes) -> None:
    """Items of a sequence of known length are read later than the rest, and count as others do."""
    items = (ITEM + bytes(4)) * MANY
    sequence = tag + b"SQ\x00\x00" + len(items).to_bytes(4, "little") + items

    assert judge(insert(sequence, PER_FRAME)) == "DICOM_TOO_LARGE"
