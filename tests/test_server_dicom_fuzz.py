"""Compressed DICOM files that were changed at random: each is judged or refused, and the process that asks is well."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np

from bench.dicom.frames import JPEG_2000_LOSSY, LOSSLESS, NEAR_LOSSLESS, compress, put_in
from server.errors import StrokeError
from server.images.dicom.window import BRAIN
from server.images.preprocess import InputFormat, load_pixels
from server.machine.processors import count_processors
from tests.dicom_codecs import HTJ2K, read_htj2k
from tests.dicom_files import make_dicom, make_enhanced, make_hu
from tests.test_server_dicom_decoders import list_children

MODEL = InputFormat(64, 64, "grey", windows=(BRAIN,))


def make_seeds() -> list[bytes]:
    """A file in each syntax, one with frames, and one that is not compressed."""
    plain = make_dicom(make_hu(64), bits=12)
    enhanced = make_enhanced(np.stack([make_hu(64, seed) for seed in range(3)]))
    htj2k = put_in(make_dicom(make_hu(80)[:64], signed=True), HTJ2K[0], [read_htj2k()[1]])
    seeds = [plain, htj2k, *(compress(enhanced, syntax) for syntax in (LOSSLESS[1], NEAR_LOSSLESS))]
    return seeds + [compress(plain, syntax) for syntax in (*LOSSLESS, NEAR_LOSSLESS, JPEG_2000_LOSSY)]


def mutate(data: bytes, source: random.Random) -> bytes:
    """The file with some bytes changed or filled, and in one of ten files cut out."""
    mutant = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 5, 20))):
        start, length = source.randrange(len(mutant) - 64), source.choice((1, 1, 1, 2, 4, 64))
        fill = source.choice((b"\0", b"\xff", b"\x7f", source.randbytes(1)))
        mutant[start : start + length] = source.choice((fill * length, source.randbytes(length)))
    if source.random() < 0.1:
        start = source.randrange(len(mutant))
        del mutant[start : start + source.choice((1, 2, 100, len(mutant)))]
    return bytes(mutant)


def test_files_that_were_changed_at_random_are_judged_or_refused() -> None:
    """Nothing but domain errors comes of any; a codec that cannot cope costs a process, of which there are no more
    than before."""
    seeds, source = make_seeds(), random.Random(17)
    before = list_children()
    reasons: Counter[str] = Counter()

    for number in range(300):
        mutant = mutate(seeds[number % len(seeds)], source)
        try:
            load_pixels(mutant, MODEL, frame=1)
            reasons["answered"] += 1
        except StrokeError as error:
            reasons[error.reason] += 1

    assert reasons["DICOM_UNDECODABLE"] > 50
    assert reasons["answered"] > 20
    assert "DICOM_DECODER_UNAVAILABLE" not in reasons
    assert len(list_children() - before) <= count_processors()
    for seed in seeds:
        load_pixels(seed, MODEL, frame=1)
