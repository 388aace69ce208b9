"""Who is in training, in validation and in test: whole patients, stratified, seeded, and never in two of them."""

from __future__ import annotations

import numpy as np
import pytest

from training.errors import TrainingError
from training.split import SPLITS, assert_disjoint, assign_folds, join_groups, split_fold, split_groups

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
