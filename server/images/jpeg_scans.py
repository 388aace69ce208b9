"""Keeps account of the scans of a JPEG file: whether each may come where it comes, what it costs, and what is missing.

A file cut between two scans, with an end marker put behind, is a file that decodes without a complaint, blurred or with
a colour missing. An honest file sends every coefficient of every component, to its last bit. References are to ITU-T
T.81.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.images.image_file import damaged_image, overcrowded_image, unsupported_image

PROGRESSIVE, LOSSLESS = 0xC2, 0xC3
MAX_SCANS = 100
"""A progressive JPEG has about 10 (libjpeg's standard script). Each costs a pass over all blocks and as little as 42
bytes of file, so a small file could keep a worker busy for an hour."""

MAX_BLOCK_VISITS = 8_000_000
"""Blocks times the scans that go over them; one visit takes about 60 ns. 25 megapixels with all their colours have 1.2
million blocks, and libjpeg's standard script goes over them 4.7 times."""

COEFFICIENTS = 64
MAX_SHIFT = 13  # table B.3
UNSENT = 0xFF


@dataclass(frozen=True)
class Component:
    """One channel of a frame: its number, and its sampling factors, horizontal and vertical, in 4 bits each."""

    number: int
    sampling: int

    @property
    def factors(self) -> tuple[int, int]:
        return self.sampling >> 4, self.sampling & 15


class ScanLedger:
    """The scans of one frame.

    Attributes:
        scans: how many there were so far.
        makes_sense: False once a scan came that could not come there: twice, or before what it refines.
    """

    def __init__(self, width: int, height: int, components: Sequence[Component], kind: int) -> None:
        """Begins the walk of one frame.

        Args:
            width, height: of the image, in pixels.
            components: of the frame.
            kind: the frame's marker.
        """
        self.scans = 0
        self.makes_sense = True
        self._kind = kind
        self._visits = 0
        # Of each coefficient: how many of its low bits have not come yet, or UNSENT.
        self._missing = {component.number: bytearray([UNSENT]) * COEFFICIENTS for component in components}
        if len(self._missing) != len(components):
            raise damaged_image()
        self._blocks = {component.number: blocks for component, blocks in count_blocks(width, height, components)}

    def add(self, header: bytes) -> bytes:
        """Enters a scan, and returns the header to hand to the decoder.

        What a header of a sequential scan says beside its components has one right value (table B.3), which decoders
        take for granted and some writers do not write.
        """
        count = header[0] if header else 0
        if not 1 <= count <= 4 or len(header) != 4 + 2 * count:
            raise damaged_image()
        numbers = [header[1 + 2 * n] for n in range(count)]
        if len(set(numbers)) != count or not self._missing.keys() >= set(numbers):
            raise damaged_image()
        first, last, shifts = header[-3:]
        if self._kind == PROGRESSIVE:
            self.makes_sense &= self._send_band(numbers, first, last, shifts >> 4, shifts & 15)
        else:
            self.makes_sense &= self._send_all(numbers)
            if self._kind != LOSSLESS:
                header = header[:-3] + bytes((0, COEFFICIENTS - 1, 0))
        self._charge(numbers)
        return header

    def _send_all(self, numbers: Sequence[int]) -> bool:
        is_first = all(self._missing[number][0] == UNSENT for number in numbers)
        for number in numbers:
            self._missing[number][:] = bytes(COEFFICIENTS)
        return is_first

    def _send_band(self, numbers: Sequence[int], first: int, last: int, high: int, low: int) -> bool:
        """Spectral selection and successive approximation (G.1.1.1)."""
        is_direct = first == 0
        if last >= COEFFICIENTS or last < first or (is_direct and last != 0) or (not is_direct and len(numbers) != 1):
            return False
        if low > MAX_SHIFT or (high and low != high - 1):
            return False
        band = slice(first, last + 1)
        for number in numbers:
            missing = self._missing[number]
            if missing[band] != bytes([high or UNSENT]) * (last - first + 1):
                return False
            if not is_direct and missing[0] == UNSENT:
                return False
            missing[band] = bytes([low]) * (last - first + 1)
        return True

    def _charge(self, numbers: Sequence[int]) -> None:
        self.scans += 1
        self._visits += sum(self._blocks[number] for number in numbers)
        if self.scans > MAX_SCANS:
            raise overcrowded_image(f"more than {MAX_SCANS} passes")
        if self._visits > MAX_BLOCK_VISITS:
            raise overcrowded_image("too many passes for its size")

    def is_complete(self) -> bool:
        """Whether every coefficient of every component came, to its last bit."""
        return all(missing == bytes(COEFFICIENTS) for missing in self._missing.values())


def count_blocks(width: int, height: int, components: Sequence[Component]) -> list[tuple[Component, int]]:
    """Returns the blocks of 8 x 8 samples of each component (A.1.1); of a lossless frame, a 64th of the samples."""
    factors = [component.factors for component in components]
    if not all(1 <= factor <= 4 for pair in factors for factor in pair):
        raise damaged_image()
    widest, highest = (max(pair[axis] for pair in factors) for axis in (0, 1))
    if any(widest % across or highest % down for across, down in factors):
        raise unsupported_image("a JPEG with fractional sampling")
    blocks = []
    for component, (across, down) in zip(components, factors, strict=True):
        columns, rows = -(-width * across // (8 * widest)), -(-height * down // (8 * highest))
        blocks.append((component, columns * rows))
    return blocks
