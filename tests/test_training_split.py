"""Who is in training, in validation and in test: whole patients, stratified, seeded, and never in two of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from training.data.groups import (
    SPLITS,
    assert_disjoint,
    assign_folds,
    join_groups,
    split_fold,
    split_groups,
)
from training.data.labels import ImageSet
from training.data.split import Data, group_data, split_data
from training.errors import TrainingError
from training.settings.train import TrainConfig

TEST = SPLITS.index("test")


def draw_patients(patients: int, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns groups and targets of patients with different numbers of slices, every third one positive."""
    groups = np.sort(np.random.default_rng(seed).integers(0, patients, images))
    groups = np.unique(groups, return_inverse=True)[1]
    return groups, (groups % 3 == 0).astype(np.int64)


def test_same_bytes_join_two_patients() -> None:
    """A file that two patients share makes them one group, so that it cannot leak."""
    groups = join_groups(["a", "a", "b", "c"], ["1", "2", "2", "3"])
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_split_keeps_patients_and_shares() -> None:
    """Whole patients go into one split, and both classes come close to the shares that were asked for."""
    groups, targets = draw_patients(100, 3000)
    split = split_groups(groups, targets, 0.15, 0.15, seed=1)
    assert all(len(set(split[groups == group])) == 1 for group in np.unique(groups))
    for label in (0, 1):
        shares = np.bincount(split[targets == label], minlength=3) / (targets == label).sum()
        assert np.allclose(shares, [0.7, 0.15, 0.15], atol=0.03)


def test_split_is_exact_for_single_images() -> None:
    """One image per patient gives the shares to the image."""
    targets = np.arange(200) % 2
    split = split_groups(np.arange(200), targets, 0.15, 0.15, seed=1)
    assert [np.bincount(split[targets == label]).tolist() for label in (0, 1)] == [[70, 15, 15]] * 2


def test_split_is_seeded() -> None:
    """The same seed gives the same split, another one another."""
    groups, targets = np.arange(60), np.arange(60) % 2
    first, again, other = (split_groups(groups, targets, 0.2, 0.2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_class_with_one_patient_cannot_be_split() -> None:
    """A class that would be missing from a split is an error, not a report with an empty column."""
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 6])
    targets = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    with pytest.raises(TrainingError, match=r"no image of class stroke is left for .* the class has 1 patient "):
        split_groups(groups, targets, 0.2, 0.2, seed=1, labels=("normal", "stroke"))


def test_folds_keep_patients_and_shares() -> None:
    """Every image is in one fold with all of its patient, and both classes are spread over the folds."""
    groups, targets = draw_patients(100, 3000)
    folds = assign_folds(groups, targets, 5, seed=1)
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    for label in (0, 1):
        shares = np.bincount(folds[targets == label], minlength=5) / (targets == label).sum()
        assert np.allclose(shares, 0.2, atol=0.03)


def test_folds_are_seeded() -> None:
    """The same seed gives the same folds, another one others."""
    groups, targets = draw_patients(60, 600)
    first, again, other = (assign_folds(groups, targets, 5, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_folds_than_patients_are_refused() -> None:
    """A fold without a class could not be judged."""
    with pytest.raises(TrainingError, match=r"no image of class stroke is left for fold \d; .* has 4 patients"):
        assign_folds(np.arange(24), (np.arange(24) < 4).astype(np.int64), 5, seed=1, labels=("normal", "stroke"))


def test_fold_is_its_own_test_set() -> None:
    """Each fold is the test set once; validation is cut from the other folds, by patient, at its share."""
    groups, targets = draw_patients(100, 3000)
    folds = assign_folds(groups, targets, 5, seed=1)
    for index in range(5):
        split = split_fold(folds, index, groups, targets, 0.15, seed=1)
        assert np.array_equal(split == TEST, folds == index)
        assert all(len(set(split[groups == group])) == 1 for group in np.unique(groups))
        for label in (0, 1):
            share = (split[targets == label] == SPLITS.index("validation")).mean()
            assert share == pytest.approx(0.15, abs=0.03)


def test_fold_without_patients_for_validation_is_refused() -> None:
    """Two patients of a class in two folds leave nobody to validate on."""
    groups = np.arange(12)
    targets = (groups < 2).astype(np.int64)
    folds = assign_folds(groups, targets, 2, seed=1)
    with pytest.raises(TrainingError, match="no image of class 2 of 2 is left for"):
        split_fold(folds, 0, groups, targets, 0.15, seed=1)


@pytest.mark.parametrize("kind", ["patient", "digest"])
def test_shared_identity_fires_the_assertion(kind: str) -> None:
    """A patient or file in two splits stops the run, naming both splits."""
    split = np.array([SPLITS.index("train"), SPLITS.index("validation"), SPLITS.index("test")])
    assert_disjoint(split, **{kind: ["a", "b", "c"]})
    with pytest.raises(AssertionError, match=f"{kind} 'a' is in train and in test"):
        assert_disjoint(split, **{kind: ["a", None, "a"]})


def test_pairs_join_two_patients() -> None:
    """Near-duplicates of two patients make them one group, with all that is theirs."""
    groups = join_groups(["a", "a", "b", "b", "c"], list("12345"), np.array([[1, 2]]))
    assert len(set(groups[:4])) == 1
    assert groups[4] != groups[0]


PATIENTS = 12


def make_split(tmp_path: Path, *, copy_of: int | None = None, patients: bool = True, **settings: object) -> Data:
    """Splits two images of each of twelve patients; image 0 can look the same as another one."""
    rng = np.random.default_rng(8)
    small = rng.integers(0, 256, (2 * PATIENTS, 1024)).astype(np.uint8)
    if copy_of is not None:
        small[0] = small[copy_of]
    owners = np.repeat(np.arange(PATIENTS), 2)
    files = tuple(f"{index}.png" for index in range(2 * PATIENTS))
    images = ImageSet(
        tmp_path,
        labels=("normal", "stroke"),
        files=files,
        targets=owners % 2,
        patients=tuple(f"P{owner}" if patients else None for owner in owners),
    )
    digests = tuple(hashlib.sha256(file.encode()).hexdigest() for file in files)
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", validation=0.2, test=0.2)
    store = SimpleNamespace(small=small)
    config = replace(config, **settings)
    return split_data(config, group_data(config, images, store, digests), tmp_path)


def find_patient_elsewhere(data: Data) -> int:
    """Returns an image that is not in the split of image 0."""
    return int(np.flatnonzero(data.split != data.split[0])[0])


def test_small_images_are_let_go_of_once_they_were_compared(tmp_path: Path) -> None:
    """Training has no use for a kilobyte of each image."""
    assert not hasattr(make_split(tmp_path).store, "small")


def test_near_duplicates_are_kept_in_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two patients with images that look the same go into the same split, and the terminal names the images."""
    other = find_patient_elsewhere(make_split(tmp_path))
    data = make_split(tmp_path, copy_of=other)
    assert len(set(data.split[data.groups == data.groups[0]])) == 1
    assert data.groups[0] == data.groups[other]
    message = f"1 pair of images of different patients look the same and are kept in one split: 0.png and {other}.png"
    assert message in capsys.readouterr().err
    assert message in data.warnings


def test_near_duplicates_can_be_reported_only(tmp_path: Path) -> None:
    """With ``--near-duplicates report`` the split stays as it is, and the warning says what is apart."""
    other = find_patient_elsewhere(make_split(tmp_path))
    data = make_split(tmp_path, copy_of=other, near_duplicates="report")
    assert data.split[0] != data.split[other]
    assert f"look the same, 1 of them in different splits: 0.png and {other}.png" in data.warnings[0]


def test_unknown_patients_are_warned_of(tmp_path: Path) -> None:
    """Without patient ids the run says that leakage cannot be excluded."""
    assert any("CANNOT BE EXCLUDED" in warning for warning in make_split(tmp_path, patients=False).warnings)
    assert make_split(tmp_path).warnings == ()


def test_written_split_is_used_again(tmp_path: Path) -> None:
    """``--split`` takes an earlier run's split whatever the seed."""
    first = make_split(tmp_path, seed=1)
    (tmp_path / "split.csv").rename(tmp_path / "first.csv")
    assert not np.array_equal(make_split(tmp_path, seed=2).split, first.split)
    assert np.array_equal(make_split(tmp_path, seed=2, split=str(tmp_path / "first.csv")).split, first.split)


def test_split_with_line_ends_of_windows_is_the_same(tmp_path: Path) -> None:
    """As a spreadsheet saves it, with its mark at the front."""
    first = make_split(tmp_path, seed=1)
    saved = (tmp_path / "split.csv").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "first.csv").write_bytes(b"\xef\xbb\xbf" + saved)

    assert np.array_equal(make_split(tmp_path, seed=2, split=str(tmp_path / "first.csv")).split, first.split)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n3.png,", "\n33.png,", r"lacks 1 image; the first: 3\.png"),
        (",train", ",training", r"the split of \d+\.png is 'training', not one of train, validation, test"),
        (",test", ",train", "no image of class normal is left for test"),
        (hashlib.sha256(b"3.png").hexdigest(), "0" * 64, r"is about another 3\.png"),
        ("sha256", "digest", "has no column sha256"),
    ],
    ids=["missing-image", "unknown-split", "missing-split", "other-bytes", "missing-column"],
)
def test_split_that_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A split of other images is not used by halves."""
    make_split(tmp_path)
    path = tmp_path / "old.csv"
    path.write_text((tmp_path / "split.csv").read_text().replace(old, new))
    with pytest.raises(TrainingError, match=message):
        make_split(tmp_path, split=str(path))


def test_split_that_parts_a_patient_is_refused(tmp_path: Path) -> None:
    """A split that was made, or changed, without regard to patients cannot be used."""
    data = make_split(tmp_path)
    lines = (tmp_path / "split.csv").read_text().splitlines()
    words = lines[1].split(",")
    words[-1] = next(name for name in SPLITS if name != SPLITS[data.split[0]])
    (tmp_path / "old.csv").write_text("\n".join([lines[0], ",".join(words), *lines[2:]]))
    with pytest.raises(TrainingError, match="cannot be used: patient 'P0' is in"):
        make_split(tmp_path, split=str(tmp_path / "old.csv"))
