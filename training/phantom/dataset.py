"""A data set of synthetic head-CT slices with and without stroke, for training without patients.

Not a substitute for real scans. Normal and stroke slices come from one pipeline: head, findings that are no stroke,
window, noise, table and position are drawn alike, and the only difference is the lesion. Every slice has its own random
streams made of seed and index, so the same seed gives the same bytes whatever the number of processes.

There are two kinds of data sets. Pictures are what hospitals export: in windows as loose as they keep them,
recompressed, resized. CT values are what the scanner stores, as DICOM files or as PNG in one stated window; with one
slice a patient they show the heads and lesions of the pictures of the same seed.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.images.dicom.window import Window, apply_windows
from server.machine.processors import count_processors
from server.process.children import end_with_parent
from training.phantom.classes import TWO_CLASSES, choose_class, order_classes
from training.phantom.ct import PICTURE_PARTS
from training.phantom.dicom_file import Place, encode_dicom, require_pydicom
from training.phantom.lesions import HAEMORRHAGES
from training.phantom.patient import Patient
from training.phantom.recipe import FINDINGS, Recipe
from training.phantom.slice import (
    MINIMUM_SIZE,
    CtSlice,
    Slice,
    generate_ct_slice,
    generate_ct_slice_at,
    generate_slice,
)
from training.phantom.study import plan_study

__all__ = ["LESION_FOLDER", "Slice", "choose_kind", "encode_png", "generate_slice", "write_dataset"]

LESION_FOLDER = ".lesions"
"""Hidden, so that nobody takes the masks for a class."""
FACTS_FILE = "dataset.json"
_CHUNK = 32
_COLUMNS = ("file", "label", "kind", "level", "seed", "patient", "study", "findings")
_UP = 2  # filter of PNG: each row as the difference to the one above
_Rows = list[tuple[str, ...]]


def write_dataset(
    out: Path,
    count: int,
    seed: int,
    *,
    size: int = 256,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    slices_per_patient: int = 1,
    recipe: Recipe | None = None,
    dicom: bool = False,
    window: Window | None = None,
    classes: Sequence[str] = TWO_CLASSES,
) -> None:
    """Write count slices as PNG or DICOM into one folder a class; all or nothing.

    Beside the class folders: labels.csv, FACTS_FILE with what a model card wants to know of the data, and in
    LESION_FOLDER a mask of the same name for each slice with a lesion.

    Args:
        out: folder to write; it must not exist or be empty.
        count: number of slices, at least 2.
        seed: of all slices.
        size: side of a slice in pixels, at least ``MINIMUM_SIZE``.
        processes: as many as there are processors unless told.
        progress: called with (slices done, count).
        slices_per_patient: with more than one, files are named ``<patient> (<slice>).png``, and a stroke patient has
            slices that the lesion does not reach, which are normal. Of CT values they are a study of the whole head,
            in a folder of its own, ``<patient>/<slice>``, from the skull base up.
        recipe: what to draw; everything unless told.
        dicom: CT values as DICOM files; pydicom is needed.
        window: CT values as PNG in this window; not looked at with ``dicom``.
        classes: the slices' labels, see ``training.phantom.classes``; the slices do not depend on them.

    Raises:
        ValueError: a number is too small, the folder holds something, the classes are unknown, one of more than two has
            no slice, or pydicom is missing.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 (one slice of each class), not {count}")
    if size < MINIMUM_SIZE:
        raise ValueError(f"size must be at least {MINIMUM_SIZE}, not {size}")
    if slices_per_patient < 1:
        raise ValueError(f"slices_per_patient must be at least 1, not {slices_per_patient}")
    classes = order_classes(classes)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"the output folder already exists and is not empty: {out}")
    if dicom:
        require_pydicom()
    with _stage_folder(out) as stage:
        (stage / LESION_FOLDER).mkdir()
        job = _Job(stage, count, seed, size, slices_per_patient, recipe or Recipe(), dicom, window, classes)
        chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
        rows: _Rows = []
        for part in _map_chunks(job.write_chunk, chunks, processes):
            rows += part
            if progress is not None:
                progress(len(rows), count)
        missing = sorted(set(classes) - {label for _, label, *_ in rows})
        if missing and len(classes) > len(TWO_CLASSES):
            raise ValueError(f"count {count} is too small: no slice is of the class {', '.join(missing)}")
        with (stage / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows(rows)
        (stage / FACTS_FILE).write_text(json.dumps(job.list_facts(), indent=2) + "\n", encoding="utf-8")


def choose_kind(index: int) -> str | None:
    """Every other slice is a stroke; of those every fifth is an infarct, and the bleeds take turns."""
    turn, stroke = divmod(index, 2)
    return _choose_lesion(turn) if stroke else None


def _choose_lesion(turn: int) -> str:
    if turn % 5 == 4:
        return "infarct"
    return HAEMORRHAGES[(turn - turn // 5) % len(HAEMORRHAGES)]


@dataclass(frozen=True)
class _Job:
    """What all processes share."""

    stage: Path
    count: int
    seed: int
    size: int
    slices_per_patient: int
    recipe: Recipe
    dicom: bool
    window: Window | None
    classes: tuple[str, ...]

    def write_chunk(self, indices: range) -> _Rows:
        # glibc learns from one large block that is freed to keep the many small ones: a third faster on Linux.
        block = np.empty(24 << 20, dtype=np.uint8)
        del block
        return [self._write_slice(index) for index in indices]

    @property
    def has_ct(self) -> bool:
        return self.dicom or self.window is not None

    def _write_slice(self, index: int) -> tuple[str, ...]:
        owner, turn = divmod(index, self.slices_per_patient)
        recipe = self.recipe.leave_out(PICTURE_PARTS) if self.has_ct else self.recipe
        patient = Patient(int(np.random.default_rng([self.seed, owner]).integers(1 << 62)), recipe)
        rng = np.random.default_rng([self.seed, owner, turn])
        name = f"{owner:05d}"
        item, data = self._draw_ct(rng, patient, index) if self.has_ct else self._draw_picture(rng, patient, index)
        label = choose_class(item.kind, self.classes)
        if self.slices_per_patient == 1:
            file = f"{label}/{name}"
        else:
            file = f"{name}/{turn + 1:03d}" if self.has_ct else f"{label}/{name} ({turn + 1})"
        mask = f"{file}.png"
        file += ".dcm" if self.dicom else ".png"
        self._write(file, data)
        if item.kind:
            self._write(f"{LESION_FOLDER}/{mask}", encode_png(item.lesion * np.uint8(255)))
        findings = " ".join(sorted(patient.parts & FINDINGS.keys()))
        return (file, label, item.kind or "none", f"{item.level:.4f}", str(self.seed), name, name, findings)

    def _write(self, file: str, data: bytes) -> None:
        path = self.stage / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _draw_picture(self, rng: np.random.Generator, patient: Patient, index: int) -> tuple[Slice, bytes]:
        owner, turn = divmod(index, self.slices_per_patient)
        kind = choose_kind(index) if self.slices_per_patient == 1 else self._choose_patient_kind(owner, turn)
        item = generate_slice(rng, kind=kind, size=self.size, patient=patient)
        return item, encode_png(item.pixels)

    def _draw_ct(self, rng: np.random.Generator, patient: Patient, index: int) -> tuple[CtSlice, bytes]:
        owner, turn = divmod(index, self.slices_per_patient)
        if self.slices_per_patient == 1:
            item = generate_ct_slice(rng, kind=choose_kind(index), size=self.size, patient=patient)
        else:
            study = plan_study(patient, choose_kind(owner), self.slices_per_patient)
            item = generate_ct_slice_at(
                rng, study.levels[turn], kind=study.kinds[turn], size=self.size, patient=patient
            )
        if self.dicom:
            place = Place(self.seed, f"{owner:05d}", turn + 1, item.level)
            return item, encode_dicom(item.values, place, patient)
        assert self.window is not None
        return item, encode_png(apply_windows(item.values.astype(np.float32), (self.window,))[..., 0])

    def _choose_patient_kind(self, owner: int, turn: int) -> str | None:
        """Three of four patients have a stroke, and two thirds of their slices show it: half of all slices."""
        if owner % 4 == 3 or (turn + owner) % 3 == 0:
            return None
        return _choose_lesion(owner - owner // 4)

    def list_facts(self) -> dict[str, str]:
        """What a model card says of the data."""
        command = f"python -m training phantom --count {self.count} --seed {self.seed} --size {self.size}"
        if self.slices_per_patient > 1:
            command += f" --slices-per-patient {self.slices_per_patient}"
        missing = self.recipe.list_missing()
        if missing:
            command += f" --without {' '.join(missing)}"
        if self.dicom:
            command += " --dicom"
        elif self.window:
            command += f" --window {self.window.level:g},{self.window.width:g}"
        if self.classes != TWO_CLASSES:
            command += f" --classes {','.join(self.classes)}"
        return {
            "name": f"synthetic head-CT slices, seed {self.seed}",
            "source": command,
            "population": "no people: drawn heads",
            "labelled_by": "the generator draws the lesion",
            "excluded": "nothing" if not missing else f"left out of the generator: {', '.join(missing)}",
            "licence": "Apache-2.0 (made by this project)",
            "notes": (
                f"{self.count} slices of {self.size} x {self.size}, "
                f"{-(-self.count // self.slices_per_patient)} drawn patients; "
                "bleeds of five kinds and, a fifth of the strokes, infarcts; not a substitute for real scans"
            ),
        }


def _map_chunks(write: Callable[[range], _Rows], chunks: list[range], processes: int | None) -> Iterator[_Rows]:
    workers = min(processes or count_processors(), len(chunks))
    if workers <= 1:
        yield from map(write, chunks)
        return
    # Spawned, not forked: the caller may already hold TensorFlow's threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        yield from pool.map(write, chunks)


@contextmanager
def _stage_folder(out: Path) -> Iterator[Path]:
    """A sibling folder that takes the name out only when everything in it is written."""
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = out.parent / f".{out.name}.partial-{os.getpid()}"
    stage.mkdir()
    try:
        yield stage
        if out.exists():
            out.rmdir()
        stage.rename(out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (height, width) as an 8-bit grey PNG (ISO/IEC 15948).

    One filter for all rows and run lengths only: a third of Pillow's time.
    """
    height, width = pixels.shape
    rows = np.empty((height, width + 1), dtype=np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    body = packer.compress(rows.tobytes()) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _make_chunk(b"IHDR", header) + _make_chunk(b"IDAT", body) + _make_chunk(b"IEND", b"")


def _make_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
