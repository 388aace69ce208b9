"""A split that the data set brings: taken as it is where that is asked for, and looked through for what it leaks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from training.data.given import check_request
from training.data.groups import SPLITS
from training.data.labels import ImageSet, list_images
from training.data.split import Data, group_data, split_data
from training.errors import TrainingError
from training.settings.train import TrainConfig

EACH = 6
"""Images of each part, half of each class."""


def make_images(root: Path, form: str = "rvt", **changes: object) -> ImageSet:
    """Six images of each part, every one of another patient."""
    letters = {"r": "train", "v": "validation", "t": "test"}
    count = EACH * len(form)
    images = ImageSet(
        root,
        labels=("normal", "stroke"),
        files=tuple(f"{index:02d}.png" for index in range(count)),
        targets=np.arange(count) % 2,
        patients=tuple(f"P{index}" for index in range(count)),
        parts=tuple(letters[part] for part in form for _ in range(EACH)),
        parts_source="folders",
    )
    return replace(images, **changes)  # type: ignore[arg-type]


def split(
    images: ImageSet, same: tuple[tuple[int, int], ...] = (), alike: tuple[tuple[int, int], ...] = (), **flags: object
) -> Data:
    """Splits images of which some pairs are the same bytes, or look the same."""
    config = replace(
        TrainConfig(data=images.root, out=images.root / "run", validation=0.3, test=0.3),
        **flags,  # type: ignore[arg-type]
    )
    count = len(images.files)
    small = np.random.default_rng(3).integers(0, 256, (count, 1024)).astype(np.uint8)
    digests = [hashlib.sha256(file.encode()).hexdigest() for file in images.files]
    for first, second in same:
        digests[second] = digests[first]
    for first, second in alike:
        small[second] = small[first]
    check_request(config, images)
    data = group_data(config, images, SimpleNamespace(small=small), tuple(digests))  # type: ignore[arg-type]
    return split_data(config, data, images.root)


def share_patient(images: ImageSet, first: int, second: int) -> ImageSet:
    patients = list(images.patients)
    patients[second] = patients[first]
    return replace(images, patients=tuple(patients))


def test_clean_split_is_taken_and_said_to_be_clean(tmp_path: Path) -> None:
    """Whether it was asked for or not."""
    for flag in ("auto", "given"):
        data = split(make_images(tmp_path), split=flag)

        assert [SPLITS[part] for part in data.split] == list(data.images.parts)
        assert data.check is not None
        assert not data.check.leaks
        assert data.warnings[-1].startswith("the split is the data set's own (folders); nothing of it was found in two")


def test_leaks_are_counted_named_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A patient, a file and a near-copy in two parts each; the terminal names the images, the warnings do not."""
    images = share_patient(make_images(tmp_path), 0, 12)
    data = split(images, same=((1, 13),), alike=((8, 16), (2, 3)), split="given")

    assert [SPLITS[part] for part in data.split] == list(images.parts)
    check = data.check
    assert check is not None
    assert [shared.count for _, shared in check.list_findings()] == [1, 1, 1]
    assert check.patients.examples == (("00.png", "12.png"),)
    assert check.copies.examples == (("01.png", "13.png"),)
    assert check.near.examples == (("08.png", "16.png"),)
    assert (check.known, check.test) == (3, EACH)
    assert np.flatnonzero(data.known).tolist() == [12, 13, 16]
    warning = data.warnings[-1]
    assert warning.startswith("WARNING: the split is the data set's own (folders). It LEAKS: in two parts of it are")
    assert "3 of 6 test images" in warning
    assert ".png" not in warning
    assert "P0" not in warning
    assert "  1 patient: 00.png and 12.png" in capsys.readouterr().err


def test_leak_between_training_and_validation_leaves_the_test_images_unknown(tmp_path: Path) -> None:
    """It is said all the same: the epoch was chosen on it."""
    data = split(share_patient(make_images(tmp_path), 0, 7), split="given")

    assert data.check is not None
    assert data.check.leaks
    assert data.check.known == 0


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda images: (share_patient(images, 0, 12), {}), "1 patient"),
        (lambda images: (images, {"same": ((0, 12),)}), r"1 file \(byte for byte\)"),
        (lambda images: (images, {"alike": ((0, 12),)}), "1 pair of images of different patients that look the same"),
    ],
    ids=["patient", "copy", "near-copy"],
)
def test_leaking_split_is_refused_unless_it_is_asked_for(tmp_path: Path, make: object, what: str) -> None:
    """With an example and both ways out."""
    images, pairs = make(make_images(tmp_path))  # type: ignore[operator]
    with pytest.raises(
        TrainingError, match=rf"are {what}, such as 00\.png and 12\.png\. --split given .*--split merge"
    ):
        split(images, **pairs)
    assert not (tmp_path / "split.csv").exists()


def test_near_copies_that_are_only_to_be_reported_are(tmp_path: Path) -> None:
    """``--near-duplicates report``: the split is kept, with a warning."""
    data = split(make_images(tmp_path), alike=((0, 12),), near_duplicates="report")

    assert "LEAKS" in data.warnings[-1]


def test_run_that_was_stopped_goes_on_with_its_leaking_split(tmp_path: Path) -> None:
    """Its own split.csv is read again, and what leaks is said again."""
    images = share_patient(make_images(tmp_path, "rt"), 0, 7)
    first = split(images, split="given")
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", split="given", seed=99)
    again = split_data(config, replace(first, check=None, known=None), tmp_path, tmp_path / "split.csv")

    assert again.split.tolist() == first.split.tolist()
    assert again.check == first.check


def test_part_that_is_not_brought_is_cut_from_training_and_said(tmp_path: Path) -> None:
    """Near-copies stay together when validation is cut."""
    data = split(make_images(tmp_path, "rrrt"), alike=((0, 9),), split="given")

    assert data.check is not None
    assert data.check.cut == ("validation",)
    assert data.split[0] == data.split[9]
    assert "validation cut from its training images by patient" in data.warnings[-1]


def test_patients_who_are_not_known_are_said(tmp_path: Path) -> None:
    """Nothing found is not nothing there."""
    data = split(make_images(tmp_path, patients=(None,) * 3 * EACH), split="given")

    assert "shared patients cannot be found" in data.warnings[-1]


@pytest.mark.parametrize(
    ("flags", "changes", "message"),
    [
        ({"split": "given"}, {"parts": ()}, "brings no split: it has neither folders train, val and test nor a column"),
        ({"split": "givne"}, {}, "--split givne is neither auto, given nor merge, nor a file"),
        ({"split": "auto", "folds": 2}, {}, "--folds holds every image out once.*--split merge says so"),
        (
            {"split": "given"},
            {"parts": ("test", "validation", "") * EACH},
            "says of 6 images not which part of the spl",
        ),
        ({"split": "auto"}, {"parts": ("test", "train", "") * EACH}, r"the first: 02\.png; --split merge makes"),
        ({"split": "given"}, {"parts": ("test", "validation") * 9}, "has no training images beside test, validation"),
    ],
)
def test_split_that_cannot_be_had_is_refused(
    tmp_path: Path, flags: dict[str, object], changes: dict[str, object], message: str
) -> None:
    """Before anything is decoded, with the way out."""
    with pytest.raises(TrainingError, match=message):
        split(make_images(tmp_path, **changes), **flags)


def test_folds_need_another_split(tmp_path: Path) -> None:
    """A given one has one test part."""
    with pytest.raises(ValueError, match="--split is for a run without --folds"):
        TrainConfig(data=tmp_path, out=tmp_path / "run", split="given", folds=2)


def write_table(root: Path, header: str, *rows: str) -> Path:
    for number in range(len(rows)):
        (root / f"{number}.png").write_bytes(b"")
    (root / "labels.csv").write_text("\n".join([header, *(f"{n}.png,{row}" for n, row in enumerate(rows))]) + "\n")
    return root


def test_column_split_gives_a_split(tmp_path: Path) -> None:
    """Whatever people call the parts."""
    images = list_images(write_table(tmp_path, "file,label,Split", "0,Train", "1,TEST", "0,val", "1,holdout"))

    assert images.parts == ("train", "test", "validation", "test")
    assert images.parts_source == "the column split of labels.csv"
    assert images.notes[-1] == "the column split of labels.csv gives a split: 1 train, 2 test, 1 validation"


def test_column_split_goes_before_folders(tmp_path: Path) -> None:
    """As labels.csv does in all else."""
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,label,split\ntest.png,0,train\ntrain.png,1,test\n")

    assert list_images(tmp_path).parts == ("train", "test")


def test_column_of_folds_is_no_split(tmp_path: Path) -> None:
    """Numbers say nothing of what is test."""
    assert list_images(write_table(tmp_path, "file,label,split", "0,1", "1,2")).parts == ()


def test_half_a_column_is_no_whole_split(tmp_path: Path) -> None:
    """Training refuses it; see above."""
    assert list_images(write_table(tmp_path, "file,label,split", "0,test", "1,", "1,train")).parts == (
        "test",
        "",
        "train",
    )
