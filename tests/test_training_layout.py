"""The forms that data folders come in: parts of a split, wrappers, folders of patients, and what lies among them."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.test_training_data import write_discs
from training.cli import main
from training.data.given import check_request
from training.data.groups import SPLITS
from training.data.labels import ImageSet, list_images
from training.data.layout import name_split
from training.data.split import Data, group_data, split_data
from training.errors import TrainingError
from training.settings.train import TrainConfig


def write_names(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


CLASSES = ("normal/1 (1).png", "normal/2 (1).png", "stroke/3 (1).png")


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN_SET", "train"),
        ("val", "validation"),
        ("valid", "validation"),
        ("validation_set", "validation"),
        ("testset", "test"),
        ("Test Images", "test"),
        ("trainval", "train"),
        ("train-val", "train"),
        ("hold-out", "test"),
        ("2_eval", "validation"),
        ("stroke", None),
        ("trained", None),
        ("train_stroke", None),
        ("", None),
    ],
)
def test_names_of_a_split_are_known(folder: str, part: str | None) -> None:
    """As people write them; a class is not taken for a part."""
    assert name_split(folder) == part


@pytest.mark.parametrize("form", ["{part}/{label}/{name}", "{label}/{part}/{name}", "{part}/images/{label}/{name}"])
def test_folders_of_a_split_are_no_classes(tmp_path: Path, form: str) -> None:
    """Around the classes or in them; which image is in which part is kept."""
    for part, person in (("train", 1), ("val", 2), ("test", 3)):
        for label in ("normal", "stroke"):
            write_names(tmp_path, form.format(part=part, label=label, name=f"{label[0]}{person} (1).png"))
    images = list_images(tmp_path)

    assert images.labels == ("normal", "stroke")
    expected = [next(part for part in ("train", "val", "test") if f"{part}/" in file) for file in images.files]
    assert images.parts == tuple(part.replace("val", "validation") for part in expected)
    assert set(images.patients) == {"n1", "n2", "n3", "s1", "s2", "s3"}
    assert "folders give a split, which are no classes: " in images.notes[-1]


def test_spelling_of_a_class_may_differ_between_parts(tmp_path: Path) -> None:
    """``train/Normal`` and ``test/normal`` are one class."""
    write_names(tmp_path, "train/Normal/1.png", "train/Stroke/2.png", "test/normal/3.png", "test/stroke/4.png")

    assert len(list_images(tmp_path).labels) == 2


def test_parts_without_classes_are_refused(tmp_path: Path) -> None:
    """They are never taken for classes."""
    write_names(tmp_path, "train/1.png", "test/2.png")

    with pytest.raises(TrainingError, match="test, train are parts of a split and no classes; put one folder per cl"):
        list_images(tmp_path)


def test_images_of_a_part_without_classes_are_counted(tmp_path: Path) -> None:
    """A test folder of a contest has no labels."""
    write_names(tmp_path, *(f"train/{name}" for name in CLASSES), "test/8.png", "test/9.png")
    images = list_images(tmp_path)

    assert (len(images.files), images.ignored, images.parts) == (3, 2, ())
    assert images.warnings == ("left out: 2 images in no class folder",)


def test_part_among_classes_is_refused(tmp_path: Path) -> None:
    """It is not guessed which of them is what."""
    write_names(tmp_path, "train/normal/1.png", "stroke/2.png")

    with pytest.raises(TrainingError, match="has train, which is a part of a split, beside stroke; put classes into"):
        list_images(tmp_path)


@pytest.mark.parametrize("folders", [("images", "masks"), ("site A", "site B")])
def test_folders_around_the_classes_are_told(tmp_path: Path, folders: tuple[str, str]) -> None:
    """They are taken for the classes, which is said: labels of the same two names lie in each."""
    write_names(tmp_path, *(f"{folder}/{label}/1.png" for folder in folders for label in ("Normal", "stroke")))
    images = list_images(tmp_path)

    assert images.labels == folders
    assert images.warnings == (
        "each class folder has the folders normal and stroke in it: where those are the classes, put them at the top "
        f"of {tmp_path}, or write a labels.csv",
    )


def test_folders_around_the_classes_are_told_where_they_are_more_than_two(tmp_path: Path) -> None:
    """They might be three classes, so it is a warning."""
    write_names(tmp_path, *(f"fold{fold}/{label}/1.png" for fold in range(3) for label in ("normal", "stroke")))
    images = list_images(tmp_path)

    assert images.labels == ("fold0", "fold1", "fold2")
    assert "each class folder has the folders normal and stroke in it" in images.warnings[0]


@pytest.mark.parametrize("people", [("P1", "P2"), ("1", "2"), ("ann", "bob", "cem")])
def test_patients_of_the_same_names_are_no_classes(tmp_path: Path, people: tuple[str, ...]) -> None:
    """Folders of people may be called the same in both classes."""
    write_names(tmp_path, *(f"{label}/{name}/1.png" for label in ("normal", "stroke") for name in people))

    assert list_images(tmp_path).warnings == ()


def test_table_with_files_in_parts_gives_a_split(tmp_path: Path) -> None:
    """Where labels come from labels.csv, the folders still say what is test."""
    write_names(tmp_path, "train/a.png", "train/b.png", "test/c.png")
    (tmp_path / "labels.csv").write_text("file,label\ntrain/a.png,0\ntrain/b.png,1\nc.png,1\n")

    assert list_images(tmp_path).parts == ("test", "train", "train")


@pytest.mark.parametrize("wrapper", ["archive", "archive/Brain Data/CT", "train"])
def test_wrapper_is_gone_through(tmp_path: Path, wrapper: str) -> None:
    """A folder around everything, as archives have it, is no class; what lies beside it is counted."""
    write_names(tmp_path, *(f"{wrapper}/{name}" for name in CLASSES), "__MACOSX/._archive", f"{wrapper}/.DS_Store")
    images = list_images(tmp_path)

    assert images.root == tmp_path / wrapper
    assert images.files == CLASSES
    assert images.notes[:2] == (
        f"the data are in {tmp_path / wrapper}, all that {tmp_path} holds",
        "left out: 2 hidden or system files",
    )


def test_wrapper_around_a_table_is_gone_through(tmp_path: Path) -> None:
    """The table counts from where it is."""
    write_names(tmp_path, "archive/images/a.png", "archive/images/b.png")
    (tmp_path / "archive" / "labels.csv").write_text("file,label\nimages/a.png,0\nimages/b.png,1\n")

    assert list_images(tmp_path).files == ("images/a.png", "images/b.png")


def test_one_class_is_no_wrapper(tmp_path: Path) -> None:
    """What is missing is said of the folder that was given."""
    with pytest.raises(TrainingError, match=r"has 1 class \(stroke\)"):
        list_images(write_names(tmp_path, "stroke/1.png"))
    (tmp_path / "stroke" / "loop").symlink_to(tmp_path)
    with pytest.raises(TrainingError, match=r"has 1 class \(stroke\)"):
        list_images(tmp_path)


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", ".ipynb_checkpoints"])
def test_folder_of_a_system_is_no_class(tmp_path: Path, name: str) -> None:
    """Empty or with files that look like images."""
    write_names(tmp_path, *CLASSES)
    (tmp_path / name).mkdir()
    assert list_images(tmp_path).labels == ("normal", "stroke")
    write_names(tmp_path, f"{name}/normal/._1.png", f"{name}/2.png")
    images = list_images(tmp_path)

    assert images.labels == ("normal", "stroke")
    assert "left out: 2 hidden or system files" in images.notes


def test_linked_folders_are_read(tmp_path: Path) -> None:
    """A class may be a link, and a link in a class may lead to more."""
    write_names(tmp_path / "disk", "1.png", "2.png")
    write_names(tmp_path / "more", "3.png")
    root = write_names(tmp_path / "data", "normal/0.png")
    (root / "stroke").symlink_to(tmp_path / "disk")
    (root / "normal" / "more").symlink_to(tmp_path / "more")
    (root / "normal" / "loop").symlink_to(root)
    images = list_images(root)

    assert images.files == ("normal/0.png", "normal/more/3.png", "stroke/1.png", "stroke/2.png")
    assert images.warnings == ("left out: 1 link to what is listed already",)


def test_what_is_no_image_is_counted_once_by_kind(tmp_path: Path) -> None:
    """Also what is called as DICOM files are and is none."""
    write_names(tmp_path, *CLASSES, "normal/5.ima", "stroke/6.ima", "stroke/7.tif", "stroke/notes.txt", "0.png")
    images = list_images(tmp_path)

    assert images.warnings == (
        "left out: 1 image in no class folder",
        "left out: 4 files besides the images (1 .tif file, 1 .txt file, 2 files called DICOM that do not begin so)",
    )
    assert images.ignored == 5


def write_patients(root: Path, form: str) -> Path:
    for index, label in enumerate(("normal", "stroke")):
        for person in range(2):
            write_names(root, *(form.format(label=label, person=2 * index + person, slice=k) for k in (1, 2)))
    return root


@pytest.mark.parametrize("form", ["{label}/P{person}/{slice}.png", "{label}/P{person}/series/slice ({slice}).png"])
def test_patients_are_the_folders_in_a_class(tmp_path: Path, form: str) -> None:
    """``stroke/P07/12.png``; that it was read so is said."""
    images = list_images(write_patients(tmp_path, form))

    assert images.patients == ("P0", "P0", "P1", "P1", "P2", "P2", "P3", "P3")
    assert "patients are the 4 folders below the classes; where they are not, say who it is" in images.notes[-1]


@pytest.mark.parametrize("pattern", [r"(?P<patient>.+) \(\d+\)\.\w+", r"(\d+) .*"])
def test_names_that_tell_more_people_apart_win(tmp_path: Path, pattern: str) -> None:
    """Folders of batches are no patients, and a pattern that is given counts."""
    names = [f"{label}/batch{n % 2}/{label[0]}{n} (1).png" for label in ("normal", "stroke") for n in range(3)]
    images = list_images(write_names(tmp_path, *names), patient_pattern=pattern)

    assert not {"batch0", "batch1"} & set(images.patients)


def test_one_folder_in_a_class_is_no_patient(tmp_path: Path) -> None:
    """``normal/images/1.png``: nobody is called images, and nobody is known."""
    images = list_images(write_names(tmp_path, "normal/images/1.png", "stroke/images/2.png"))

    assert images.patients == (None, None)


def make_data(root: Path, parts: str, patients: list[str] | None = None, digests: list[str] | None = None) -> Data:
    """Two images of each class in each of the parts, every image of another patient unless told."""
    letters = {"r": "train", "v": "validation", "t": "test"}
    count = 4 * len(parts)
    images = ImageSet(
        root,
        labels=("normal", "stroke"),
        files=tuple(f"{index}.png" for index in range(count)),
        targets=np.arange(count) % 2,
        patients=tuple(patients or map(str, range(count))),
        parts=tuple(letters[part] for part in parts for _ in range(4)),
    )
    config = TrainConfig(data=root, out=root / "run")
    store = SimpleNamespace(small=np.random.default_rng(1).integers(0, 256, (count, 1024)).astype(np.uint8))
    return group_data(config, images, store, tuple(digests or map(str, range(count))))


def split(data: Data, root: Path, **settings: object) -> list[str]:
    config = replace(TrainConfig(data=root, out=root / "run", validation=0.2, test=0.2), **settings)
    check_request(config, data.images)
    return [SPLITS[part] for part in split_data(config, data, root).split]


def test_split_of_the_folders_is_kept(tmp_path: Path) -> None:
    """Nothing of the test folder is trained on."""
    data = make_data(tmp_path, "rvt")

    assert split(data, tmp_path) == list(data.images.parts)


@pytest.mark.parametrize("parts", ["rrrt", "rrrv", "rrrrr"])
def test_part_without_a_folder_is_cut_from_training(
    tmp_path: Path, parts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By patient; what has a folder stays there."""
    data = make_data(tmp_path, parts)
    chosen = split(data, tmp_path)

    assert set(chosen) == set(SPLITS)
    for part, before in zip(chosen, data.images.parts, strict=True):
        assert part == before or before == "train"
    assert "cut from its training images by patient" in capsys.readouterr().err


def test_folders_are_merged_where_that_is_said(tmp_path: Path) -> None:
    """Then patients are dealt anew."""
    data = make_data(tmp_path, "rrrt")

    assert split(data, tmp_path, split="merge") != list(data.images.parts)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"patients": ["P", *map(str, range(1, 7)), "P"]}, "1 patient"), ({"digests": [*"0123456", "0"]}, "1 file .byte")],
)
def test_leaking_folders_are_refused(tmp_path: Path, change: dict[str, list[str]], what: str) -> None:
    """A patient or a file in two parts is named, with the way out."""
    data = make_data(tmp_path, "rt", **change)

    with pytest.raises(
        TrainingError, match=rf"are {what}.*, such as 0\.png and 7\.png\. --split given.*--split merge makes another"
    ):
        split(data, tmp_path)


def test_split_without_training_images_is_refused(tmp_path: Path) -> None:
    """There is nothing to learn from."""
    with pytest.raises(TrainingError, match="has no training images beside test, validation"):
        split(make_data(tmp_path, "vt"), tmp_path)


@pytest.mark.tensorflow
def test_folds_do_not_mix_test_images_into_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unless that is said."""
    data = tmp_path / "data"
    for part in ("train", "test"):
        write_discs(data / part, patients=4, slices=1, size=64)
    assert main(["--data", str(data), "--out", str(tmp_path / "run"), "--folds", "2"]) == 2
    assert "--folds holds every image out once, those of the data set's own test part too" in capsys.readouterr().err


@pytest.mark.tensorflow
def test_nothing_of_the_test_folder_is_trained_on(tmp_path: Path) -> None:
    """A run's split.csv says what its folders said, whatever is around them."""
    data = write_discs(tmp_path / "data" / "archive" / "train", patients=12, slices=1, size=64).parent
    write_discs(data / "all", patients=20, slices=1, size=64)
    for number in range(12, 20):
        name = f"{('normal', 'stroke')[number % 2]}/{number} (1).png"
        (data / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "all" / name).rename(data / "test" / name)
    shutil.rmtree(data / "all")
    assert main(["--data", str(data.parent), "--out", str(tmp_path / "run"), "--epochs", "1"]) == 0
    with (tmp_path / "run" / "split.csv").open() as stream:
        parts = {row["file"]: row["split"] for row in csv.DictReader(stream)}
    assert set(parts.values()) == set(SPLITS)
    assert all((part == "test") == file.startswith("test/") for file, part in parts.items())


def test_audit_does_not_take_train_and_test_for_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The classes are in them, and who or what is in both is found."""
    data = tmp_path / "data"
    for part in ("train", "test"):
        write_discs(data / part, patients=6, slices=2, size=64)
    shutil.copy(data / "train" / "stroke" / "1 (1).png", data / "test" / "stroke" / "1 (1).png")
    assert main(["audit", str(data), "--out", str(tmp_path / "audit")]) == 0
    assert (
        "The data set's own split (folders) leaks: in two parts of it are 6 patients and 12 files (byte for byte)."
        in capsys.readouterr().out
    )
    page = (tmp_path / "audit" / "audit.md").read_text()
    assert "| normal | 12 | 3 |" in page
    assert "folders give a split, which are no classes: 12 test, 12 train" in page
