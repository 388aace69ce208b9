"""Slices to calibrate and to judge on: of different patients wherever it is known who they show, and said where not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from converter.int8.calibrate import load_sets
from converter.int8.patients import KnownSlice, part_patients, read_slices
from server.images.image_folder import list_folder
from server.images.preprocess import InputFormat
from server.models.contract import ModelSpec
from tests.fakes import encode, make_slice

LABELS = ("normal", "stroke")
SPEC = ModelSpec("x", "1", LABELS, ("stroke",), 0.5)
FORMAT = InputFormat(32, 32, "grey")


def write_names(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def read_names(root: Path) -> dict[str, tuple[str | None, str | None]]:
    """Label and patient of each file."""
    return {
        item.path.relative_to(root).as_posix(): (item.label, item.patient)
        for item in read_slices(root, list_folder(root), LABELS)
    }


def test_patients_are_read_from_file_names(tmp_path: Path) -> None:
    """As training reads them."""
    write_names(tmp_path, "normal/7 (1).png", "stroke/7 (2).png", "stroke/x.png")

    assert read_names(tmp_path) == {
        "normal/7 (1).png": ("normal", "7"),
        "stroke/7 (2).png": ("stroke", "7"),
        "stroke/x.png": ("stroke", None),
    }


def test_patients_are_read_from_the_folders_of_a_class(tmp_path: Path) -> None:
    """``stroke/P3/1.png``, in a wrapper or not."""
    names = [f"data/{label}/{label[0]}{person}/1.png" for label in LABELS for person in range(2)]

    assert read_names(write_names(tmp_path, *names))["data/stroke/s1/1.png"] == ("stroke", "s1")


def test_table_says_what_slices_show_and_of_whom(tmp_path: Path) -> None:
    """By path, or by a name that is there once; a semicolon and Windows line ends do not matter."""
    write_names(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    (tmp_path / "labels.csv").write_bytes(b"file;label;patient\r\nimages/a.png;normal;P1\r\nb.png;stroke;P2\r\n")

    assert read_names(tmp_path) == {
        "images/a.png": ("normal", "P1"),
        "images/b.png": ("stroke", "P2"),
        "images/c.png": (None, None),
    }


def make_slices(counts: dict[str, tuple[int, int]]) -> list[KnownSlice]:
    """Slices of patients: how many normal ones each has, and how many with a stroke."""
    return [
        KnownSlice(Path(f"{label}/{person} ({number}).png"), label, person)
        for index, label in enumerate(LABELS)
        for person, both in counts.items()
        for number in range(both[index])
    ]


@pytest.mark.parametrize(
    "counts",
    [
        {str(person): (3, 1) for person in range(12)},
        {"a": (50, 0), "b": (50, 0), "c": (0, 50), "d": (0, 50)},
        {**{f"a{person}": (9, 0) for person in range(9)}, **{f"b{person}": (2, 5) for person in range(9)}},
        {"big": (60, 40), **{str(person): (2, 2) for person in range(10)}},
    ],
    ids=["in both classes", "few and large", "one kind first", "one large"],
)
def test_nobody_is_in_both_sets(counts: dict[str, tuple[int, int]]) -> None:
    """Whole patients calibrate or judge, and both sets have slices of each class."""
    calibration, held_out = part_patients(make_slices(counts), is_labelled=True)

    assert all(calibration)
    assert all(held_out)
    assert sum(map(len, calibration)) + sum(map(len, held_out)) == sum(map(sum, counts.values()))
    people = [{item.patient for group in part for item in group} for part in (calibration, held_out)]
    assert not people[0] & people[1]


def write_patients(root: Path, names: str) -> Path:
    for label in LABELS:
        (root / label).mkdir(parents=True)
        for person in range(10):
            for number in range(8):
                path = root / label / names.format(person=f"{label[0]}{person}", number=number)
                path.write_bytes(encode(make_slice(10 * person + number, 32, number)))
    return root


def test_it_is_said_that_other_patients_judge(tmp_path: Path) -> None:
    """On the terminal and in what the manifest records."""
    said: list[str] = []
    sets = load_sets(write_patients(tmp_path / "data", "{person} ({number}).png"), FORMAT, SPEC, said.append)

    assert (len(sets.calibration.pixels), len(sets.held_out.pixels)) == (64, 96)
    assert said == ["64 slices calibrate, 96 judge; held-out slices are other patients'"]
    assert sets.describe() == "data; held-out slices are other patients'"


def test_it_is_said_where_patients_are_not_known(tmp_path: Path) -> None:
    """No claim is made that cannot be kept."""
    sets = load_sets(write_patients(tmp_path / "data", "{person}{number}.png"), FORMAT, SPEC)

    assert "not known of 160 slices who they show: held-out slices may be of the same patients" in sets.describe()


def test_masks_do_not_calibrate(tmp_path: Path) -> None:
    """Hidden files are left out, and counted."""
    write_patients(tmp_path / "data", "{person} ({number}).png")
    write_names(tmp_path / "data", ".lesions/stroke/s0 (1).png", "stroke/._s0 (1).png", "stroke/DICOMDIR")
    said: list[str] = []
    load_sets(tmp_path / "data", FORMAT, SPEC, said.append)

    assert said[0] == f"left out: 1 DICOM directory, 2 hidden or system files of {tmp_path / 'data'}"


def test_slices_are_drawn_in_the_classes_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three, in whatever order it has them, and with the command that draws them again."""
    monkeypatch.setattr("converter.int8.calibrate.LEAST_HELD_OUT", 16)
    labels = ("ischaemia", "normal", "haemorrhage")
    sets = load_sets(None, FORMAT, replace(SPEC, labels=labels, positive_labels=("ischaemia",)), most=(20, 40))

    assert sets.source == "python -m training phantom --count 60 --seed 1789 --classes normal,haemorrhage,ischaemia"
    for part in (sets.calibration, sets.held_out):
        assert part.classes is not None
        assert {*part.classes} == {0, 1, 2}


def test_other_labels_are_not_taken_for_those_of_drawn_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slices calibrate all the same, and have no classes."""
    monkeypatch.setattr("converter.int8.calibrate.LEAST_HELD_OUT", 16)
    sets = load_sets(None, FORMAT, replace(SPEC, labels=("healthy", "stroke")), most=(12, 24))

    assert sets.source == "python -m training phantom --count 36 --seed 1789"
    assert sets.calibration.classes is sets.held_out.classes is None
